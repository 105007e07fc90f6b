//! Settings and columns in the form of the contract.

use crate::bindings::weir::module::types as wit;
use crate::error::InitError;
use crate::module::{ParameterInfo, Setting};
use std::collections::BTreeMap;
use weir_types::Column;
use weir_types::columns::HeaderColumns;

pub(super) fn column_param(c: &Column) -> wit::ColumnParam<'_> {
    wit::ColumnParam {
        ends: &c.ends,
        data: &c.data,
        nulls: c.nulls.as_deref(),
    }
}

pub(super) fn headers_param(h: &HeaderColumns) -> wit::HeadersParam<'_> {
    wit::HeadersParam {
        ends: &h.ends,
        names: column_param(&h.names),
        values: column_param(&h.values),
    }
}

pub(super) fn kind_name(kind: wit::Kind) -> &'static str {
    match kind {
        wit::Kind::Text => "text",
        wit::Kind::Integer => "integer",
        wit::Kind::Number => "number",
        wit::Kind::Boolean => "boolean",
        wit::Kind::Json => "json",
    }
}

pub(super) fn setting_of(value: wit::ValueResult) -> Setting {
    match value {
        wit::ValueResult::Text(v) | wit::ValueResult::Json(v) => Setting::Text(v),
        wit::ValueResult::Integer(v) => Setting::Integer(v),
        wit::ValueResult::Number(v) => Setting::Number(v),
        wit::ValueResult::Boolean(v) => Setting::Boolean(v),
    }
}

/// A value of its parameter's kind.
pub(super) enum Fitted {
    Text(String),
    Integer(i64),
    Number(f64),
    Boolean(bool),
    Json(String),
}

pub(super) fn value_param(value: &Fitted) -> wit::ValueParam<'_> {
    match value {
        Fitted::Text(v) => wit::ValueParam::Text(v),
        Fitted::Integer(v) => wit::ValueParam::Integer(*v),
        Fitted::Number(v) => wit::ValueParam::Number(*v),
        Fitted::Boolean(v) => wit::ValueParam::Boolean(*v),
        Fitted::Json(v) => wit::ValueParam::Json(v),
    }
}

/// Matches settings with parameters, and fills in presets.
pub(super) fn fit(
    parameters: &[ParameterInfo],
    set: &BTreeMap<String, Setting>,
) -> Result<Vec<(String, Fitted)>, InitError> {
    if let Some(name) = set
        .keys()
        .find(|name| !parameters.iter().any(|p| &p.name == *name))
    {
        let known = parameters.iter().map(|p| p.name.clone()).collect();
        return Err(InitError::UnknownParameter {
            name: name.clone(),
            known,
        });
    }
    let mut values = Vec::with_capacity(parameters.len());
    for parameter in parameters {
        let setting = set.get(&parameter.name).or(parameter.preset.as_ref());
        let setting = setting.ok_or_else(|| InitError::Missing(parameter.name.clone()))?;
        values.push((parameter.name.clone(), fit_one(parameter, setting)?));
    }
    Ok(values)
}

pub(super) fn fit_one(parameter: &ParameterInfo, setting: &Setting) -> Result<Fitted, InitError> {
    let wrong = |want| InitError::Kind {
        name: parameter.name.clone(),
        want,
        value: serde_json::to_string(setting).unwrap_or_default(),
    };
    match (parameter.kind.as_str(), setting) {
        ("text", Setting::Text(v)) => Ok(Fitted::Text(v.clone())),
        // Command lines give text only, and some text looks like a number.
        ("text", Setting::Integer(v)) => Ok(Fitted::Text(v.to_string())),
        ("text", Setting::Number(v)) => Ok(Fitted::Text(v.to_string())),
        ("text", Setting::Boolean(v)) => Ok(Fitted::Text(v.to_string())),
        ("text", _) => Err(wrong("text")),
        ("integer", Setting::Integer(v)) => Ok(Fitted::Integer(*v)),
        ("integer", Setting::Text(v)) => v.parse().map(Fitted::Integer).map_err(|_| wrong("whole number")),
        ("integer", _) => Err(wrong("whole number")),
        ("number", Setting::Integer(v)) => Ok(Fitted::Number(*v as f64)),
        ("number", Setting::Number(v)) => Ok(Fitted::Number(*v)),
        ("number", Setting::Text(v)) => v.parse().map(Fitted::Number).map_err(|_| wrong("number")),
        ("number", _) => Err(wrong("number")),
        ("boolean", Setting::Boolean(v)) => Ok(Fitted::Boolean(*v)),
        ("boolean", Setting::Text(v)) => v
            .parse()
            .map(Fitted::Boolean)
            .map_err(|_| wrong("`true` or `false`")),
        ("boolean", _) => Err(wrong("`true` or `false`")),
        (_, Setting::Text(v)) if serde_json::from_str::<serde_json::Value>(v).is_ok() => {
            Ok(Fitted::Json(v.clone()))
        }
        (_, Setting::Text(_)) => Err(wrong("JSON")),
        (_, other) => serde_json::to_string(other)
            .map(Fitted::Json)
            .map_err(|_| wrong("JSON")),
    }
}

//! Parameters of a module and their values.

use crate::bindings::weir::module::types as wit;

/// A parameter that a pipeline sets.
#[derive(Clone, Debug)]
pub struct Parameter {
    name: &'static str,
    kind: wit::Kind,
    preset: Option<wit::Value>,
    about: &'static str,
}

impl Parameter {
    /// Declares a parameter that must be set.
    pub fn required<T: FromValue>(name: &'static str, about: &'static str) -> Self {
        Self {
            name,
            kind: T::KIND,
            preset: None,
            about,
        }
    }

    /// Declares a parameter with a default, `preset`.
    pub fn preset<T: FromValue>(name: &'static str, preset: impl Into<T>, about: &'static str) -> Self {
        Self {
            name,
            kind: T::KIND,
            preset: Some(preset.into().into_value()),
            about,
        }
    }

    pub(crate) fn to_wit(&self) -> wit::Parameter {
        wit::Parameter {
            name: self.name.to_owned(),
            kind: self.kind,
            preset: self.preset.clone(),
            about: self.about.to_owned(),
        }
    }

    pub(crate) fn preset_value(&self) -> Option<(&'static str, wit::Value)> {
        self.preset.clone().map(|v| (self.name, v))
    }
}

/// A type of parameter values.
pub trait FromValue: Sized {
    #[doc(hidden)]
    const KIND: wit::Kind;
    #[doc(hidden)]
    fn from_value(value: &wit::Value) -> Option<Self>;
    #[doc(hidden)]
    fn into_value(self) -> wit::Value;
}

macro_rules! from_value {
    ($type:ty, $kind:ident) => {
        impl FromValue for $type {
            const KIND: wit::Kind = wit::Kind::$kind;
            fn from_value(value: &wit::Value) -> Option<Self> {
                match value {
                    wit::Value::$kind(v) => Some(v.clone()),
                    _ => None,
                }
            }
            fn into_value(self) -> wit::Value {
                wit::Value::$kind(self)
            }
        }
    };
}
from_value!(String, Text);
from_value!(i64, Integer);
from_value!(f64, Number);
from_value!(bool, Boolean);

/// Structured settings, as JSON text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonText(pub String);

impl From<&str> for JsonText {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl FromValue for JsonText {
    const KIND: wit::Kind = wit::Kind::Json;
    fn from_value(value: &wit::Value) -> Option<Self> {
        match value {
            wit::Value::Json(text) => Some(Self(text.clone())),
            _ => None,
        }
    }
    fn into_value(self) -> wit::Value {
        wit::Value::Json(self.0)
    }
}

/// The values of all parameters, defaults included.
#[derive(Clone, Debug)]
pub struct Config {
    inner: wit::Config,
}

impl Config {
    pub(crate) fn new(inner: wit::Config) -> Self {
        Self { inner }
    }

    /// Returns the value of the parameter `name`.
    ///
    /// # Errors
    /// If the parameter has no value and no default, or has another type.
    pub fn get<T: FromValue>(&self, name: &str) -> Result<T, String> {
        self.optional(name)?
            .ok_or_else(|| format!("parameter `{name}` is not set"))
    }

    /// Returns the value of the parameter `name`, if set.
    ///
    /// # Errors
    /// If the parameter has another type.
    pub fn optional<T: FromValue>(&self, name: &str) -> Result<Option<T>, String> {
        let Some((_, value)) = self.inner.values.iter().find(|(n, _)| n == name) else {
            return Ok(None);
        };
        if let wit::Value::Number(number) = value
            && !number.is_finite()
        {
            return Err(format!("`{name}` must be a finite number, not {number}"));
        }
        T::from_value(value)
            .map(Some)
            .ok_or_else(|| format!("parameter `{name}` has another type"))
    }

    /// Returns the partition that this instance processes.
    pub fn partition(&self) -> u32 {
        self.inner.partition
    }

    /// Returns the topics that the records come from.
    pub fn sources(&self) -> &[String] {
        &self.inner.sources
    }
}

//! A total order of JSON values.

use crate::value::{Object, Value};
use std::cmp::Ordering;

/// Compares JSON values; values that JSON Schema calls equal compare as equal.
pub(crate) fn order(a: &Value, b: &Value) -> Ordering {
    match (a, b) {
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        (Value::Number(a), Value::Number(b)) => a.cmp(b),
        (Value::String(a), Value::String(b)) => a.cmp(b),
        (Value::Array(a), Value::Array(b)) => {
            let items = a.iter().zip(b).map(|(a, b)| order(a, b));
            a.len().cmp(&b.len()).then_with(|| first_other(items))
        }
        (Value::Object(a), Value::Object(b)) => a.len().cmp(&b.len()).then_with(|| order_of_fields(a, b)),
        (a, b) => rank(a).cmp(&rank(b)),
    }
}

fn order_of_fields(a: &Object, b: &Object) -> Ordering {
    let fields = a.sorted().zip(b.sorted());
    first_other(fields.map(|((n, a), (m, b))| n.cmp(m).then_with(|| order(a, b))))
}

fn first_other(mut orders: impl Iterator<Item = Ordering>) -> Ordering {
    orders.find(|o| o.is_ne()).unwrap_or(Ordering::Equal)
}

fn rank(value: &Value) -> u8 {
    match value {
        Value::Null => 0,
        Value::Bool(_) => 1,
        Value::Number(_) => 2,
        Value::String(_) => 3,
        Value::Array(_) => 4,
        Value::Object(_) => 5,
    }
}

//! JSON values that keep all digits of numbers.

use crate::number::Number;
use weir_sdk::document::{self, Document, Node};

/// A value.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Number(Number),
    String(String),
    Array(Vec<Value>),
    Object(Object),
}

/// The fields of an object, in the order of the text.
#[derive(Clone, Debug, Default)]
pub(crate) struct Object {
    fields: Vec<(String, Value)>,
    /// Indexes of the fields, sorted by name.
    by_name: Vec<u32>,
}

impl Value {
    /// Parses all of `text`.
    ///
    /// # Errors
    /// The reason, if the text is not JSON to its end or an object has a name twice.
    pub(crate) fn parse(text: &[u8]) -> Result<Self, String> {
        Document::parse(text).map(|document| Self::of(document.root()))
    }

    fn of(node: &Node<'_>) -> Self {
        match node.value() {
            document::Value::Null => Self::Null,
            document::Value::Boolean(is) => Self::Bool(*is),
            document::Value::Number(text) => Self::Number(Number::parse(text)),
            document::Value::Text(text) => Self::String(text.clone().into_owned()),
            document::Value::List(items) => Self::Array(items.iter().map(Self::of).collect()),
            document::Value::Object(fields) => {
                let field = |f: &document::Field<'_>| (f.name.clone().into_owned(), Self::of(&f.node));
                Self::Object(Object::of(fields.iter().map(field).collect()))
            }
        }
    }

    pub(crate) fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn as_array(&self) -> Option<&[Self]> {
        match self {
            Self::Array(items) => Some(items),
            _ => None,
        }
    }

    pub(crate) fn as_object(&self) -> Option<&Object> {
        match self {
            Self::Object(fields) => Some(fields),
            _ => None,
        }
    }

    pub(crate) fn as_number(&self) -> Option<&Number> {
        match self {
            Self::Number(number) => Some(number),
            _ => None,
        }
    }

    pub(crate) fn as_bool(&self) -> Option<bool> {
        match self {
            Self::Bool(is) => Some(*is),
            _ => None,
        }
    }
}

impl Object {
    fn of(fields: Vec<(String, Value)>) -> Self {
        let mut by_name: Vec<u32> = (0..fields.len() as u32).collect();
        by_name.sort_by(|a, b| name_of(&fields, *a).cmp(name_of(&fields, *b)));
        Self { fields, by_name }
    }

    pub(crate) fn len(&self) -> usize {
        self.fields.len()
    }

    /// Iterates over names and values, in the order of the text.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&String, &Value)> {
        self.fields.iter().map(|(name, value)| (name, value))
    }

    /// Iterates over names and values, by name.
    pub(crate) fn sorted(&self) -> impl Iterator<Item = (&String, &Value)> {
        let field = |place: &u32| self.fields.get(*place as usize);
        self.by_name
            .iter()
            .filter_map(field)
            .map(|(name, value)| (name, value))
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Value> {
        let found = self
            .by_name
            .binary_search_by(|place| name_of(&self.fields, *place).cmp(name))
            .ok()?;
        let place = *self.by_name.get(found)?;
        self.fields.get(place as usize).map(|(_, value)| value)
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }
}

fn name_of(fields: &[(String, Value)], place: u32) -> &str {
    fields.get(place as usize).map_or("", |(name, _)| name)
}

/// Writes the value as JSON, for messages.
impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let quoted = |text: &str| {
            let mut json = Vec::new();
            weir_sdk::escape_into(&mut json, text);
            String::from_utf8_lossy(&json).into_owned()
        };
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(is) => write!(f, "{is}"),
            Self::Number(number) => write!(f, "{number}"),
            Self::String(text) => f.write_str(&quoted(text)),
            Self::Array(items) => {
                let items: Vec<String> = items.iter().map(Self::to_string).collect();
                write!(f, "[{}]", items.join(","))
            }
            Self::Object(fields) => {
                let fields: Vec<String> = fields
                    .iter()
                    .map(|(name, value)| format!("{}:{value}", quoted(name)))
                    .collect();
                write!(f, "{{{}}}", fields.join(","))
            }
        }
    }
}

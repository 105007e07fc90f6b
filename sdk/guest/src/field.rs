//! Common inputs of modules: a number in the value, a key for state, a text to group by.

use crate::{Out, Path, Record};
use std::borrow::Cow;

/// A field of the value, named by the text that also appears in the reasons of dead letters.
#[derive(Debug)]
pub struct Field {
    text: String,
    path: Path,
}

impl Field {
    /// Makes a field from a path with dots.
    pub fn new(text: &str) -> Self {
        Self {
            text: text.to_owned(),
            path: Path::new(text),
        }
    }

    /// Makes a field from a path and checks the path.
    ///
    /// # Errors
    /// The reason, if a name in the path is empty or a JSON Pointer is malformed.
    pub fn read(text: &str) -> Result<Self, String> {
        Path::read(text).map(|path| Self {
            text: text.to_owned(),
            path,
        })
    }

    /// Returns the number in the field. Rejects the record if there is none, or if the value is ambiguous
    /// (for example, duplicate names).
    pub fn number(&self, record: &Record<'_>, out: &mut Out) -> Option<f64> {
        match record.whole_field(&self.path) {
            Ok(field) => {
                let number = field.number().filter(|n| n.is_finite());
                if number.is_none() {
                    out.reject(record.index(), format!("no number at `{}`", self.text));
                }
                number
            }
            Err(why) => {
                out.reject(record.index(), why);
                None
            }
        }
    }

    /// Returns the record's key and the number in the field. Rejects the record if there is no number or the
    /// key is too long for [`crate::state`].
    pub fn of_key<'a>(&self, record: &Record<'a>, out: &mut Out) -> Option<(&'a [u8], f64)> {
        let number = self.number(record, out)?;
        Some((record.state_key_or_reject(out)?, number))
    }
}

impl<'a> Record<'a> {
    /// Returns the key for use with [`crate::state`], and rejects the record if the key is too long.
    pub fn state_key_or_reject(&self, out: &mut Out) -> Option<&'a [u8]> {
        self.state_key().map_err(|why| out.reject(self.index(), why)).ok()
    }
}

/// The part of a record that a module groups or routes by.
#[derive(Debug)]
pub enum Grouping {
    /// The key.
    Key,
    /// The last header of this name.
    Header(String),
    /// A field of a JSON value.
    Field(Path),
}

impl Grouping {
    /// Parses `key`, `header:NAME` or `field:PATH`.
    ///
    /// # Errors
    /// The reason, for the author of the pipeline file.
    pub fn parse(by: &str) -> Result<Self, String> {
        match by.split_once(':') {
            None if by == "key" => Ok(Self::Key),
            Some(("header", name)) => Ok(Self::Header(name.to_owned())),
            Some(("field", path)) => Path::read(path).map(Self::Field),
            _ => Err(format!(
                "`by` cannot be `{by}`: use key, header:NAME or field:PATH"
            )),
        }
    }

    /// Returns the text of `record`, if there is one. Numbers and booleans in a field are returned as
    /// written; `null` counts as missing.
    ///
    /// # Errors
    /// The reason, if the value is ambiguous: see [`Json::whole_at`](crate::Json::whole_at).
    pub fn of<'a>(&self, record: &Record<'a>) -> Result<Option<Cow<'a, [u8]>>, String> {
        Ok(match self {
            Self::Key => record.key().map(Cow::Borrowed),
            Self::Header(name) => record.headers().last(name).map(Cow::Borrowed),
            Self::Field(path) => {
                let field = record.whole_field(path)?;
                match field.string() {
                    Some(Cow::Borrowed(text)) => Some(Cow::Borrowed(text.as_bytes())),
                    Some(Cow::Owned(text)) => Some(Cow::Owned(text.into_bytes())),
                    None if field.is_null() => None,
                    None => field.text().map(Cow::Borrowed),
                }
            }
        })
    }

    /// Returns the required columns (keys, values, headers), as
    /// [`Interface::with`](crate::Interface::with) takes them.
    pub fn columns(&self) -> (bool, bool, bool) {
        (
            matches!(self, Self::Key),
            matches!(self, Self::Field(_)),
            matches!(self, Self::Header(_)),
        )
    }
}

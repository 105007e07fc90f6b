//! What most modules ask of a record: a number in its value, a key to remember it by, a text to decide by.

use crate::{Out, Path, Record};
use std::borrow::Cow;

/// A field of the value by the text that names it, which is also what a dead letter is told.
#[derive(Debug)]
pub struct Field {
    text: String,
    path: Path,
}

impl Field {
    /// The field at `text`; dots lead into objects.
    pub fn new(text: &str) -> Self {
        Self {
            text: text.to_owned(),
            path: Path::new(text),
        }
    }

    /// As [`Field::new`], of a path that leads somewhere.
    ///
    /// # Errors
    /// As [`Path::read`].
    pub fn read(text: &str) -> Result<Self, String> {
        Path::read(text).map(|path| Self {
            text: text.to_owned(),
            path,
        })
    }

    /// The number that `record` has there. Without one, or with a value of which readers would disagree, the record is rejected.
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

    /// The key of `record`, and the number that it has there. Without a number, or with a key that is too long for
    /// [`crate::state`], the record is rejected.
    pub fn of_key<'a>(&self, record: &Record<'a>, out: &mut Out) -> Option<(&'a [u8], f64)> {
        let number = self.number(record, out)?;
        Some((record.state_key_or_reject(out)?, number))
    }
}

impl<'a> Record<'a> {
    /// As [`Record::state_key`], with the record rejected where that is an error.
    pub fn state_key_or_reject(&self, out: &mut Out) -> Option<&'a [u8]> {
        self.state_key().map_err(|why| out.reject(self.index(), why)).ok()
    }
}

/// Where the text of a record comes from that a module decides by.
#[derive(Debug)]
pub enum By {
    /// Its key.
    Key,
    /// The last header of this name.
    Header(String),
    /// A field of its JSON value.
    Field(Path),
}

impl By {
    /// What `by` says: `key`, `header:NAME` or `field:PATH`.
    ///
    /// # Errors
    /// Words for whoever set it.
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

    /// The text of `record`, if it has one. Numbers and booleans in a field are the texts that they are written with; `null`
    /// is none.
    ///
    /// # Errors
    /// In words, when readers would disagree about the value: see [`Json::whole_at`](crate::Json::whole_at).
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

    /// The columns that it takes: keys, values and headers, as [`Plan::with`](crate::Plan::with) wants them.
    pub fn columns(&self) -> (bool, bool, bool) {
        (
            matches!(self, Self::Key),
            matches!(self, Self::Field(_)),
            matches!(self, Self::Header(_)),
        )
    }
}

//! A test of one field.

use weir_sdk::Settings;
use weir_sdk::prelude::*;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Is {
    Above,
    AtLeast,
    Below,
    AtMost,
    Equal,
    Different,
}

#[derive(Clone, Debug, PartialEq)]
enum Than {
    Number(f64),
    Text(String),
    Boolean(bool),
}

#[derive(Clone, Debug)]
pub(crate) struct Test {
    path: Path,
    is: Is,
    than: Than,
}

impl Test {
    /// Reads the test in `test`, which may also contain the words in `other`.
    pub(crate) fn read(test: Json<'_>, other: &[&str]) -> Result<Self, String> {
        let settings = Settings::read(test, &[&["field", "is", "than"], other].concat())?;
        let field = settings.text("field")?.ok_or("it has no `field`")?;
        let is = match settings.text("is")?.as_deref().unwrap_or("=") {
            ">" => Is::Above,
            ">=" => Is::AtLeast,
            "<" => Is::Below,
            "<=" => Is::AtMost,
            "=" => Is::Equal,
            "!=" => Is::Different,
            other => return Err(format!("`is` cannot be `{other}`: use >, >=, <, <=, = or !=")),
        };
        let than = test.get("than");
        let text = than.string().map(|t| Than::Text(t.into_owned()));
        let than = than
            .number()
            .map(Than::Number)
            .or(than.boolean().map(Than::Boolean))
            .or(text);
        let than = than.ok_or("`than` must be a number, a text or a boolean")?;
        let is_order = !matches!(is, Is::Equal | Is::Different);
        if is_order && !matches!(than, Than::Number(_)) {
            return Err("only numbers can be less or more: `is` must be = or !=".to_owned());
        }
        Ok(Self {
            path: Path::read(&field)?,
            is,
            than,
        })
    }

    /// Returns true if the record has the field and the test holds.
    pub(crate) fn holds(&self, record: &Record<'_>) -> bool {
        let field = record.field(&self.path);
        let equal = match &self.than {
            Than::Number(than) => {
                let Some(number) = field.number() else {
                    return false;
                };
                match self.is {
                    Is::Above => return number > *than,
                    Is::AtLeast => return number >= *than,
                    Is::Below => return number < *than,
                    Is::AtMost => return number <= *than,
                    Is::Equal | Is::Different => number == *than,
                }
            }
            Than::Text(than) => match field.string() {
                Some(text) => text == than.as_str(),
                None => return false,
            },
            Than::Boolean(than) => match field.boolean() {
                Some(boolean) => boolean == *than,
                None => return false,
            },
        };
        equal == (self.is == Is::Equal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_test_is_refused_in_words() {
        for (text, why) in [
            ("{}", "no `field`"),
            (r#"{"field":"a"}"#, "`than` must be a number"),
            (
                r#"{"field":"a","tahn":1}"#,
                "unknown word `tahn`; the nearest is `than`",
            ),
            (r#"{"field":"a","is":"~","than":1}"#, "`is` cannot be `~`"),
            (
                r#"{"field":"a","is":">","than":"b"}"#,
                "only numbers can be less or more",
            ),
        ] {
            let refused = Test::read(Json::new(text.as_bytes()), &[]).unwrap_err();
            assert!(refused.contains(why), "{refused}");
        }
    }
}

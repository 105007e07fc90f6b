//! Finds a value in a JSON document by its path, without decoding the rest.

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;

/// Returns the text of the value at `path` in `document`, or `None` if there is no such value. A path is
/// names with dots between them, or a JSON Pointer (RFC 6901). Modules use the same paths. A name that occurs
/// twice along the path is an error, since parsers disagree on which of the two counts.
///
/// # Errors
/// A message when the document is not valid JSON to its end, or repeats a name of the path.
pub fn at<'d>(document: &'d [u8], path: &str) -> Result<Option<&'d str>, String> {
    let plain = |name: &str| name.replace("~1", "/").replace("~0", "~");
    let names: Vec<String> = match path.strip_prefix('/') {
        Some(pointer) => pointer.split('/').map(plain).collect(),
        None => path.split('.').map(str::to_owned).collect(),
    };
    let text = std::str::from_utf8(document).map_err(|_| "its value is not JSON".to_owned())?;
    let mut json = serde_json::Deserializer::from_str(text);
    let found = At(&names).deserialize(&mut json);
    let found = found.and_then(|found| json.end().map(|()| found));
    found.map_err(|e| {
        if e.is_data() {
            let told = e.to_string();
            told.split(" at line").next().unwrap_or_default().to_owned()
        } else {
            "its value is not JSON".to_owned()
        }
    })
}

/// The rest of a path.
#[derive(Clone, Copy)]
struct At<'p>(&'p [String]);

impl<'de> DeserializeSeed<'de> for At<'_> {
    type Value = Option<&'de str>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        if self.0.is_empty() {
            <&RawValue as serde::Deserialize>::deserialize(json).map(|raw| Some(raw.get()))
        } else {
            json.deserialize_any(self)
        }
    }
}

impl<'de> Visitor<'de> for At<'_> {
    type Value = Option<&'de str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Self::Value, A::Error> {
        let Some((first, rest)) = self.0.split_first() else {
            return Ok(None);
        };
        let mut found = None;
        while let Some(name) = fields.next_key::<Cow<'de, str>>()? {
            match (name == *first, found.is_some()) {
                (true, true) => return Err(A::Error::custom(format!("its value has `{first}` twice"))),
                (true, false) => found = Some(fields.next_value_seed(At(rest))?),
                (false, _) => _ = fields.next_value::<IgnoredAny>()?,
            }
        }
        Ok(found.flatten())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let Some((first, rest)) = self.0.split_first() else {
            return Ok(None);
        };
        let is_place = first.bytes().all(|b| b.is_ascii_digit());
        let place: Option<usize> = is_place.then(|| first.parse().ok()).flatten();
        let (mut found, mut n) = (None, 0);
        loop {
            if Some(n) == place {
                let Some(item) = items.next_element_seed(At(rest))? else {
                    break;
                };
                found = item;
            } else if items.next_element::<IgnoredAny>()?.is_none() {
                break;
            }
            n += 1;
        }
        Ok(found)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_leads_to_one_value_or_is_told_why_not() {
        let found = |document: &str, path: &str| {
            let found = at(document.as_bytes(), path);
            found.map(|found| found.map(str::to_owned))
        };
        let value = |text: &str| Ok(Some(text.to_owned()));
        assert_eq!(found(r#"{"a":{"b":1.10}}"#, "a.b"), value("1.10"));
        assert_eq!(
            found(r#"{"a.b":12345678901234567890123}"#, "/a.b"),
            value("12345678901234567890123")
        );
        assert_eq!(found(r#"{"gr\u00f6\u00dfe":"x"}"#, "größe"), value(r#""x""#));
        assert_eq!(found(r#"{"a":[0,{"b":null}]}"#, "/a/1/b"), value("null"));
        assert_eq!(found(r#"{"a":[0,1]}"#, "/a/2"), Ok(None));
        assert_eq!(found(r#"{"a":1}"#, "a.b"), Ok(None));
        assert_eq!(found("[1]", "a"), Ok(None));
        assert_eq!(found("7", "a"), Ok(None));
        assert_eq!(
            found(r#"{"a":1,"a":2}"#, "a"),
            Err("its value has `a` twice".to_owned())
        );
        assert_eq!(
            found(r#"{"a":1,"\u0061":2}"#, "a"),
            Err("its value has `a` twice".to_owned())
        );
        for bad in [
            "",
            "{",
            r#"{"a":1}garbage"#,
            r#"{"a":1}{"a":2}"#,
            r#"{"a":01}"#,
            r#"{"a":1,}"#,
        ] {
            assert_eq!(found(bad, "a"), Err("its value is not JSON".to_owned()), "{bad}");
        }
        assert!(found(&"[".repeat(100_000), "a").is_err());
    }
}

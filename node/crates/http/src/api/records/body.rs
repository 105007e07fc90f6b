//! Bodies of records. A body yields at most the records and headers of a batch, whatever it lists.

use crate::error::HttpError;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use std::fmt;
use std::marker::PhantomData;
use weir_types::Record;
use weir_types::limits::{BATCH_RECORDS_MAX, RECORD_HEADERS_MAX};

/// Reads a list of [`weir_api::NewRecord`], or an object with such `records`. Offsets are passed over: an
/// answer that was read can be sent as it is. Records without a time get `now`, in milliseconds since 1970.
///
/// # Errors
/// When the body has another shape; names the element and its fault.
pub(crate) fn from_json(body: &[u8], now: i64) -> Result<Vec<Record>, HttpError> {
    let mut json = serde_json::Deserializer::from_slice(without_mark(body));
    let records = Elements { now }.deserialize(&mut json);
    let records = records.and_then(|records| json.end().map(|()| records));
    records.map_err(|why| match why.to_string() {
        why if why.starts_with(TOO_MANY) => HttpError::too_large(TOO_MANY),
        why => HttpError::bad_request(format!("body is not an array of records: {why}")),
    })
}

/// Reads a value from each line that is not blank.
///
/// # Errors
/// When there are more lines than a request may have records, or a line is not JSON: no line is stored then.
pub(crate) fn from_lines(body: &Bytes, now: i64) -> Result<Vec<Record>, HttpError> {
    let lines = without_mark(body).split(|b| *b == b'\n');
    let lines = lines.map(|l| l.strip_suffix(b"\r").unwrap_or(l));
    let mut records = Vec::new();
    for (n, line) in lines
        .enumerate()
        .filter(|(_, line)| !line.trim_ascii().is_empty())
    {
        if records.len() == BATCH_RECORDS_MAX as usize {
            return Err(HttpError::too_large(TOO_MANY));
        }
        if let Err(why) = serde_json::from_slice::<&RawValue>(line) {
            return Err(HttpError::bad_request(format!(
                "line {} is not JSON: {why}",
                n + 1
            )));
        }
        records.push(Record {
            value: Some(body.slice_ref(line)),
            timestamp: now,
            ..Record::default()
        });
    }
    Ok(records)
}

/// Strips a byte order mark: UTF-8 needs none (RFC 8259, section 8.1).
fn without_mark(body: &[u8]) -> &[u8] {
    body.strip_prefix("\u{feff}".as_bytes()).unwrap_or(body)
}

const TOO_MANY: &str = "a request has at most 100000 records, and 400000 headers: send them in several";
/// Most headers of all records of a request: four for each record of the largest batch.
const HEADERS_MAX: usize = 4 * BATCH_RECORDS_MAX as usize;
const _: () = assert!(BATCH_RECORDS_MAX == 100_000);

struct Elements {
    now: i64,
}

impl<'de> DeserializeSeed<'de> for Elements {
    type Value = Vec<Record>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Vec<Record>, D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Elements {
    type Value = Vec<Record>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of objects with `value`, or an object with such `records`")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Vec<Record>, A::Error> {
        let mut records = None;
        while let Some(name) = fields.next_key::<String>()? {
            match name.as_str() {
                "records" if records.is_some() => return Err(A::Error::duplicate_field("records")),
                "records" => records = Some(fields.next_value_seed(Elements { now: self.now })?),
                // Fields of an answer that was read.
                "gaps" | "next_offset" | "log_start" | "committed_end" => {
                    _ = fields.next_value::<IgnoredAny>()?
                }
                other => return Err(A::Error::unknown_field(other, &["records"])),
            }
        }
        records.ok_or_else(|| A::Error::missing_field("records"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Vec<Record>, A::Error> {
        let (mut records, mut headers) = (Vec::new(), 0);
        while let Some(Object(element)) = elements.next_element::<Object<Element<'de>>>()? {
            headers += element.headers.len();
            if records.len() == BATCH_RECORDS_MAX as usize || headers > HEADERS_MAX {
                return Err(A::Error::custom(TOO_MANY));
            }
            let record = element.record(self.now);
            let index = records.len();
            records.push(record.map_err(|why| A::Error::custom(format!("[{index}] {why}")))?);
        }
        Ok(records)
    }
}

/// A value written as an object: serde would accept an array, too, by position.
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        struct Fields<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
            type Value = Object<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with `value`")
            }

            fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(fields)).map(Object)
            }
        }

        json.deserialize_map(Fields(PhantomData))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Element<'a> {
    #[serde(borrow, default, deserialize_with = "given")]
    value: Option<&'a RawValue>,
    #[serde(default, deserialize_with = "given")]
    value_base64: Option<String>,
    #[serde(borrow, default, deserialize_with = "given")]
    key: Option<&'a RawValue>,
    #[serde(default, deserialize_with = "given")]
    key_base64: Option<String>,
    /// Offset that the record was read at, without effect.
    #[serde(default, rename = "offset")]
    _offset: Option<u64>,
    #[serde(default, deserialize_with = "given")]
    timestamp: Option<i64>,
    #[serde(borrow, default, deserialize_with = "in_order")]
    headers: Vec<Header<'a>>,
}

/// A header in a list.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Header<'a> {
    name: String,
    #[serde(borrow, default, deserialize_with = "given")]
    value: Option<&'a RawValue>,
    #[serde(default, deserialize_with = "given")]
    value_base64: Option<String>,
}

impl Header<'_> {
    fn read(self) -> Result<(String, Option<Bytes>), String> {
        match bytes_of(self.value, self.value_base64.as_deref()) {
            Ok(value) => Ok((self.name, value)),
            Err(why) => Err(format!("header `{}` {why}", self.name.escape_debug())),
        }
    }
}

/// Reads a field that is there, `null` included.
fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(json: D) -> Result<Option<T>, D::Error> {
    T::deserialize(json).map(Some)
}

/// Headers, also of the same name: an object from name to value, or a list of objects with name and value.
fn in_order<'de, D: Deserializer<'de>>(json: D) -> Result<Vec<Header<'de>>, D::Error> {
    struct Headers;

    fn push<'de, E: Error>(all: &mut Vec<Header<'de>>, header: Header<'de>) -> Result<(), E> {
        if all.len() == RECORD_HEADERS_MAX as usize {
            return Err(E::custom(format!(
                "a record has at most {RECORD_HEADERS_MAX} headers"
            )));
        }
        all.push(header);
        Ok(())
    }

    impl<'de> Visitor<'de> for Headers {
        type Value = Vec<Header<'de>>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object with headers, or a list of objects with `name` and `value`")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Self::Value, A::Error> {
            let mut all = Vec::new();
            while let Some((name, value)) = fields.next_entry()? {
                let value = Some(value);
                push(
                    &mut all,
                    Header {
                        name,
                        value,
                        value_base64: None,
                    },
                )?;
            }
            Ok(all)
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut headers: A) -> Result<Self::Value, A::Error> {
            let mut all = Vec::new();
            while let Some(Object(header)) = headers.next_element()? {
                push(&mut all, header)?;
            }
            Ok(all)
        }
    }

    json.deserialize_any(Headers)
}

impl Element<'_> {
    fn record(self, now: i64) -> Result<Record, String> {
        let key = match (self.key, self.key_base64) {
            (None, None) => None,
            (Some(key), None) => bytes(key)?,
            (None, Some(text)) => Some(of_base64(&text)?),
            _ => return Err("has `key` and `key_base64`".to_owned()),
        };
        let headers = self.headers.into_iter();
        Ok(Record {
            key,
            value: bytes_of(self.value, self.value_base64.as_deref())?,
            timestamp: self.timestamp.unwrap_or(now),
            headers: headers.map(Header::read).collect::<Result<_, String>>()?,
        })
    }
}

fn bytes_of(value: Option<&RawValue>, base64: Option<&str>) -> Result<Option<Bytes>, String> {
    match (value, base64) {
        (Some(value), None) => bytes(value),
        (None, Some(text)) => of_base64(text).map(Some),
        _ => Err("has to have `value` or `value_base64`, and not both".to_owned()),
    }
}

fn of_base64(text: &str) -> Result<Bytes, String> {
    let bytes = STANDARD.decode(text);
    bytes.map(Bytes::from).map_err(|e| format!("has no base64: {e}"))
}

/// Returns the bytes of a value: of text its bytes, of null none, of other JSON its text, so that numbers
/// keep all digits.
fn bytes(json: &RawValue) -> Result<Option<Bytes>, String> {
    let text = json.get();
    match text.as_bytes().first() {
        Some(b'"') => {
            let text: String = serde_json::from_str(text).map_err(|e| e.to_string())?;
            Ok(Some(text.into()))
        }
        Some(b'n') => Ok(None),
        _ => Ok(Some(Bytes::copy_from_slice(text.as_bytes()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_element_says_all_that_a_record_has_and_no_more() {
        let body = br#"[{"value":{"a": 12345678901234567890123, "b":1.0},"key":"k\u00e4","timestamp":7,"headers":{"y":"z","x":null,"y":1}},
            {"value":null}, {"value_base64":"/wA="}, {"value":"t","key":null}]"#;
        let records = from_json(body, 9).unwrap();
        assert_eq!(
            records[0].value.as_deref(),
            Some(&br#"{"a": 12345678901234567890123, "b":1.0}"#[..])
        );
        assert_eq!(records[0].key.as_deref(), Some("k\u{e4}".as_bytes()));
        assert_eq!(records[0].timestamp, 7);
        assert_eq!(
            records[0].headers,
            [
                ("y".to_owned(), Some("z".into())),
                ("x".to_owned(), None),
                ("y".to_owned(), Some("1".into()))
            ]
        );
        assert_eq!((records[1].value.as_ref(), records[1].timestamp), (None, 9));
        assert_eq!(records[2].value.as_deref(), Some(&[0xff, 0][..]));
        assert_eq!(
            (records[3].value.as_deref(), records[3].key.as_ref()),
            (Some(&b"t"[..]), None)
        );
        for (bad, why) in [
            (
                &br#"{"value":1}"#[..],
                "unknown field `value`, expected `records`",
            ),
            (br#"7"#, "an array of objects"),
            (br#"{"gaps":[]}"#, "missing field `records`"),
            (br#"{"records":[],"records":[]}"#, "duplicate field"),
            (br#"{"records":[{}]}"#, "[0] has to have `value`"),
            (
                br#"[{"value":1,"key":"a","key_base64":""}]"#,
                "has `key` and `key_base64`",
            ),
            (
                br#"[{"value":1,"headers":[{"name":"n"}]}]"#,
                "header `n` has to have",
            ),
            (
                br#"[{"value":1,"headers":[{"name":"n","value_base64":"*"}]}]"#,
                "header `n` has no base64",
            ),
            (
                br#"[{"value":1,"headers":[{"name":"n","valu":1}]}]"#,
                "unknown field `valu`",
            ),
            (br#"[{"value":1,"headers":[["n",1]]}]"#, "expected an object"),
            (
                br#"[{"value":1,"headers":7}]"#,
                "an object with headers, or a list",
            ),
            (br#"[0]"#, "invalid type"),
            (br#"[[20.1,null,3,1700000000000]]"#, "invalid type"),
            (br#"[{"value":1,"timestamp":null}]"#, "invalid type"),
            (br#"[{"value":1,"value_base64":null}]"#, "invalid type"),
            (br#"[{}]"#, "[0] has to have `value`"),
            (
                br#"[{"value":1},{"value":1,"value_base64":""}]"#,
                "[1] has to have",
            ),
            (br#"[{"valeu":1}]"#, "unknown field `valeu`"),
            (br#"[{"value":1,"timestamp":"x"}]"#, "invalid type"),
            (br#"[{"value":1}] x"#, "trailing"),
            (br#"[{"value":"\ud800"}]"#, "[0]"),
            (b"", "EOF"),
        ] {
            let error = format!("{:?}", from_json(bad, 0).unwrap_err());
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_a_value_and_what_is_no_json_is_told() {
        let lines = from_lines(&Bytes::from("\u{feff}{\"a\":1}\r\n\n 2 \n"), 0).unwrap();
        let values: Vec<_> = lines.iter().map(|r| r.value.as_deref().unwrap()).collect();
        assert_eq!(values, [&b"{\"a\":1}"[..], b" 2 "]);
        assert_eq!(
            from_json("\u{feff}[{\"value\":1}]".as_bytes(), 0).unwrap().len(),
            1
        );
        let refused = from_lines(&Bytes::from("1\n\nnot json\n"), 0).unwrap_err();
        assert!(
            format!("{refused:?}").contains("line 3 is not JSON"),
            "{refused:?}"
        );
    }

    #[test]
    fn a_record_as_the_api_describes_it_is_taken() {
        let new = weir_api::NewRecord {
            key: Some("k".into()),
            value: Some(serde_json::json!({ "a": 1 })),
            timestamp: Some(7),
            headers: Some(serde_json::json!({ "h": "v" })),
            ..weir_api::NewRecord::default()
        };
        let read = weir_api::Record {
            headers: vec![weir_api::Header::new("h", Some(b"v"))],
            ..weir_api::Record::new(3, 7, Some(b"k"), Some(b"{\"a\":1}"))
        };
        for body in [
            serde_json::to_vec(&weir_api::NewRecords::List(vec![new.clone()])),
            serde_json::to_vec(&weir_api::NewRecords::Records { records: vec![new] }),
            serde_json::to_vec(&[read]),
        ] {
            let records = from_json(&body.unwrap(), 0).unwrap();
            assert_eq!(records[0].key.as_deref(), Some(&b"k"[..]));
            assert_eq!(records[0].value.as_deref(), Some(&b"{\"a\":1}"[..]));
            assert_eq!(records[0].timestamp, 7);
            assert_eq!(records[0].headers, [("h".to_owned(), Some("v".into()))]);
        }
    }

    #[test]
    fn no_more_is_made_than_a_batch_may_have() {
        let max = BATCH_RECORDS_MAX as usize;
        assert_eq!(from_lines(&"1\n".repeat(max).into(), 0).unwrap().len(), max);
        assert!(from_lines(&"1\n".repeat(max + 1).into(), 0).is_err());
        let most = format!("[{}{{\"value\":1}}]", "{\"value\":1},".repeat(max - 1));
        assert_eq!(from_json(most.as_bytes(), 0).unwrap().len(), max);
        let more = format!("[{}{{\"value\":1}}]", "{\"value\":1},".repeat(max));
        let refused = from_json(more.as_bytes(), 0).unwrap_err();
        assert!(format!("{refused:?}").contains("413"), "{refused:?}");
        let headers = |n: usize| {
            format!(
                "{{\"value\":1,\"headers\":{{\"\":1{}}}}}",
                ",\"\":1".repeat(n - 1)
            )
        };
        assert_eq!(
            from_json(format!("[{}]", headers(10_000)).as_bytes(), 0).unwrap()[0]
                .headers
                .len(),
            RECORD_HEADERS_MAX as usize
        );
        assert!(from_json(format!("[{}]", headers(10_001)).as_bytes(), 0).is_err());
        let all = vec![headers(1_000); HEADERS_MAX / 1_000 + 1].join(",");
        assert!(from_json(format!("[{all}]").as_bytes(), 0).is_err());
        assert!(TOO_MANY.contains(&max.to_string()));
    }
}

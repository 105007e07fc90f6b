//! Records as JSON.

use crate::topic::Gap;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::borrow::Cow;

/// A record as read. Bytes that are text stand under `key` and `value`, others in base64 under `key_base64`
/// and `value_base64`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Record<'a> {
    /// Partition, where records of several are listed together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub partition: Option<u32>,
    /// Offset.
    pub offset: u64,
    /// Time in milliseconds since 1970.
    pub timestamp: i64,
    /// Key as text; null for a record without a key.
    #[serde(
        default,
        deserialize_with = "present",
        skip_serializing_if = "Option::is_none"
    )]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub key: Option<Option<Cow<'a, str>>>,
    /// Key in base64, when it is not text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub key_base64: Option<String>,
    /// Value as text; null for a record without a value.
    #[serde(
        default,
        deserialize_with = "present",
        skip_serializing_if = "Option::is_none"
    )]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub value: Option<Option<Cow<'a, str>>>,
    /// Value in base64, when it is not text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub value_base64: Option<String>,
    /// Headers in their order; names may repeat.
    pub headers: Vec<Header<'a>>,
}

/// A header of a record as read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Header<'a> {
    /// Name.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub name: Cow<'a, str>,
    /// Value as text; null for a header without a value.
    #[serde(
        default,
        deserialize_with = "present",
        skip_serializing_if = "Option::is_none"
    )]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub value: Option<Option<Cow<'a, str>>>,
    /// Value in base64, when it is not text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub value_base64: Option<String>,
}

/// Reads a field that is there, null included.
fn present<'de, D: serde::Deserializer<'de>, T: Deserialize<'de>>(field: D) -> Result<Option<T>, D::Error> {
    T::deserialize(field).map(Some)
}

/// Bytes as text, or in base64.
type Readable<'a> = (Option<Option<Cow<'a, str>>>, Option<String>);

fn readable(bytes: Option<&[u8]>) -> Readable<'_> {
    match bytes.map(|bytes| std::str::from_utf8(bytes).map_err(|_| bytes)) {
        None => (Some(None), None),
        Some(Ok(text)) => (Some(Some(Cow::Borrowed(text))), None),
        Some(Err(raw)) => (None, Some(STANDARD.encode(raw))),
    }
}

impl<'a> Record<'a> {
    /// Returns a record with these bytes.
    pub fn new(offset: u64, timestamp: i64, key: Option<&'a [u8]>, value: Option<&'a [u8]>) -> Self {
        let ((key, key_base64), (value, value_base64)) = (readable(key), readable(value));
        Self {
            partition: None,
            offset,
            timestamp,
            key,
            key_base64,
            value,
            value_base64,
            headers: Vec::new(),
        }
    }
}

impl<'a> Header<'a> {
    /// Returns a header with these bytes.
    pub fn new(name: &'a str, value: Option<&'a [u8]>) -> Self {
        let (value, value_base64) = readable(value);
        Self {
            name: Cow::Borrowed(name),
            value,
            value_base64,
        }
    }
}

/// Records of a partition, and the ranges between them that have none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Fetched<'a> {
    /// Records in the order of their offsets.
    pub records: Vec<Record<'a>>,
    /// Ranges without records.
    pub gaps: Vec<Gap>,
    /// Offset to read from next.
    pub next_offset: u64,
    /// First offset of the partition that may still have a record.
    pub log_start: u64,
    /// First offset of the partition that is not committed yet.
    pub committed_end: u64,
}

/// Range of a partition to read.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::IntoParams))]
#[cfg_attr(feature = "openapi", into_params(parameter_in = Query))]
#[serde(deny_unknown_fields)]
pub struct ReadQuery {
    /// Partition; 0 when not given.
    #[serde(default)]
    pub partition: u32,
    /// First offset: a number, `start` (the preset) or `end`.
    pub offset: Option<String>,
    /// Bytes of batches at most.
    pub max_bytes: Option<usize>,
    /// Milliseconds to wait for a record.
    #[cfg_attr(feature = "openapi", param(maximum = 60_000))]
    pub wait_ms: Option<u64>,
}

/// Placement of a body of records.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::IntoParams))]
#[cfg_attr(feature = "openapi", into_params(parameter_in = Query))]
#[serde(deny_unknown_fields)]
pub struct ProduceQuery {
    /// Partition for all records; chosen by key when not given.
    pub partition: Option<u32>,
    /// Key of a raw body.
    pub key: Option<String>,
}

/// Records to store. An answer that was read can be sent as it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(untagged)]
pub enum NewRecords {
    /// A list of records.
    List(Vec<NewRecord>),
    /// An object with a list of records.
    Records {
        /// The records.
        records: Vec<NewRecord>,
    },
}

/// A record to store: `value` or `value_base64` must be there.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NewRecord {
    /// Key: text stands for its bytes, other JSON for its text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Value>,
    /// Key in base64, instead of `key`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub key_base64: Option<String>,
    /// Value: text stands for its bytes, other JSON for its text, null for no value.
    #[serde(
        default,
        deserialize_with = "present",
        skip_serializing_if = "Option::is_none"
    )]
    #[cfg_attr(feature = "openapi", schema(value_type = Value))]
    pub value: Option<Value>,
    /// Value in base64, instead of `value`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub value_base64: Option<String>,
    /// Time in milliseconds since 1970; the node's when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub timestamp: Option<i64>,
    /// Offset that the record was read at; without effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub offset: Option<u64>,
    /// Headers: an object from name to value; or, for names that repeat and for any bytes, a list of objects
    /// with `name` and `value` or `value_base64`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub headers: Option<Value>,
}

/// Places of the records of a request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Produced {
    /// Number of records of the request.
    pub records: usize,
    /// Places of the records, a partition each.
    pub partitions: Vec<Stored>,
}

/// Records of a request that one partition has stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Stored {
    /// Partition.
    pub partition: u32,
    /// Offset of the first record.
    pub base_offset: u64,
    /// Number of records.
    pub records: u32,
}

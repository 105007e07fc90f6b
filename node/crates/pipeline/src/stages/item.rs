//! Records between two stages: those of the batch, by index, and new records that modules made.

use bytes::Bytes;
use weir_runtime::EmittedRecord;
use weir_types::columns::{Column, Columns, HeaderColumns, Wanted};
use weir_types::limits::{RECORD_BYTES_MAX, RECORD_HEADERS_MAX};
use weir_types::{HeaderBuf, RecordRef};

/// A record on its way through the stages.
#[derive(Clone, Debug)]
pub(crate) struct InFlight {
    /// Index in the producer's batch of the record itself, or of its source.
    pub(crate) source: u32,
    /// The record that a module made, or `None` for an unchanged record.
    pub(crate) made: Option<NewRecord>,
}

/// A record that a module made.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct NewRecord {
    pub(crate) timestamp: i64,
    pub(crate) key: Option<Bytes>,
    pub(crate) value: Option<Bytes>,
    /// Headers in the stored form.
    pub(crate) headers: Bytes,
}

impl InFlight {
    /// Returns the record that `new` makes of `self`.
    ///
    /// # Errors
    /// A message when the new record exceeds the limits of a record.
    pub(crate) fn emit(&self, new: &EmittedRecord<'_>, records: &[RecordRef<'_>]) -> Result<Self, String> {
        let view = self.view(records);
        let own = |b: Option<&[u8]>| b.map(Bytes::copy_from_slice);
        let headers = if new.bare {
            new.headers.encoded()
        } else if new.headers.is_empty() {
            HeaderBuf::copied(view.headers).encoded()
        } else {
            let mut all = HeaderBuf::copied(view.headers);
            let encoded = new.headers.encoded();
            HeaderBuf::view(&encoded)
                .iter()
                .for_each(|(name, value)| all.push(name, value));
            all.encoded()
        };
        let made = NewRecord {
            timestamp: new.timestamp.unwrap_or(view.timestamp),
            key: own(new.key.unwrap_or(view.key)),
            value: own(new.value.unwrap_or(view.value)),
            headers: headers.into(),
        };
        let item = Self {
            source: self.source,
            made: Some(made),
        };
        let view = item.view(records);
        if view.headers.len() > RECORD_HEADERS_MAX as usize {
            return Err(format!(
                "the module made a record with {} headers, those of its source included: at most {RECORD_HEADERS_MAX} are allowed",
                view.headers.len()
            ));
        }
        if view.bytes() > RECORD_BYTES_MAX {
            return Err(format!(
                "the module made a record of {} bytes: at most {RECORD_BYTES_MAX} are allowed",
                view.bytes()
            ));
        }
        Ok(item)
    }

    /// Returns the record itself. Its offset is the source's.
    pub(crate) fn view<'a>(&'a self, records: &'a [RecordRef<'a>]) -> RecordRef<'a> {
        let source = records.get(self.source as usize).copied();
        let source = source.unwrap_or(RecordRef {
            offset: weir_types::Offset::ZERO,
            timestamp: 0,
            key: None,
            value: None,
            headers: weir_types::Headers::NONE,
        });
        match &self.made {
            None => source,
            Some(made) => RecordRef {
                offset: source.offset,
                timestamp: made.timestamp,
                key: made.key.as_deref(),
                value: made.value.as_deref(),
                headers: HeaderBuf::view(&made.headers),
            },
        }
    }
}

/// Returns `items` as columns, those of `wanted` only.
pub(crate) fn columns(items: &[InFlight], records: &[RecordRef<'_>], wanted: Wanted) -> Columns {
    let mut columns = Columns {
        timestamps: Vec::with_capacity(items.len()),
        keys: wanted.keys.then(Column::default),
        values: wanted.values.then(Column::default),
        headers: wanted.headers.then(HeaderColumns::default),
        spans: Vec::new(),
    };
    for item in items {
        columns.push(&item.view(records));
    }
    columns
}

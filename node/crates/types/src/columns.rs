//! Records as columns, the form in which they cross the sandbox wall: a copy per column, whatever the count.

use crate::batch::{BatchError, Body};
use crate::record::{HeaderBuf, Headers, RecordRef};

/// Items laid end to end. Item `i` is `data[ends[i - 1]..ends[i]]`, with 0 before the first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Column {
    /// End of each item.
    pub ends: Vec<u32>,
    /// All items.
    pub data: Vec<u8>,
    /// A byte per item, 1 for null; absent without nulls.
    pub nulls: Option<Vec<u8>>,
}

impl Column {
    /// Adds an item.
    pub fn push(&mut self, item: Option<&[u8]>) {
        match item {
            Some(bytes) => self.data.extend_from_slice(bytes),
            None => self.nulls.get_or_insert_default().resize(self.ends.len(), 0),
        }
        self.ends.push(self.data.len() as u32);
        if let Some(nulls) = &mut self.nulls {
            nulls.push(u8::from(item.is_none()));
        }
    }

    /// Returns the number of items.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Returns true without items.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }
}

/// Headers of all records: record `i` has the items `ends[i - 1]..ends[i]` of both columns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderColumns {
    /// End of each record's headers.
    pub ends: Vec<u32>,
    /// Names; never null, may repeat.
    pub names: Column,
    /// Values.
    pub values: Column,
}

impl HeaderColumns {
    fn push(&mut self, headers: Headers<'_>) {
        for (name, value) in headers.iter() {
            self.names.push(Some(name));
            self.values.push(value);
        }
        self.ends.push(self.names.len() as u32);
    }
}

/// Selects columns; others are not copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Keys.
    pub keys: bool,
    /// Values.
    pub values: bool,
    /// Headers.
    pub headers: bool,
}

/// The records of a batch as columns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Columns {
    /// A timestamp per record, in milliseconds.
    pub timestamps: Vec<i64>,
    /// Keys, if selected.
    pub keys: Option<Column>,
    /// Values, if selected.
    pub values: Option<Column>,
    /// Headers, if selected.
    pub headers: Option<HeaderColumns>,
    /// End of each record in the batch's body, so that kept records can be copied.
    pub spans: Vec<u32>,
}

impl Columns {
    /// Walks `body`, with about `count` records.
    ///
    /// # Errors
    /// Fails at the first malformed record.
    pub fn read(body: &Body, count: u32, wanted: Wanted) -> Result<Self, BatchError> {
        let count = count as usize;
        let column = || Column {
            ends: Vec::with_capacity(count),
            // Other fields have a few bytes per record.
            data: Vec::with_capacity(body.bytes().len()),
            nulls: None,
        };
        let mut columns = Columns {
            timestamps: Vec::with_capacity(count),
            keys: wanted.keys.then(Column::default),
            values: wanted.values.then(column),
            headers: wanted.headers.then(HeaderColumns::default),
            spans: Vec::with_capacity(count),
        };
        let mut records = body.records();
        while let Some(record) = records.next() {
            columns.push(&record?);
            columns.spans.push(records.position() as u32);
        }
        Ok(columns)
    }

    /// Adds a record to the selected columns.
    #[inline]
    pub fn push(&mut self, record: &RecordRef<'_>) {
        self.timestamps.push(record.timestamp);
        if let Some(keys) = &mut self.keys {
            keys.push(record.key);
        }
        if let Some(values) = &mut self.values {
            values.push(record.value);
        }
        if let Some(headers) = &mut self.headers {
            headers.push(record.headers);
        }
    }

    /// Returns the number of records.
    pub fn len(&self) -> usize {
        self.timestamps.len()
    }

    /// Returns true without records.
    pub fn is_empty(&self) -> bool {
        self.timestamps.is_empty()
    }
}

/// A checked column from a guest: ends ascend within the data, nulls match in number.
#[derive(Clone, Copy, Debug)]
pub struct ColumnView<'a> {
    ends: &'a [u32],
    data: &'a [u8],
    nulls: Option<&'a [u8]>,
}

impl<'a> ColumnView<'a> {
    /// Checks the parts of a column of `len` items.
    ///
    /// # Errors
    /// Describes the mismatch, for the module's author.
    pub fn check(
        ends: &'a [u32],
        data: &'a [u8],
        nulls: Option<&'a [u8]>,
        len: usize,
    ) -> Result<Self, String> {
        if ends.len() != len {
            return Err(format!("has {} ends for {len} items", ends.len()));
        }
        if nulls.is_some_and(|n| n.len() != len) {
            return Err(format!(
                "has {} nulls for {len} items",
                nulls.map_or(0, <[u8]>::len)
            ));
        }
        if !ends.is_sorted() {
            return Err("has ends that do not ascend".to_owned());
        }
        let last = ends.last().copied().unwrap_or(0) as usize;
        if last > data.len() {
            return Err(format!("ends at {last}, beyond its {} bytes", data.len()));
        }
        Ok(Self { ends, data, nulls })
    }

    /// Returns item `i`; null also without such an item.
    pub fn item(&self, i: usize) -> Option<&'a [u8]> {
        if self.nulls.is_some_and(|n| n.get(i).is_some_and(|b| *b != 0)) {
            return None;
        }
        let start = i.checked_sub(1).map_or(Some(0), |j| self.ends.get(j).copied())? as usize;
        self.data.get(start..*self.ends.get(i)? as usize)
    }
}

/// Checked headers from a guest.
#[derive(Clone, Copy, Debug)]
pub struct HeadersView<'a> {
    ends: &'a [u32],
    names: ColumnView<'a>,
    values: ColumnView<'a>,
}

impl<'a> HeadersView<'a> {
    /// Joins checked columns for `len` records.
    ///
    /// # Errors
    /// Describes the mismatch.
    pub fn check(
        ends: &'a [u32],
        names: ColumnView<'a>,
        values: ColumnView<'a>,
        len: usize,
    ) -> Result<Self, String> {
        let items = names.ends.len();
        if ends.len() != len || !ends.is_sorted() || ends.last().is_some_and(|e| *e as usize > items) {
            return Err(format!("headers do not fit {len} records and {items} names"));
        }
        if names.nulls.is_some_and(|n| n.iter().any(|b| *b != 0)) {
            return Err("a header has a null name".to_owned());
        }
        Ok(Self { ends, names, values })
    }

    /// Adds the headers of record `i` to `out`.
    pub fn copy_to(&self, i: usize, out: &mut HeaderBuf) {
        let start = i
            .checked_sub(1)
            .and_then(|j| self.ends.get(j).copied())
            .unwrap_or(0) as usize;
        let end = self.ends.get(i).map_or(start, |e| *e as usize);
        for item in start..end {
            out.push(self.names.item(item).unwrap_or_default(), self.values.item(item));
        }
    }
}

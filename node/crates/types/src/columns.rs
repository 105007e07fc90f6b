//! Records as columns: the form in which they cross the sandbox wall, one copy per column whatever the count.

use crate::batch::{BatchError, Body};
use crate::record::{HeaderBuf, Headers, RecordRef};

/// Items laid end to end. Item `i` is `data[ends[i - 1]..ends[i]]`, with 0 before the first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Column {
    /// Where each item ends.
    pub ends: Vec<u32>,
    /// All items.
    pub data: Vec<u8>,
    /// A byte an item, 1 where it is null; absent when none is.
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

    /// Items.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether it holds no item.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }
}

/// Headers of all records: record `i` has the items `ends[i - 1]..ends[i]` of both columns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderColumns {
    /// Where each record's headers end.
    pub ends: Vec<u32>,
    /// Their names; never null, may repeat.
    pub names: Column,
    /// Their values.
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

/// Which columns a reader wants; the rest is not copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Keys.
    pub keys: bool,
    /// Values.
    pub values: bool,
    /// Headers.
    pub headers: bool,
}

/// The records of one batch as columns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Columns {
    /// A timestamp a record, in milliseconds.
    pub timestamps: Vec<i64>,
    /// Keys, if wanted.
    pub keys: Option<Column>,
    /// Values, if wanted.
    pub values: Option<Column>,
    /// Headers, if wanted.
    pub headers: Option<HeaderColumns>,
    /// Where each record ends in the batch's body, so that what stays can be copied as it is.
    pub spans: Vec<u32>,
}

impl Columns {
    /// Walks `body`, which holds about `count` records.
    ///
    /// # Errors
    /// At the first malformed record.
    pub fn read(body: &Body, count: u32, wanted: Wanted) -> Result<Self, BatchError> {
        let count = count as usize;
        let column = || Column {
            ends: Vec::with_capacity(count),
            // What is not a key, a value or a header is a few bytes a record.
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

    /// Adds a record to the columns that there are.
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

    /// Records.
    pub fn len(&self) -> usize {
        self.timestamps.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.timestamps.is_empty()
    }
}

/// A column that came from a guest, checked: ends ascend and stay within the data, nulls match in number.
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
    /// Says what does not fit, in words for the module's author.
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

    /// Item `i`; null also where there is no such item.
    pub fn item(&self, i: usize) -> Option<&'a [u8]> {
        if self.nulls.is_some_and(|n| n.get(i).is_some_and(|b| *b != 0)) {
            return None;
        }
        let start = i.checked_sub(1).map_or(Some(0), |j| self.ends.get(j).copied())? as usize;
        self.data.get(start..*self.ends.get(i)? as usize)
    }
}

/// Headers that came from a guest, checked.
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
    /// Says what does not fit.
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

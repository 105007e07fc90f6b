//! Records as a module sees them: borrowed views of the columns.

use crate::bindings::weir::module::types as wit;
use crate::json::Json;

/// Items of one column.
#[derive(Clone, Copy, Debug)]
pub struct Column<'a> {
    ends: &'a [u32],
    data: &'a [u8],
    nulls: Option<&'a [u8]>,
}

impl<'a> Column<'a> {
    pub(crate) fn new(column: &'a wit::Column) -> Self {
        Self { ends: &column.ends, data: &column.data, nulls: column.nulls.as_deref() }
    }

    /// Item `i`, or `None` where it is null.
    #[inline]
    pub fn get(self, i: usize) -> Option<&'a [u8]> {
        if let Some(nulls) = self.nulls
            && nulls.get(i).is_some_and(|n| *n != 0)
        {
            return None;
        }
        let start = if i == 0 { 0 } else { *self.ends.get(i - 1)? };
        self.data.get(start as usize..*self.ends.get(i)? as usize)
    }
}

/// A batch of records.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    inner: &'a wit::Batch,
    keys: Option<Column<'a>>,
    values: Option<Column<'a>>,
}

impl<'a> Batch<'a> {
    pub(crate) fn new(inner: &'a wit::Batch) -> Self {
        let keys = inner.keys.as_ref().map(Column::new);
        let values = inner.values.as_ref().map(Column::new);
        Self { inner, keys, values }
    }

    /// Records.
    pub fn len(&self) -> usize {
        self.inner.timestamps.len()
    }

    /// Whether there are none; a node sends no such batch.
    pub fn is_empty(&self) -> bool {
        self.inner.timestamps.is_empty()
    }

    /// When the node took them in, in milliseconds since 1970.
    pub fn now(&self) -> i64 {
        self.inner.now
    }

    /// Record `i`.
    #[inline]
    pub fn record(&self, i: usize) -> Record<'a> {
        Record { batch: *self, index: i }
    }

    /// All records in order.
    pub fn records(&self) -> impl ExactSizeIterator<Item = Record<'a>> + use<'a> {
        let batch = *self;
        (0..self.len()).map(move |i| batch.record(i))
    }
}

/// One record of a batch.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    batch: Batch<'a>,
    index: usize,
}

impl<'a> Record<'a> {
    /// Its place in the batch.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Its timestamp, in milliseconds since 1970.
    #[inline]
    pub fn timestamp(&self) -> i64 {
        self.batch.inner.timestamps.get(self.index).copied().unwrap_or_default()
    }

    /// Its key, unless it has none or the plan does not ask for keys.
    #[inline]
    pub fn key(&self) -> Option<&'a [u8]> {
        self.batch.keys?.get(self.index)
    }

    /// Its value, unless it is null or the plan does not ask for values.
    #[inline]
    pub fn value(&self) -> Option<&'a [u8]> {
        self.batch.values?.get(self.index)
    }

    /// The field of its value at `path`, if that is a JSON object: names separated by dots lead into objects.
    #[inline]
    pub fn json(&self, path: &str) -> Json<'a> {
        match self.value() {
            Some(value) => Json::new(value).get(path),
            None => Json::NONE,
        }
    }

    /// Its headers, unless the plan does not ask for them.
    pub fn headers(&self) -> Headers<'a> {
        Headers { inner: self.batch.inner.headers.as_ref(), index: self.index }
    }
}

/// Headers of one record.
#[derive(Clone, Copy, Debug)]
pub struct Headers<'a> {
    inner: Option<&'a wit::Headers>,
    index: usize,
}

impl<'a> Headers<'a> {
    /// Name and value of each, in order.
    pub fn iter(self) -> impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)> {
        let range = self.inner.map_or(0..0, |h| {
            let start = if self.index == 0 { Some(0) } else { h.ends.get(self.index - 1).copied() };
            let end = h.ends.get(self.index).copied();
            start.unwrap_or(0) as usize..end.unwrap_or(0) as usize
        });
        range.filter_map(move |i| {
            let inner = self.inner?;
            Some((Column::new(&inner.names).get(i)?, Column::new(&inner.values).get(i)))
        })
    }

    /// The last value of the header `name`, as Kafka's `lastHeader`.
    pub fn last(self, name: &str) -> Option<&'a [u8]> {
        self.iter().filter(|(n, _)| *n == name.as_bytes()).last()?.1
    }
}

//! Records as a module sees them: borrowed views of the columns.

use crate::bindings::weir::module::types as wit;
use crate::json::Json;
use crate::path::Path;

/// Items of one column.
#[derive(Clone, Copy, Debug)]
pub struct Column<'a> {
    ends: &'a [u32],
    data: &'a [u8],
    nulls: Option<&'a [u8]>,
}

impl<'a> Column<'a> {
    pub(crate) fn new(column: &'a wit::Column) -> Self {
        Self {
            ends: &column.ends,
            data: &column.data,
            nulls: column.nulls.as_deref(),
        }
    }

    /// Items.
    pub fn len(self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.ends.is_empty()
    }

    /// The last item; `None` also where it is null.
    pub fn last(self) -> Option<&'a [u8]> {
        self.get(self.ends.len().checked_sub(1)?)
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
}

impl<'a> Batch<'a> {
    pub(crate) fn new(inner: &'a wit::Batch) -> Self {
        Self { inner }
    }

    /// Records.
    pub fn len(&self) -> usize {
        self.inner.timestamps.len()
    }

    /// Whether there are none; a node sends no such batch.
    pub fn is_empty(&self) -> bool {
        self.inner.timestamps.is_empty()
    }

    /// The topic that all of them come from, by its place in [`Config::sources`](crate::Config::sources).
    pub fn source(&self) -> u32 {
        self.inner.source
    }

    /// When the node took them in, in milliseconds since 1970.
    pub fn now(&self) -> i64 {
        self.inner.now
    }

    /// No record before this time is expected any more, in milliseconds since 1970: one that comes is late. The smallest number
    /// when that is not known.
    pub fn watermark(&self) -> i64 {
        self.inner.watermark
    }

    /// The keys alone, in order: all `None` unless the plan asks for keys. For a module that decides by them only,
    /// with [`crate::Out::route_all`].
    #[inline]
    pub fn keys(&self) -> impl Iterator<Item = Option<&'a [u8]>> {
        let mut walk = Walk::new(self.inner.keys.as_ref());
        (0..self.len()).map(move |index| walk.next(index))
    }

    /// All records in order.
    #[inline]
    pub fn records(&self) -> Records<'a> {
        Records {
            inner: self.inner,
            index: 0,
            keys: Walk::new(self.inner.keys.as_ref()),
            values: Walk::new(self.inner.values.as_ref()),
        }
    }
}

/// A column on the way through it: where one item ends the next begins.
#[derive(Clone, Debug)]
struct Walk<'a> {
    ends: std::slice::Iter<'a, u32>,
    data: &'a [u8],
    nulls: Option<&'a [u8]>,
    start: usize,
}

impl<'a> Walk<'a> {
    fn new(column: Option<&'a wit::Column>) -> Self {
        match column {
            Some(c) => Self {
                ends: c.ends.iter(),
                data: &c.data,
                nulls: c.nulls.as_deref(),
                start: 0,
            },
            None => Self {
                ends: [].iter(),
                data: &[],
                nulls: None,
                start: 0,
            },
        }
    }

    /// The next item; nothing where the column is not there.
    #[inline]
    fn next(&mut self, index: usize) -> Option<&'a [u8]> {
        let end = *self.ends.next()? as usize;
        let item = self.data.get(self.start..end)?;
        self.start = end;
        match self.nulls {
            Some(nulls) if nulls.get(index).is_some_and(|n| *n != 0) => None,
            _ => Some(item),
        }
    }
}

/// Iterator over the records of a batch.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    inner: &'a wit::Batch,
    index: usize,
    keys: Walk<'a>,
    values: Walk<'a>,
}

impl<'a> Iterator for Records<'a> {
    type Item = Record<'a>;

    #[inline]
    fn next(&mut self) -> Option<Record<'a>> {
        let index = self.index;
        if index >= self.inner.timestamps.len() {
            return None;
        }
        self.index += 1;
        let (key, value) = (self.keys.next(index), self.values.next(index));
        Some(Record {
            inner: self.inner,
            index,
            key,
            value,
        })
    }
}

/// One record of a batch.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    inner: &'a wit::Batch,
    index: usize,
    key: Option<&'a [u8]>,
    value: Option<&'a [u8]>,
}

impl<'a> Record<'a> {
    /// Its place in the batch.
    #[inline]
    pub fn index(&self) -> usize {
        self.index
    }

    /// Its timestamp, in milliseconds since 1970.
    #[inline]
    pub fn timestamp(&self) -> i64 {
        self.inner.timestamps.get(self.index).copied().unwrap_or_default()
    }

    /// The watermark of its batch: see [`Batch::watermark`].
    pub fn watermark(&self) -> i64 {
        self.inner.watermark
    }

    /// When the node took it in: see [`Batch::now`].
    pub(crate) fn now(&self) -> i64 {
        self.inner.now
    }

    /// Whether it came after the watermark had passed its time.
    pub fn is_late(&self) -> bool {
        self.has(1)
    }

    /// Whether its time was so far in the future that the node's stands for it.
    pub fn is_redated(&self) -> bool {
        self.has(4)
    }

    fn has(&self, mark: u8) -> bool {
        let marks = self.inner.marks.as_ref().and_then(|m| m.get(self.index));
        marks.is_some_and(|m| m & mark != 0)
    }

    /// Its key, unless it has none or the plan does not ask for keys.
    #[inline]
    pub fn key(&self) -> Option<&'a [u8]> {
        self.key
    }

    /// Its key as one of [`crate::state`]: empty where it has none.
    ///
    /// # Errors
    /// Words for a dead letter, when it is too long to be one.
    pub fn state_key(&self) -> Result<&'a [u8], String> {
        let key = self.key.unwrap_or_default();
        // What windows put in front of it is to fit as well.
        let longest = crate::state::KEY_BYTES_MAX - 8;
        match key.len() <= longest {
            true => Ok(key),
            false => Err(format!("its key has more than {longest} bytes")),
        }
    }

    /// Its value, unless it is null or the plan does not ask for values.
    #[inline]
    pub fn value(&self) -> Option<&'a [u8]> {
        self.value
    }

    /// The field of its value at `path`, if that is a JSON object: names separated by dots lead into objects.
    #[inline]
    pub fn json(&self, path: &str) -> Json<'a> {
        match self.value {
            Some(value) => Json::new(value).get(path),
            None => Json::NONE,
        }
    }

    /// As [`Record::json`], for a path that was taken apart before: what a module does in `init`.
    #[inline]
    pub fn field(&self, path: &Path) -> Json<'a> {
        match self.value {
            Some(value) => Json::new(value).at(path),
            None => Json::NONE,
        }
    }

    /// As [`Record::field`], where the whole of the value is looked at: see [`Json::whole_at`]. Nothing where there is no value.
    ///
    /// # Errors
    /// In words, when the value is no object that is closed and followed by nothing, or has a name of the path twice.
    #[inline]
    pub fn whole_field(&self, path: &Path) -> Result<Json<'a>, String> {
        match self.value {
            Some(value) => Json::new(value).whole_at(path),
            None => Ok(Json::NONE),
        }
    }

    /// Its headers, unless the plan does not ask for them.
    pub fn headers(&self) -> Headers<'a> {
        Headers {
            inner: self.inner.headers.as_ref(),
            index: self.index,
        }
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
            let start = if self.index == 0 {
                Some(0)
            } else {
                h.ends.get(self.index - 1).copied()
            };
            let end = h.ends.get(self.index).copied();
            start.unwrap_or(0) as usize..end.unwrap_or(0) as usize
        });
        range.filter_map(move |i| {
            let inner = self.inner?;
            Some((
                Column::new(&inner.names).get(i)?,
                Column::new(&inner.values).get(i),
            ))
        })
    }

    /// The last value of the header `name`, as Kafka's `lastHeader`.
    pub fn last(self, name: &str) -> Option<&'a [u8]> {
        self.iter().filter(|(n, _)| *n == name.as_bytes()).last()?.1
    }
}

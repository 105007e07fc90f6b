//! The records of a batch: borrowed views of its columns.

use crate::bindings::weir::module::types as wit;
use crate::json::Json;
use crate::path::Path;

/// A column of byte strings.
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

    /// Returns the number of items.
    pub fn len(self) -> usize {
        self.ends.len()
    }

    /// Returns true if there are no items.
    pub fn is_empty(self) -> bool {
        self.ends.is_empty()
    }

    /// Returns the last item; `None` if it is null or there are no items.
    pub fn last(self) -> Option<&'a [u8]> {
        self.get(self.ends.len().checked_sub(1)?)
    }

    /// Returns item `i`, or `None` if it is null.
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

    /// Returns the number of records.
    pub fn len(&self) -> usize {
        self.inner.timestamps.len()
    }

    /// Returns true if there are no records. A node never sends an empty batch.
    pub fn is_empty(&self) -> bool {
        self.inner.timestamps.is_empty()
    }

    /// Returns the topic of all records in the batch, as an index into
    /// [`Config::sources`](crate::Config::sources).
    pub fn source(&self) -> u32 {
        self.inner.source
    }

    /// Returns the time at which the node received the batch, in milliseconds since 1970.
    pub fn now(&self) -> i64 {
        self.inner.now
    }

    /// Returns the watermark, in milliseconds since 1970: records with an earlier time are late. [`i64::MIN`]
    /// if unknown.
    pub fn watermark(&self) -> i64 {
        self.inner.watermark
    }

    /// Returns the keys in order; all `None` unless the module requests keys. With [`crate::Out::route_all`],
    /// the fast path for modules that decide by keys only.
    #[inline]
    pub fn keys(&self) -> impl Iterator<Item = Option<&'a [u8]>> {
        let mut walk = Walk::new(self.inner.keys.as_ref());
        (0..self.len()).map(move |index| walk.next(index))
    }

    /// Returns the records in order.
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

/// An iterator over a column: each item begins at the end of the previous item.
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

    /// Returns the next item; `None` for a missing column.
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

/// A record dated further ahead than this says that the node's clock is wrong, not its own: the node booted
/// without a clock.
const AHEAD_MAX_MS: i64 = 24 * 3_600_000;

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

/// A record of a batch.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    inner: &'a wit::Batch,
    index: usize,
    key: Option<&'a [u8]>,
    value: Option<&'a [u8]>,
}

impl<'a> Record<'a> {
    /// Returns the record's index in the batch.
    #[inline]
    pub fn index(&self) -> usize {
        self.index
    }

    /// Returns the timestamp, in milliseconds since 1970.
    #[inline]
    pub fn timestamp(&self) -> i64 {
        self.inner.timestamps.get(self.index).copied().unwrap_or_default()
    }

    /// Returns the timestamp, capped at the node's time `now` (both in milliseconds since 1970). A node whose
    /// time is unknown or more than a day behind imposes no cap.
    pub(crate) fn timestamp_up_to(&self, now: i64) -> i64 {
        let at = self.timestamp();
        let is_ahead = now > 0 && (0..AHEAD_MAX_MS).contains(&at.saturating_sub(now));
        if is_ahead { now } else { at }
    }

    /// Returns the watermark of the batch, in milliseconds since 1970: see [`Batch::watermark`].
    pub fn watermark(&self) -> i64 {
        self.inner.watermark
    }

    /// Returns the time at which the node received the batch: see [`Batch::now`].
    pub(crate) fn now(&self) -> i64 {
        self.inner.now
    }

    /// Returns true if the record arrived after the watermark had passed its timestamp.
    pub fn is_late(&self) -> bool {
        self.has(1)
    }

    /// Returns true if the timestamp was too far in the future and was replaced by the node's time.
    pub fn is_redated(&self) -> bool {
        self.has(4)
    }

    fn has(&self, mark: u8) -> bool {
        let marks = self.inner.marks.as_ref().and_then(|m| m.get(self.index));
        marks.is_some_and(|m| m & mark != 0)
    }

    /// Returns the key; `None` if the record has none or the module does not request keys.
    #[inline]
    pub fn key(&self) -> Option<&'a [u8]> {
        self.key
    }

    /// Returns the key for use with [`crate::state`]: empty for a record without a key.
    ///
    /// # Errors
    /// A reason for a dead letter if the key is too long for state.
    pub fn state_key(&self) -> Result<&'a [u8], String> {
        let key = self.key.unwrap_or_default();
        // Leaves room for the prefix that windows put in front of the key.
        let longest = crate::state::KEY_BYTES_MAX - 8;
        match key.len() <= longest {
            true => Ok(key),
            false => Err(format!("its key has more than {longest} bytes")),
        }
    }

    /// Returns the value; `None` if it is null or the module does not request values.
    #[inline]
    pub fn value(&self) -> Option<&'a [u8]> {
        self.value
    }

    /// Returns the field at `path` of a JSON value. Dots separate the names of nested fields.
    #[inline]
    pub fn json(&self, path: &str) -> Json<'a> {
        match self.value {
            Some(value) => Json::new(value).get(path),
            None => Json::NONE,
        }
    }

    /// Returns the field at a parsed `path` of a JSON value. Parse paths in `init`, not per record.
    #[inline]
    pub fn field(&self, path: &Path) -> Json<'a> {
        match self.value {
            Some(value) => Json::new(value).at(path),
            None => Json::NONE,
        }
    }

    /// Returns the field at `path` and checks the whole value: see [`Json::whole_at`]. Empty if there is no
    /// value.
    ///
    /// # Errors
    /// A reason for a dead letter if the value is not a single complete object, or a name on the path occurs
    /// twice.
    #[inline]
    pub fn whole_field(&self, path: &Path) -> Result<Json<'a>, String> {
        match self.value {
            Some(value) => Json::new(value).whole_at(path),
            None => Ok(Json::NONE),
        }
    }

    /// Returns the headers; empty unless the module requests headers.
    pub fn headers(&self) -> Headers<'a> {
        Headers {
            inner: self.inner.headers.as_ref(),
            index: self.index,
        }
    }
}

/// The headers of a record.
#[derive(Clone, Copy, Debug)]
pub struct Headers<'a> {
    inner: Option<&'a wit::Headers>,
    index: usize,
}

impl<'a> Headers<'a> {
    /// Returns name and value of each header, in order.
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

    /// Returns the last value of the header `name`, like Kafka's `lastHeader`.
    pub fn last(self, name: &str) -> Option<&'a [u8]> {
        self.iter().filter(|(n, _)| *n == name.as_bytes()).last()?.1
    }
}

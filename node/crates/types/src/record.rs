//! A record: owned, or borrowed from its batch.

use crate::batch::varint;
use crate::id::Offset;
use bytes::Bytes;

/// A record on its own, as applications produce it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Key, if any: decides the partition, and order holds per key.
    pub key: Option<Bytes>,
    /// Value; `None` is a null value, which differs from an empty value.
    pub value: Option<Bytes>,
    /// Milliseconds since 1970.
    pub timestamp: i64,
    /// Headers in order; names may repeat.
    pub headers: Vec<(String, Option<Bytes>)>,
}

impl Record {
    /// Returns the headers in the stored form.
    pub fn header_buf(&self) -> HeaderBuf {
        let mut buf = HeaderBuf::default();
        for (name, value) in &self.headers {
            buf.push(name.as_bytes(), value.as_deref());
        }
        buf
    }
}

/// A record in its batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordRef<'a> {
    /// Offset in the partition.
    pub offset: Offset,
    /// Milliseconds since 1970.
    pub timestamp: i64,
    /// Key, if any.
    pub key: Option<&'a [u8]>,
    /// Value, if not null.
    pub value: Option<&'a [u8]>,
    /// Headers in order.
    pub headers: Headers<'a>,
}

impl RecordRef<'_> {
    /// Returns the most bytes that the record takes in a batch.
    pub fn bytes(&self) -> usize {
        // Its length, attributes, two numbers of up to ten bytes, and the lengths of key and value.
        const AROUND: usize = 5 + 1 + 10 + 10 + 5 + 5;
        let of = |part: Option<&[u8]>| part.map_or(0, <[u8]>::len);
        AROUND + of(self.key) + of(self.value) + self.headers.raw().len()
    }

    /// Copies the record out of its batch.
    pub fn to_record(&self) -> Record {
        let bytes = |b: &[u8]| Bytes::copy_from_slice(b);
        Record {
            key: self.key.map(bytes),
            value: self.value.map(bytes),
            timestamp: self.timestamp,
            headers: self
                .headers
                .iter()
                .map(|(name, value)| (String::from_utf8_lossy(name).into_owned(), value.map(bytes)))
                .collect(),
        }
    }
}

/// Headers in the stored form: a count and then names and values, each with its length.
///
/// INVARIANT: only made from bytes that were walked to the end, so iterating cannot fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Headers<'a> {
    raw: &'a [u8],
}

impl<'a> Headers<'a> {
    /// No headers.
    pub const NONE: Headers<'static> = Headers { raw: &[0] };

    pub(crate) fn walked(raw: &'a [u8]) -> Self {
        Self { raw }
    }

    pub(crate) fn raw(&self) -> &'a [u8] {
        self.raw
    }

    /// Returns the number of headers.
    pub fn len(&self) -> usize {
        let mut rest = self.raw;
        varint::read_i32(&mut rest).map_or(0, |n| usize::try_from(n).unwrap_or(0))
    }

    /// Returns true without headers.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the name and the value of each header, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)> + use<'a> {
        let mut rest = self.raw;
        let count = varint::read_i32(&mut rest).unwrap_or(0);
        (0..count).map_while(move |_| {
            let name = varint::read_bytes(&mut rest)??;
            Some((name, varint::read_bytes(&mut rest)?))
        })
    }
}

/// Headers being written, already in the stored form.
#[derive(Clone, Debug, Default)]
pub struct HeaderBuf {
    count: i32,
    body: Vec<u8>,
}

impl HeaderBuf {
    /// Copies `headers`, so that more can be added.
    pub fn copied(headers: Headers<'_>) -> Self {
        let mut rest = headers.raw;
        let count = varint::read_i32(&mut rest).unwrap_or(0);
        Self {
            count,
            body: rest.to_vec(),
        }
    }

    /// Copies at most the first `most` of `headers`.
    pub fn copied_up_to(most: usize, headers: Headers<'_>) -> Self {
        if headers.len() <= most {
            return Self::copied(headers);
        }
        let mut copy = Self::default();
        headers
            .iter()
            .take(most)
            .for_each(|(name, value)| copy.push(name, value));
        copy
    }

    /// Adds a header at the end.
    pub fn push(&mut self, name: &[u8], value: Option<&[u8]>) {
        self.count += 1;
        varint::write_bytes(&mut self.body, Some(name));
        varint::write_bytes(&mut self.body, value);
    }

    /// Returns the number of headers.
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// Returns true without headers.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(crate) fn write_to(&self, out: &mut Vec<u8>) {
        varint::write_i64(out, i64::from(self.count));
        out.extend_from_slice(&self.body);
    }

    /// Returns the stored form in a single piece.
    pub fn encoded(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.body.len() + 2);
        self.write_to(&mut out);
        out
    }

    /// Views the output of [`HeaderBuf::encoded`].
    pub fn view(encoded: &[u8]) -> Headers<'_> {
        Headers::walked(encoded)
    }
}

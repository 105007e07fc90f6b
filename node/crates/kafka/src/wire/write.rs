//! Writes responses: small fields into buffers, batches by reference between them.

use bytes::{BufMut, Bytes, BytesMut};

/// Minimum size of a chunk that is sent by reference.
const BY_REFERENCE_FROM: usize = 1 << 10;

/// Size of a buffer for small fields: a single buffer of many megabytes would be copied as it grows.
const PART_BYTES: usize = 256 << 10;

/// A response being written.
#[derive(Default)]
pub(crate) struct Writer {
    done: Vec<Bytes>,
    done_bytes: usize,
    buf: BytesMut,
    flexible: bool,
}

/// A finished response: its length, then its parts in order.
#[derive(Debug, Default)]
pub(crate) struct Frame(pub(crate) Vec<Bytes>);

impl Writer {
    pub(crate) fn set_flexible(&mut self, flexible: bool) {
        self.flexible = flexible;
    }

    pub(crate) fn put(&mut self, bytes: &[u8]) {
        self.buf.extend_from_slice(bytes);
        if self.buf.len() >= PART_BYTES {
            let part = self.buf.split().freeze();
            self.done_bytes += part.len();
            self.done.push(part);
        }
    }

    fn unsigned_varint(&mut self, mut value: u32) {
        while value >= 0x80 {
            self.buf.put_u8(value as u8 | 0x80);
            value >>= 7;
        }
        self.buf.put_u8(value as u8);
    }

    pub(crate) fn count(&mut self, count: Option<usize>) {
        match (self.flexible, count) {
            (true, count) => self.unsigned_varint(count.map_or(0, |n| n as u32 + 1)),
            (false, count) => self.buf.put_i32(count.map_or(-1, |n| n as i32)),
        }
    }

    pub(crate) fn string(&mut self, text: Option<&str>) {
        // No name or message of Weir comes near the limit; a longer text is cut.
        let text = text.map(|t| {
            t.get(..t.floor_char_boundary(i16::MAX as usize))
                .unwrap_or_default()
        });
        match (self.flexible, text) {
            (true, text) => self.unsigned_varint(text.map_or(0, |t| t.len() as u32 + 1)),
            (false, text) => self.buf.put_i16(text.map_or(-1, |t| t.len() as i16)),
        }
        self.put(text.unwrap_or_default().as_bytes());
    }

    pub(crate) fn bytes(&mut self, bytes: Option<&[u8]>) {
        self.count(bytes.map(<[u8]>::len));
        self.put(bytes.unwrap_or_default());
    }

    pub(crate) fn chunks(&mut self, chunks: &[Bytes]) {
        self.count(Some(chunks.iter().map(Bytes::len).sum()));
        for chunk in chunks {
            if chunk.len() < BY_REFERENCE_FROM {
                self.put(chunk);
                continue;
            }
            let before = self.buf.split().freeze();
            self.done_bytes += before.len() + chunk.len();
            self.done.extend([before, chunk.clone()]);
        }
    }

    /// Writes the end of a structure, with its tagged fields in the order of their tags.
    pub(crate) fn end_struct(&mut self, tagged: &[(u32, Bytes)]) {
        if !self.flexible {
            return;
        }
        self.unsigned_varint(tagged.len() as u32);
        for (tag, field) in tagged {
            self.unsigned_varint(*tag);
            self.unsigned_varint(field.len() as u32);
            self.put(field);
        }
    }

    /// Returns the bytes that `write` writes, for a field behind its length.
    pub(crate) fn apart(&self, write: impl FnOnce(&mut Self)) -> Bytes {
        let mut writer = Self {
            flexible: self.flexible,
            ..Self::default()
        };
        write(&mut writer);
        match writer.done.is_empty() {
            true => writer.buf.freeze(),
            false => {
                writer.done.push(writer.buf.freeze());
                writer.done.concat().into()
            }
        }
    }

    /// Returns the frame, with its length in front.
    pub(crate) fn finish(mut self) -> Frame {
        let length = (self.done_bytes + self.buf.len()) as i32;
        let mut parts = Vec::with_capacity(self.done.len() + 2);
        if self.done.is_empty() && self.buf.len() < BY_REFERENCE_FROM {
            // A single small part fits one packet.
            let mut whole = BytesMut::with_capacity(self.buf.len() + 4);
            whole.put_i32(length);
            whole.extend_from_slice(&self.buf);
            return Frame(vec![whole.freeze()]);
        }
        parts.push(Bytes::copy_from_slice(&length.to_be_bytes()));
        parts.append(&mut self.done);
        parts.push(self.buf.freeze());
        parts.retain(|p| !p.is_empty());
        Frame(parts)
    }
}

//! A Produce request too large to be received: read and skipped, so that it can be refused and the connection
//! continues. Memory: a small buffer, and the names of topics and partitions.

use crate::api::Head;
use crate::api::produce::{FLEXIBLE, Refused, SERVED, by_id_from};
use bytes::{Buf, BytesMut};
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt};
use weir_types::limits::TOPIC_NAME_BYTES_MAX;

/// Bytes read at once.
const PIECE_BYTES: usize = 16 << 10;
/// Maximum partitions in the answer; a request with more ends the connection.
const PLACES_MAX: usize = 1_000;

/// The source of a request: the bytes already received, then the remaining `left` bytes of the stream.
pub(crate) struct Skim<'a, R> {
    pub(crate) rx: &'a mut R,
    pub(crate) buffer: &'a mut BytesMut,
    pub(crate) left: usize,
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a large request cannot be read")
}

impl<R: AsyncRead + Unpin> Skim<'_, R> {
    /// Skips the records of a request and returns the topics and partitions it names.
    ///
    /// # Errors
    /// If the request is malformed, or its bytes do not arrive.
    pub(crate) async fn produce(&mut self) -> io::Result<(Head, Refused)> {
        let head = Head {
            key: i16::from_be_bytes(self.array().await?),
            version: i16::from_be_bytes(self.array().await?),
            correlation: i32::from_be_bytes(self.array().await?),
        };
        if !SERVED.contains(&head.version) {
            return Err(malformed());
        }
        let is_flexible = head.version >= FLEXIBLE;
        // The client id has the old form in every version.
        self.skip_text(false).await?;
        self.tags(is_flexible).await?;
        self.skip_text(is_flexible).await?;
        let mut refused = Refused {
            acks: i16::from_be_bytes(self.array().await?),
            topics: Vec::new(),
        };
        let _timeout: [u8; 4] = self.array().await?;
        let mut places = 0;
        let mut count = async |skim: &mut Self| -> io::Result<usize> {
            let count = skim.length(is_flexible, 4).await?.ok_or_else(malformed)?;
            places += count;
            match places <= PLACES_MAX {
                true => Ok(count),
                false => Err(malformed()),
            }
        };
        for _ in 0..count(self).await? {
            let (name, id) = match head.version >= by_id_from() {
                true => (Vec::new(), self.array().await?),
                false => (self.text(is_flexible).await?, [0; 16]),
            };
            let name = String::from_utf8(name).map_err(|_| malformed())?;
            let mut partitions = Vec::new();
            for _ in 0..count(self).await? {
                partitions.push(i32::from_be_bytes(self.array().await?));
                let records = self.length(is_flexible, 4).await?.unwrap_or(0);
                self.skip(records).await?;
                self.tags(is_flexible).await?;
            }
            self.tags(is_flexible).await?;
            refused.topics.push((name, id, partitions));
        }
        self.skip(self.left).await?;
        Ok((head, refused))
    }

    async fn array<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let bytes = self.bytes(N).await?;
        bytes.first_chunk().copied().ok_or_else(malformed)
    }

    /// Reads a few bytes.
    async fn bytes(&mut self, len: usize) -> io::Result<Vec<u8>> {
        self.left = self.left.checked_sub(len).ok_or_else(malformed)?;
        while self.buffer.len() < len {
            self.more().await?;
        }
        Ok(self.buffer.split_to(len).to_vec())
    }

    async fn skip(&mut self, mut len: usize) -> io::Result<()> {
        self.left = self.left.checked_sub(len).ok_or_else(malformed)?;
        while len > 0 {
            if self.buffer.is_empty() {
                self.more().await?;
            }
            let some = len.min(self.buffer.len());
            self.buffer.advance(some);
            len -= some;
        }
        Ok(())
    }

    async fn more(&mut self) -> io::Result<()> {
        self.buffer.reserve(PIECE_BYTES);
        match self.rx.read_buf(self.buffer).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    /// Reads a length; `None` for null. The old form has `width` bytes.
    async fn length(&mut self, is_flexible: bool, width: usize) -> io::Result<Option<usize>> {
        let length = match (is_flexible, width) {
            (true, _) => i64::from(self.varint().await?) - 1,
            (false, 2) => i16::from_be_bytes(self.array().await?).into(),
            (false, _) => i32::from_be_bytes(self.array().await?).into(),
        };
        match length {
            -1 => Ok(None),
            length => usize::try_from(length).map(Some).map_err(|_| malformed()),
        }
    }

    async fn varint(&mut self) -> io::Result<u32> {
        let mut value = 0u64;
        for shift in (0..35).step_by(7) {
            let [byte] = self.array().await?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return u32::try_from(value).map_err(|_| malformed());
            }
        }
        Err(malformed())
    }

    async fn skip_text(&mut self, is_flexible: bool) -> io::Result<()> {
        let length = self.length(is_flexible, 2).await?;
        self.skip(length.unwrap_or(0)).await
    }

    /// Reads a topic's name.
    async fn text(&mut self, is_flexible: bool) -> io::Result<Vec<u8>> {
        match self.length(is_flexible, 2).await? {
            Some(length) if length > TOPIC_NAME_BYTES_MAX => Err(malformed()),
            length => self.bytes(length.unwrap_or(0)).await,
        }
    }

    /// Skips the tagged fields at the end of a structure.
    async fn tags(&mut self, is_flexible: bool) -> io::Result<()> {
        if !is_flexible {
            return Ok(());
        }
        for _ in 0..self.varint().await? {
            self.varint().await?;
            let length = self.varint().await? as usize;
            self.skip(length).await?;
        }
        Ok(())
    }
}

//! The four codecs of Kafka's record batches, each with a limit during decompression.

use crate::batch::error::BatchError;
use crate::limits::{BATCH_INFLATED_BYTES_MAX, INFLATE_FREE_BYTES, INFLATE_RATIO_USUAL};
use serde::{Deserialize, Serialize};
use std::io::{self, Read, Write};
use std::str::FromStr;

/// Compression of a batch's records. The numbers are Kafka's attribute bits 0 to 2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Codec {
    /// No compression.
    #[default]
    None = 0,
    /// RFC 1952.
    Gzip = 1,
    /// Raw blocks, or xerial's frames.
    Snappy = 2,
    /// LZ4 frames.
    Lz4 = 3,
    /// RFC 8878.
    Zstd = 4,
}

impl Codec {
    /// All codecs, by number.
    pub const ALL: [Codec; 5] = [Self::None, Self::Gzip, Self::Snappy, Self::Lz4, Self::Zstd];

    /// Returns the codec in the low three bits of a batch's attributes.
    pub fn from_attributes(attributes: i16) -> Result<Self, BatchError> {
        let bits = (attributes & 7) as u8;
        Self::ALL
            .get(usize::from(bits))
            .copied()
            .ok_or(BatchError::Codec(bits))
    }

    /// Returns the codec's name in configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }
}

impl FromStr for Codec {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|c| c.name() == s)
            .ok_or_else(|| format!("`{s}` is no codec: use none, gzip, snappy, lz4 or zstd"))
    }
}

/// Returns the usual limit on the inflated size of `have` compressed bytes.
pub(crate) fn usual_bytes_max(have: usize) -> usize {
    have.saturating_mul(INFLATE_RATIO_USUAL)
        .clamp(INFLATE_FREE_BYTES, BATCH_INFLATED_BYTES_MAX)
}

/// Compresses `data`.
pub(crate) fn deflate(codec: Codec, data: &[u8]) -> io::Result<Vec<u8>> {
    match codec {
        Codec::None => Ok(data.to_vec()),
        Codec::Gzip => {
            let mut w = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            w.write_all(data)?;
            w.finish()
        }
        Codec::Snappy => xerial_encode(data),
        Codec::Lz4 => {
            let mut w = lz4_flex::frame::FrameEncoder::new(Vec::new());
            w.write_all(data)?;
            w.finish().map_err(io::Error::other)
        }
        // Level 3 is zstd's own default and Kafka's.
        Codec::Zstd => zstd::bulk::compress(data, 3),
    }
}

/// Decompresses `data`, up to `limit` bytes.
pub(crate) fn inflate(codec: Codec, data: &[u8], limit: usize) -> Result<Vec<u8>, BatchError> {
    let fail = |e: io::Error| BatchError::Inflate {
        codec: codec.name(),
        why: e.to_string(),
    };
    match codec {
        Codec::None => Ok(data.to_vec()),
        Codec::Gzip => read_capped(flate2::read::GzDecoder::new(data), data.len(), limit, fail),
        Codec::Snappy => snappy_decode(data, limit),
        Codec::Lz4 => read_capped(lz4_flex::frame::FrameDecoder::new(data), data.len(), limit, fail),
        Codec::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(data).map_err(fail)?;
            // A window larger than the result serves only to make us allocate.
            decoder.window_log_max(24).map_err(fail)?;
            read_capped(decoder, data.len(), limit, fail)
        }
    }
}

fn read_capped(
    from: impl Read,
    have: usize,
    limit: usize,
    fail: impl Fn(io::Error) -> BatchError,
) -> Result<Vec<u8>, BatchError> {
    let mut out = Vec::new();
    from.take(limit as u64 + 1).read_to_end(&mut out).map_err(fail)?;
    if out.len() > limit {
        Err(BatchError::Bomb { have, limit })
    } else {
        Ok(out)
    }
}

/// The framing that Kafka's Java client puts around Snappy blocks (xerial's snappy-java,
/// `SnappyOutputStream`).
const XERIAL_MAGIC: &[u8] = b"\x82SNAPPY\0";
const XERIAL_BLOCK_BYTES: usize = 32 << 10;

fn xerial_encode(data: &[u8]) -> io::Result<Vec<u8>> {
    let mut out = XERIAL_MAGIC.to_vec();
    out.extend_from_slice(&1u32.to_be_bytes());
    out.extend_from_slice(&1u32.to_be_bytes());
    for block in data.chunks(XERIAL_BLOCK_BYTES) {
        let packed = snap::raw::Encoder::new()
            .compress_vec(block)
            .map_err(io::Error::other)?;
        out.extend_from_slice(&(packed.len() as u32).to_be_bytes());
        out.extend_from_slice(&packed);
    }
    Ok(out)
}

/// Decodes both forms on the wire: xerial's frames (Java) and a raw block (librdkafka).
fn snappy_decode(data: &[u8], limit: usize) -> Result<Vec<u8>, BatchError> {
    let bad = |why: &str| BatchError::Inflate {
        codec: "snappy",
        why: why.to_owned(),
    };
    let Some(mut rest) = data.strip_prefix(XERIAL_MAGIC) else {
        let mut out = Vec::new();
        snappy_block(data, data.len(), limit, &mut out)?;
        return Ok(out);
    };
    rest = rest.get(8..).ok_or_else(|| bad("frame header is cut short"))?;
    let mut out = Vec::new();
    while !rest.is_empty() {
        let (len, after) = rest
            .split_first_chunk::<4>()
            .ok_or_else(|| bad("block length is cut short"))?;
        let len = u32::from_be_bytes(*len) as usize;
        let (block, after) = after
            .split_at_checked(len)
            .ok_or_else(|| bad("block is cut short"))?;
        snappy_block(block, data.len(), limit, &mut out)?;
        rest = after;
    }
    Ok(out)
}

fn snappy_block(block: &[u8], have: usize, limit: usize, out: &mut Vec<u8>) -> Result<(), BatchError> {
    let fail = |e: snap::Error| BatchError::Inflate {
        codec: "snappy",
        why: e.to_string(),
    };
    let len = snap::raw::decompress_len(block).map_err(fail)?;
    let start = out.len();
    if len > limit - start {
        return Err(BatchError::Bomb { have, limit });
    }
    out.resize(start + len, 0);
    let room = out.get_mut(start..).unwrap_or_default();
    snap::raw::Decoder::new().decompress(block, room).map_err(fail)?;
    Ok(())
}

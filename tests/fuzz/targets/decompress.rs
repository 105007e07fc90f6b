#![no_main]

#[path = "peak.rs"]
mod peak;

use bytes::Bytes;
use weir_types::Batch;

// The first byte selects the codec; the rest is the compressed part of an otherwise whole batch. A bomb is
// refused: the output may have 64 times the size of the input, or a MiB.
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((&choice, packed)) = data.split_first() else { return };
    let mut bytes = vec![0; 61];
    bytes[8..12].copy_from_slice(&((61 - 12 + packed.len()) as i32).to_be_bytes());
    bytes[16] = 2;
    bytes[22] = 1 + choice % 4;
    // A single record: the reader stops there.
    bytes[57..61].copy_from_slice(&1i32.to_be_bytes());
    bytes.extend_from_slice(packed);
    let crc = crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    let batch = Batch::parse(Bytes::from(bytes)).expect("a whole frame");
    let (body, held) = peak::peak(|| batch.body());
    let allowed = (64 * packed.len()).max(1 << 20).min(16 << 20);
    if let Ok(body) = &body {
        assert!(body.bytes().len() <= allowed, "{} bytes of {}", body.bytes().len(), packed.len());
        let _ = body.records().count();
    }
    // Buffers double as they grow, and a codec has its window.
    assert!(held <= 3 * allowed + (16 << 20), "{held} bytes held for {}", packed.len());
});

/// CRC32C bit by bit.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| crc >> 1 ^ (0x82f6_3b78 & (crc & 1).wrapping_neg()))
    })
}

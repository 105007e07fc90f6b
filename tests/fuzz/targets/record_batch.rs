#![no_main]

use bytes::Bytes;
use weir_types::{Batch, BatchBuilder, Codec};

// The first byte selects a codec and whether the frame is made whole, so that the records behind the frame
// are reached.
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((&choice, rest)) = data.split_first() else { return };
    let mut bytes = rest.to_vec();
    if choice & 1 == 1 && bytes.len() > 61 {
        let length = (bytes.len() - 12) as i32;
        bytes[8..12].copy_from_slice(&length.to_be_bytes());
        bytes[16] = 2;
        bytes[22] = bytes[22] & !7 | (choice >> 1) % 5;
        let crc = crc(&bytes[21..]);
        bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    }
    let Ok(batch) = Batch::parse(Bytes::from(bytes)) else { return };
    let Ok(body) = batch.body() else { return };
    assert!(body.bytes().len() <= 16 << 20);
    let Ok(records) = body.records().collect::<Result<Vec<_>, _>>() else { return };
    let mut builder = BatchBuilder::new(Codec::None);
    if builder.push_batch(&batch).is_err() {
        return;
    }
    let Ok(again) = builder.build(batch.base_offset(), batch.producer()) else { return };
    let body = again.body().unwrap();
    let read: Vec<_> = body.records().map(Result::unwrap).collect();
    assert_eq!(read.len(), records.len());
    for (a, b) in read.iter().zip(&records) {
        assert_eq!((a.offset, a.timestamp, a.key, a.value), (b.offset, b.timestamp, b.key, b.value));
        assert!(a.headers.iter().eq(b.headers.iter()));
    }
});

/// Computes CRC32C bit by bit: another implementation than the code under test.
fn crc(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| crc >> 1 ^ (0x82f6_3b78 & (crc & 1).wrapping_neg()))
    })
}

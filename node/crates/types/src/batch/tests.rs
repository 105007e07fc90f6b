//! Golden bytes, properties and damage. Agreement with an independent implementation is tested in `tests/it`.

use super::*;
use crate::{Columns, Record, Wanted};
use proptest::prelude::*;

fn record() -> impl Strategy<Value = Record> {
    let bytes =
        |max| proptest::option::of(proptest::collection::vec(any::<u8>(), 0..max).prop_map(Bytes::from));
    let header = ("[a-z]{0,6}", bytes(20));
    (
        bytes(24),
        bytes(200),
        0i64..4_000_000_000_000,
        proptest::collection::vec(header, 0..4),
    )
        .prop_map(|(key, value, timestamp, headers)| Record {
            key,
            value,
            timestamp,
            headers,
        })
}

fn records() -> impl Strategy<Value = Vec<Record>> {
    proptest::collection::vec(record(), 1..60)
}

fn codec() -> impl Strategy<Value = Codec> {
    proptest::sample::select(Codec::ALL.to_vec())
}

fn build(records: &[Record], codec: Codec, base: u64, producer: Option<Producer>) -> Batch {
    let mut builder = BatchBuilder::new(codec);
    records.iter().for_each(|r| builder.push_record(r));
    builder.build(Offset::new(base), producer).unwrap()
}

fn read(batch: &Batch) -> Vec<Record> {
    batch
        .body()
        .unwrap()
        .records()
        .map(|r| r.unwrap().to_record())
        .collect()
}

#[test]
fn golden_bytes_of_one_record() {
    let record = Record {
        key: Some(Bytes::from_static(b"k")),
        value: Some(Bytes::from_static(b"v")),
        timestamp: 1_000,
        headers: vec![("h".to_owned(), None)],
    };
    let batch = build(
        &[record],
        Codec::None,
        5,
        Some(Producer {
            id: 7,
            epoch: 1,
            sequence: 9,
        }),
    );
    let hex: String = batch.bytes().iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(
        hex,
        concat!(
            "0000000000000005",
            "0000003d",
            "00000000",
            "02",
            "CRC",
            "0000",
            "00000000",
            "00000000000003e8",
            "00000000000003e8",
            "0000000000000007",
            "0001",
            "00000009",
            "00000001",
            "16",
            "00",
            "00",
            "00",
            "02",
            "6b",
            "02",
            "76",
            "02",
            "02",
            "68",
            "01"
        )
        .replace("CRC", &format!("{:08x}", batch.crc()))
    );
}

proptest! {
    #[test]
    fn what_was_written_is_read(records in records(), codec in codec(), base in 0u64..1 << 40) {
        let batch = build(&records, codec, base, None);
        prop_assert_eq!(batch.base_offset().get(), base);
        prop_assert_eq!(batch.end_offset().get(), base + records.len() as u64);
        prop_assert_eq!(read(&batch), records);
    }

    #[test]
    fn moving_a_batch_changes_only_offsets(records in records(), base in 0u64..1 << 40) {
        let batch = build(&records, Codec::None, 0, None).at(Offset::new(base));
        let again = Batch::parse(batch.bytes().clone()).unwrap();
        prop_assert_eq!(again.base_offset().get(), base);
        prop_assert_eq!(read(&again), records);
    }

    #[test]
    fn a_sparse_batch_keeps_its_frame(records in records(), codec in codec(), mask in any::<u64>()) {
        let producer = Producer { id: 3, epoch: 0, sequence: 12 };
        let batch = build(&records, codec, 100, Some(producer));
        let body = batch.body().unwrap();
        let columns = Columns::read(&body, batch.count(), Wanted::default()).unwrap();
        let keep: Vec<bool> = (0..records.len()).map(|i| mask >> (i % 64) & 1 == 1).collect();
        let sparse = batch.sparse(&columns.spans, &body, &keep).unwrap();
        prop_assert_eq!(sparse.end_offset(), batch.end_offset());
        prop_assert_eq!(sparse.producer(), Some(producer));
        let left: Vec<(u64, Record)> = sparse.body().unwrap().records()
            .map(|r| { let r = r.unwrap(); (r.offset.get(), r.to_record()) }).collect();
        let want: Vec<(u64, Record)> = records.into_iter().enumerate()
            .filter(|(i, _)| keep[*i]).map(|(i, r)| (100 + i as u64, r)).collect();
        prop_assert_eq!(left, want);
    }

    #[test]
    fn one_flipped_bit_is_refused_or_outside_the_checksum(records in records(), at in any::<prop::sample::Index>(), bit in 0u8..8) {
        let batch = build(&records, Codec::None, 1, None);
        let mut bytes = batch.bytes().to_vec();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        // The broker sets base offset and leader epoch, which are outside of the checksum.
        let outside = at < 8 || (12..16).contains(&at);
        prop_assert_eq!(Batch::parse(Bytes::from(bytes)).is_ok(), outside);
    }

    #[test]
    fn arbitrary_bytes_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..300), fix in any::<bool>()) {
        if fix && bytes.len() > HEADER_BYTES {
            // Repair the frame, so that the records are reached.
            let length = (bytes.len() - LENGTH_PREFIX_BYTES) as i32;
            bytes[8..12].copy_from_slice(&length.to_be_bytes());
            bytes[16] = 2;
            let crc = crc32c::crc32c(&bytes[CRC_FROM..]);
            bytes[17..21].copy_from_slice(&crc.to_be_bytes());
        }
        if let Ok(batch) = Batch::parse(Bytes::from(bytes))
            && let Ok(body) = batch.body()
        {
            let _ = body.records().count();
        }
    }
}

#[test]
fn a_count_beyond_the_bytes_is_refused_before_anything_is_reserved() {
    let batch = build(&[Record::default()], Codec::None, 0, None);
    for count in [-1, 2, i32::MAX] {
        let mut bytes = batch.bytes().to_vec();
        bytes[57..61].copy_from_slice(&count.to_be_bytes());
        let crc = crc32c::crc32c(&bytes[CRC_FROM..]);
        bytes[17..21].copy_from_slice(&crc.to_be_bytes());
        assert!(matches!(
            Batch::parse(Bytes::from(bytes)),
            Err(BatchError::Count(_) | BatchError::Delta { .. })
        ));
    }
}

#[test]
fn a_bomb_is_stopped_while_it_inflates() {
    for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        let packed = codec::deflate(codec, &vec![0; 64 << 20]).unwrap();
        let result = codec::inflate(codec, &packed, BATCH_INFLATED_BYTES_MAX);
        assert!(
            matches!(result, Err(BatchError::Bomb { .. })),
            "{codec:?}: {:?}",
            result.map(|r| r.len())
        );
    }
}

#[test]
fn raw_snappy_blocks_are_taken_as_librdkafka_sends_them() {
    let data = b"one two three one two three".repeat(10);
    let raw = snap::raw::Encoder::new().compress_vec(&data).unwrap();
    assert_eq!(codec::inflate(Codec::Snappy, &raw, data.len()).unwrap(), data);
}

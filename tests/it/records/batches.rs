//! Record batches against an independent implementation: `kafka-protocol`, which the code under test never
//! uses.

use bytes::{Bytes, BytesMut};
use kafka_protocol::indexmap::IndexMap;
use kafka_protocol::protocol::StrBytes;
use kafka_protocol::records::{
    Compression, Record as TheirRecord, RecordBatchDecoder, RecordBatchEncoder, RecordEncodeOptions,
    TimestampType,
};
use proptest::prelude::*;
use weir_types::{Batch, BatchBuilder, Codec, Offset, Producer, Record};

fn record() -> impl Strategy<Value = Record> {
    let bytes =
        |max| proptest::option::of(proptest::collection::vec(any::<u8>(), 0..max).prop_map(Bytes::from));
    // The other implementation keeps headers in a map, so names differ here; weir-types tests repeated names.
    let headers = proptest::collection::btree_map("[a-z]{1,6}", bytes(20), 0..4);
    (bytes(24), bytes(300), 0i64..4_000_000_000_000, headers).prop_map(|(key, value, timestamp, headers)| {
        Record {
            key,
            value,
            timestamp,
            headers: headers.into_iter().collect(),
        }
    })
}

fn compression(codec: Codec) -> Compression {
    match codec {
        Codec::None => Compression::None,
        Codec::Gzip => Compression::Gzip,
        Codec::Snappy => Compression::Snappy,
        Codec::Lz4 => Compression::Lz4,
        Codec::Zstd => Compression::Zstd,
    }
}

fn theirs(record: &Record, offset: i64, sequence: i32) -> TheirRecord {
    let header =
        |(name, value): &(String, Option<Bytes>)| (StrBytes::from_string(name.clone()), value.clone());
    TheirRecord {
        transactional: false,
        control: false,
        delete_horizon: false,
        partition_leader_epoch: 0,
        producer_id: 9,
        producer_epoch: 1,
        timestamp_type: TimestampType::Creation,
        offset,
        sequence,
        timestamp: record.timestamp,
        key: record.key.clone(),
        value: record.value.clone(),
        headers: record.headers.iter().map(header).collect::<IndexMap<_, _>>(),
    }
}

fn codec() -> impl Strategy<Value = Codec> {
    proptest::sample::select(Codec::ALL.to_vec())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn other_implementation_reads_our_batches(records in proptest::collection::vec(record(), 1..40), codec in codec(), base in 0i64..1 << 40) {
        let mut builder = BatchBuilder::new(codec);
        records.iter().for_each(|r| builder.push_record(r));
        let producer = Producer { id: 9, epoch: 1, sequence: 5 };
        let batch = builder.build(Offset::new(base as u64), Some(producer)).unwrap();
        let mut bytes = batch.into_bytes();
        let set = RecordBatchDecoder::decode(&mut bytes).unwrap();
        let want: Vec<TheirRecord> =
            records.iter().enumerate().map(|(i, r)| theirs(r, base + i as i64, 5 + i as i32)).collect();
        prop_assert_eq!(set.records, want);
    }

    #[test]
    fn batches_of_other_implementation_are_read(records in proptest::collection::vec(record(), 1..40), codec in codec(), base in 0i64..1 << 40) {
        let all: Vec<TheirRecord> =
            records.iter().enumerate().map(|(i, r)| theirs(r, base + i as i64, 5 + i as i32)).collect();
        let mut bytes = BytesMut::new();
        let options = RecordEncodeOptions { version: 2, compression: compression(codec) };
        RecordBatchEncoder::encode(&mut bytes, &all, &options).unwrap();
        let batch = Batch::parse(bytes.freeze()).unwrap();
        prop_assert_eq!(batch.base_offset().get(), base as u64);
        prop_assert_eq!(batch.producer(), Some(Producer { id: 9, epoch: 1, sequence: 5 }));
        let read: Vec<Record> = batch.body().unwrap().records().map(|r| r.unwrap().to_record()).collect();
        prop_assert_eq!(read, records);
    }
}

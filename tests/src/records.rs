//! Records in and out of a node: batches to send, and all that a topic has.

use crate::DEADLINE;
use anyhow::Result;
use std::time::{Duration, Instant};
use weir_checkers::Seen;
use weir_client::{Client, Offset, Piece, Record};
use weir_types::{Batch, BatchBuilder, Codec, Headers};

/// All records of a partition with their offsets, and the gaps.
///
/// # Errors
/// When reading fails.
pub async fn read_all(
    client: &Client,
    topic: &str,
    partition: u32,
    max_bytes: u32,
) -> Result<(Vec<(u64, Record)>, Vec<weir_client::Gap>)> {
    let mut fetcher = client.fetcher().await?;
    let (mut from, mut records, mut gaps) = (Offset::ZERO, Vec::new(), Vec::new());
    loop {
        let fetched = fetcher
            .fetch(topic, partition, from, max_bytes, Duration::ZERO)
            .await?;
        for piece in fetched.pieces {
            match piece {
                Piece::Gap(gap) => gaps.push(gap),
                Piece::Batch(batch) => {
                    for record in batch.body()?.records() {
                        let record = record?;
                        if record.offset >= from {
                            records.push((record.offset.get(), record.to_record()));
                        }
                    }
                }
            }
        }
        if fetched.next >= fetched.committed_end {
            return Ok((records, gaps));
        }
        from = fetched.next;
    }
}

/// Settings of a topic whose records have no real timestamps: none of them is old.
pub fn for_ever() -> [(String, String); 1] {
    [("retention.ms".to_owned(), "-1".to_owned())]
}

/// All that a topic has.
pub async fn stored(client: &Client, topic: &str) -> Vec<Seen> {
    let (records, gaps) = read_all(client, topic, 0, 1 << 20).await.unwrap();
    assert!(gaps.is_empty(), "{gaps:?}");
    let seen = |(offset, record): (u64, weir_types::Record)| {
        let value = String::from_utf8(record.value.unwrap().to_vec()).unwrap();
        let value = value.split(':').next().unwrap().parse().unwrap();
        Seen { offset, value }
    };
    records.into_iter().map(seen).collect()
}

/// A batch of these values.
pub fn batch(codec: Codec, values: impl IntoIterator<Item = Vec<u8>>) -> Batch {
    let mut builder = BatchBuilder::new(codec);
    for value in values {
        builder.push(0, None, Some(&value), Headers::NONE);
    }
    builder.build(Offset::ZERO, None).unwrap()
}

/// Sends a batch, and waits for its acknowledgement.
pub async fn send(client: &Client, topic: &str, batch: &Batch) -> Result<(), String> {
    let mut producer = client.producer().await.map_err(|e| e.to_string())?;
    let sent = producer.send(topic, 0, batch).await.map_err(|e| e.to_string())?;
    let done = tokio::time::timeout(DEADLINE, sent.done()).await;
    done.map_err(|e| e.to_string())?
        .map(drop)
        .map_err(|e| e.to_string())
}

/// Takes a record within five seconds, however often that has to be asked: a leader may change.
pub async fn still_serves(client: &Client, topic: &str) {
    let begun = Instant::now();
    loop {
        match send(client, topic, &batch(Codec::None, [b"still here".to_vec()])).await {
            Ok(()) => return,
            Err(why) => assert!(begun.elapsed() < Duration::from_secs(5), "nobody serves: {why}"),
        }
    }
}

/// Returns the timestamp and the text of each record in partition 0 of `topic`.
///
/// # Panics
/// When a record cannot be read or is not UTF-8.
pub async fn texts(client: &Client, topic: &str) -> Vec<(i64, String)> {
    let (records, _) = read_all(client, topic, 0, 1 << 20).await.unwrap();
    let text = |(_, record): (u64, Record)| {
        let value = String::from_utf8(record.value.unwrap().to_vec()).unwrap();
        (record.timestamp, value)
    };
    records.into_iter().map(text).collect()
}

/// Builds a batch of texts.
pub fn text_batch(values: &[&str]) -> Batch {
    batch(Codec::None, values.iter().map(|value| value.as_bytes().to_vec()))
}

/// Sends texts to partition 0 of topic `t`, and waits for the acknowledgement.
///
/// # Panics
/// When the node refuses the records.
pub async fn send_texts(client: &Client, values: &[&str]) {
    send(client, "t", &text_batch(values)).await.unwrap();
}

//! What was tried on a node by those who wished it ill, or by people who meant no harm: one file for each finding, named for
//! what it defends.

mod a_label_stands_for_its_bytes;
mod a_row_that_cannot_be_read_is_told_of;
mod an_entry_is_bounded;
mod an_old_directory_is_no_node;
mod an_upload_stops_nothing;
mod clients_do_not_keep_nodes_apart;
mod files_are_ours_alone;
mod http_is_bounded_and_asked_by_nobodys_page;
mod nobody_takes_more_than_his_share;
mod producers_are_their_owners;
mod signals_and_pipes_end_in_order;
mod what_becomes_much_is_paid_for;
mod what_can_be_read_comes_back;
mod what_is_gone_is_told;
mod what_the_system_refuses_is_no_damage;

use std::time::{Duration, Instant};
use weir_client::Client;
use weir_tests::DEADLINE;
use weir_types::{Batch, BatchBuilder, Codec, Headers, Offset};

/// A batch of these values.
fn batch(codec: Codec, values: impl IntoIterator<Item = Vec<u8>>) -> Batch {
    let mut builder = BatchBuilder::new(codec);
    for value in values {
        builder.push(0, None, Some(&value), Headers::NONE);
    }
    builder.build(Offset::ZERO, None).unwrap()
}

/// Sends a batch, and waits for what becomes of it.
async fn send(client: &Client, topic: &str, batch: &Batch) -> Result<(), String> {
    let mut producer = client.producer().await.map_err(|e| e.to_string())?;
    let sent = producer.send(topic, 0, batch).await.map_err(|e| e.to_string())?;
    let done = tokio::time::timeout(DEADLINE, sent.done()).await;
    done.map_err(|e| e.to_string())?
        .map(drop)
        .map_err(|e| e.to_string())
}

/// Takes a record within five seconds, however often that has to be asked: a leader may change.
async fn still_serves(client: &Client, topic: &str) {
    let begun = Instant::now();
    loop {
        match send(client, topic, &batch(Codec::None, [b"still here".to_vec()])).await {
            Ok(()) => return,
            Err(why) => assert!(begun.elapsed() < Duration::from_secs(5), "nobody serves: {why}"),
        }
    }
}

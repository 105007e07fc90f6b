//! Input that is small on the wire and becomes much in the node takes room there first: batches that inflate
//! ten thousand-fold, and requests that are too large and are read past.

use super::memory_is_bounded_per_address::{ATTACKER, framed, withstands, write_all_there_is_room_for};
use std::io::Write;
use std::net::TcpStream;
use weir_tests::Node;
use weir_tests::kafka::{connect_from, request};
use weir_tests::records::batch;
use weir_types::Codec;

/// Produce 3 of `records` to `large`/0, acknowledged by the leader.
fn produce(records: &[u8]) -> Vec<u8> {
    let mut body = vec![0xff, 0xff, 0, 1];
    body.extend(10_000i32.to_be_bytes());
    body.extend([0, 0, 0, 1, 0, 5]);
    body.extend(b"large");
    body.extend([0, 0, 0, 1, 0, 0, 0, 0]);
    body.extend((records.len() as i32).to_be_bytes());
    body.extend(records);
    framed(&request(0, 3, false, &body))
}

async fn connections(node: &Node, sent: &[u8], times: usize) -> Vec<TcpStream> {
    let mut held = Vec::new();
    for _ in 0..8 {
        let mut stream = connect_from(ATTACKER, node.kafka).await.unwrap();
        for _ in 0..times {
            write_all_there_is_room_for(&mut stream, sent);
        }
        held.push(stream);
    }
    held
}

#[test]
fn withstands_batches_that_inflate_ten_thousand_fold() {
    for codec in [Codec::Gzip, Codec::Zstd] {
        // The first batch is accepted; the second inflates beyond the limit of a batch.
        let sent: Vec<u8> = [15, 40]
            .iter()
            .flat_map(|mib| produce(batch(codec, (0..*mib).map(|_| vec![0; 1 << 20])).bytes()))
            .collect();
        let name = format!("8 times 20 batches of {codec:?} that become 15 and 40 MiB");
        withstands(&name, &[], async |node| connections(node, &sent, 20).await);
    }
}

#[test]
fn withstands_oversized_requests_behind_a_poll() {
    // A thousand names of 249 bytes, and no records; the length says 20 MiB, and the rest is nothing.
    let mut body = vec![0xff, 0xff, 0, 1];
    body.extend(10_000i32.to_be_bytes());
    body.extend(990i32.to_be_bytes());
    for _ in 0..990 {
        body.extend(249u16.to_be_bytes());
        body.extend([b'n'; 249]);
        body.extend([0; 4]);
    }
    let head = request(0, 3, false, &body);
    let length: usize = 17 << 20;
    withstands(
        "8 times 6 requests of 17 MiB that are read past",
        &[],
        async |node| {
            let mut held = Vec::new();
            for _ in 0..8 {
                let mut stream = connect_from(ATTACKER, node.kafka).await.unwrap();
                for _ in 0..6 {
                    let sent = stream.write_all(&(length as u32).to_be_bytes());
                    let sent = sent.and_then(|()| stream.write_all(&head));
                    // Whoever is out of his share is cut off.
                    if sent
                        .and_then(|()| stream.write_all(&vec![0; length - head.len()]))
                        .is_err()
                    {
                        break;
                    }
                }
                held.push(stream);
            }
            held
        },
    );
}

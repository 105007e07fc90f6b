//! Producer ids are given out by the node, belong to the account of an address, and are evicted from the
//! account that makes many.

use std::io::{Read, Write};
use std::net::TcpStream;
use weir_tests::kafka::{ask, connect_from, request};
use weir_tests::records::{batch, send};
use weir_tests::{DEADLINE, Node, block_on, for_ever};
use weir_types::limits::PRODUCERS_PER_ACCOUNT_MAX;
use weir_types::{Batch, BatchBuilder, Codec, Headers, Offset, Producer};

const HONEST: [u8; 4] = [127, 0, 0, 1];
const ATTACKER: [u8; 4] = [127, 0, 0, 2];
/// Kafka's errors.
const NONE: i16 = 0;
const UNKNOWN_PRODUCER_ID: i16 = 59;
/// Retryable: the owner may be silent by then.
const REQUEST_TIMED_OUT: i16 = 7;

fn numbered(id: i64, epoch: i16, sequence: i32) -> Batch {
    let mut builder = BatchBuilder::new(Codec::None);
    builder.push(0, None, Some(b"a record"), Headers::NONE);
    let producer = Producer { id, epoch, sequence };
    builder.build(Offset::ZERO, Some(producer)).unwrap()
}

/// Builds Produce 3 of a batch to `t`/0.
fn produce(batch: &Batch) -> Vec<u8> {
    let mut body = vec![0xff, 0xff, 0xff, 0xff];
    body.extend(30_000i32.to_be_bytes());
    body.extend([0, 0, 0, 1, 0, 1, b't', 0, 0, 0, 1, 0, 0, 0, 0]);
    body.extend((batch.bytes().len() as i32).to_be_bytes());
    body.extend_from_slice(batch.bytes());
    request(0, 3, false, &body)
}

/// Error and first offset of an answer to that.
fn produced(answer: &[u8]) -> (i16, i64) {
    let error = i16::from_be_bytes(answer[19..21].try_into().unwrap());
    (error, i64::from_be_bytes(answer[21..29].try_into().unwrap()))
}

fn new_producer(stream: &mut TcpStream) -> i64 {
    let answer = ask(stream, &request(22, 0, false, &[0xff, 0xff, 0, 0, 0, 0])).unwrap();
    i64::from_be_bytes(answer[10..18].try_into().unwrap())
}

fn answer(stream: &mut TcpStream) -> Vec<u8> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).unwrap();
    let mut answer = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut answer).unwrap();
    answer
}

#[test]
fn producer_ids_are_issued_and_windows_owned() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), &[]).unwrap();
    let connect = |from| {
        let stream = block_on(connect_from(from, node.kafka)).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream
    };
    block_on(async {
        let client = node.client().await.unwrap();
        client.create_topic("t", 1, &for_ever()).await.unwrap();
        send(&client, "t", &batch(Codec::None, [b"first".to_vec()]))
            .await
            .unwrap();
    });
    let (mut honest, mut attacker) = (connect(HONEST), connect(ATTACKER));
    let id = new_producer(&mut honest);
    let sent = |stream: &mut TcpStream, batch: &Batch| produced(&ask(stream, &produce(batch)).unwrap());
    assert_eq!(sent(&mut honest, &numbered(id, 0, 0)), (NONE, 1));

    // Numbers that nobody was given.
    for invented in [id + 1_000_000, i64::MAX >> 1, 0] {
        let (error, _) = sent(&mut attacker, &numbered(invented, 0, 0));
        assert_ne!(error, NONE, "{invented} was taken");
    }
    // Somebody's number: neither fenced, nor gone on for, nor found out about.
    assert_eq!(sent(&mut attacker, &numbered(id, 1, 0)).0, REQUEST_TIMED_OUT);
    assert_eq!(sent(&mut attacker, &numbered(id, 0, 1)).0, REQUEST_TIMED_OUT);
    assert_eq!(sent(&mut attacker, &numbered(id, 0, 0)).0, REQUEST_TIMED_OUT);
    assert_eq!(sent(&mut honest, &numbered(id, 0, 1)), (NONE, 2));
    // The owner may begin a new epoch.
    assert_eq!(sent(&mut honest, &numbered(id, 1, 0)), (NONE, 3));

    // More ids than an account may have, all of them given out.
    let mut ids = Vec::new();
    while ids.len() < PRODUCERS_PER_ACCOUNT_MAX + 200 {
        ids.push(new_producer(&mut attacker));
    }
    for some in ids.chunks(50) {
        for id in some {
            let bytes = produce(&numbered(*id, 0, 0));
            attacker.write_all(&(bytes.len() as u32).to_be_bytes()).unwrap();
            attacker.write_all(&bytes).unwrap();
        }
        for id in some {
            assert_eq!(produced(&answer(&mut attacker)).0, NONE, "{id}");
        }
    }
    // His first are forgotten, his last are not, and nobody else is.
    let after = |id: i64| numbered(id, 0, 1);
    assert_eq!(sent(&mut attacker, &after(ids[0])).0, UNKNOWN_PRODUCER_ID);
    assert_eq!(sent(&mut attacker, &after(ids[ids.len() - 1])).0, NONE);
    assert_eq!(sent(&mut honest, &numbered(id, 1, 0)), (NONE, 3), "it is a retry");
    assert_eq!(sent(&mut honest, &numbered(id, 1, 1)).0, NONE);
}

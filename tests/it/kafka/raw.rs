//! Requests by hand: requests that no client library sends, and requests that cost others.

use super::{QUICK, config, create};
use rdkafka::producer::{FutureProducer, FutureRecord};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};
use weir_tests::kafka::{ask, connect_from, request};
use weir_tests::{DEADLINE, Node, block_on};

fn connect(node: &Node) -> TcpStream {
    let stream = TcpStream::connect(node.kafka).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream
}

/// Sends three megabytes to a topic of its own, which takes room to be received.
fn produce_large(node: &Node) {
    block_on(async {
        create(node, "beside", 1, &[]).await;
        let producer: FutureProducer = config(node).set("message.max.bytes", "4000000").create().unwrap();
        let value = vec![7u8; 3_000_000];
        let record = FutureRecord::<(), _>::to("beside").payload(&value);
        producer.send(record, DEADLINE).await.unwrap();
    });
}

/// The body of Fetch 4 for `t`/0 from offset 0 on: waits `wait_ms` for a million bytes.
fn long_poll(wait_ms: i32) -> Vec<u8> {
    let mut body = Vec::new();
    for field in [-1i32, wait_ms, 1_000_000, 2_000_000] {
        body.extend(field.to_be_bytes());
    }
    body.extend([0, 0, 0, 0, 1, 0, 1, b't', 0, 0, 0, 1]);
    body.extend([0; 12]);
    body.extend(1_000_000i32.to_be_bytes());
    body
}

#[test]
fn large_requests_behind_long_polls_block_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), &[QUICK]).unwrap();
    block_on(create(&node, "t", 1, &[]));
    let begun = Instant::now();
    // Each has a request that waits for its turn; together they are more than may be received at once.
    let waiting: Vec<_> = (0..10)
        .map(|_| {
            let mut stream = connect(&node);
            let poll = request(1, 4, false, &long_poll(30_000));
            let large = request(3, 1, false, &vec![0; (16 << 20) - 64]);
            for bytes in [poll, large] {
                stream.write_all(&(bytes.len() as u32).to_be_bytes()).unwrap();
                // Refused or accepted, the requests must be in nobody's way.
                let _ = stream.write_all(&bytes);
            }
            stream
        })
        .collect();
    produce_large(&node);
    assert!(
        begun.elapsed() < Duration::from_secs(10),
        "it took {:?}",
        begun.elapsed()
    );
    drop(waiting);
}

#[test]
fn waiting_fetch_is_counted_once() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), &[QUICK]).unwrap();
    block_on(async {
        create(&node, "t", 1, &[]).await;
        let producer: FutureProducer = config(&node).create().unwrap();
        let record = FutureRecord::<(), _>::to("t").payload("a record");
        producer.send(record, DEADLINE).await.unwrap();
    });
    // Fetch 4: 400 ms for a million bytes, of which a few exist. The node looks several times meanwhile.
    let answer = ask(&mut connect(&node), &request(1, 4, false, &long_poll(400))).unwrap();
    assert!(answer.windows(8).any(|w| w == b"a record"));
    let mut http = TcpStream::connect(node.http).unwrap();
    http.write_all(b"GET /metrics HTTP/1.0\r\nhost: localhost\r\n\r\n")
        .unwrap();
    let mut metrics = String::new();
    http.read_to_string(&mut metrics).unwrap();
    let out = metrics
        .lines()
        .find(|l| l.starts_with("weir_records_out_total "))
        .unwrap();
    assert_eq!(out, "weir_records_out_total 1", "{metrics}");
}

#[test]
fn unserved_requests_are_refused_at_little_cost() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), &[QUICK]).unwrap();
    // A future version of ApiVersions: answered in the oldest form (KIP-511).
    let mut stream = connect(&node);
    let answer = ask(&mut stream, &request(18, 99, true, &[1, 1, 0])).unwrap();
    assert_eq!(&answer[..6], [0, 0, 0, 7, 0, 35]);
    let keys = i32::from_be_bytes(answer[6..10].try_into().unwrap());
    assert!(keys >= 28 && answer.len() == 10 + keys as usize * 6, "{keys}");
    // The same connection then goes on.
    let answer = ask(&mut stream, &request(18, 3, true, &[1, 1, 0])).unwrap();
    assert_eq!(&answer[..6], [0, 0, 0, 7, 0, 0]);

    let before = node.rss_mib().unwrap();
    let closed = [
        ("an unknown request", request(999, 0, false, &[])),
        ("a version from the future", request(3, 99, true, &[])),
        (
            "2^31 topics in four bytes",
            request(3, 1, false, &[0x7f, 0xff, 0xff, 0xff]),
        ),
        (
            "2^31 topics, produced",
            request(
                0,
                3,
                false,
                &[0xff, 0xff, 0, 1, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff],
            ),
        ),
        (
            "2^32 topics, compact",
            request(3, 12, true, &[0xff, 0xff, 0xff, 0xff, 0x0f]),
        ),
        ("no UTF-8", request(3, 1, false, &[0, 0, 0, 1, 0, 1, 0xff])),
        (
            "records for nowhere without wanting an answer",
            request(
                0,
                3,
                false,
                &[
                    0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1, b'x', 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0,
                ],
            ),
        ),
    ];
    for (what, bytes) in closed {
        let mut stream = connect(&node);
        assert!(ask(&mut stream, &bytes).is_err(), "{what}");
    }
    for length in [-1i32, 0, 7, i32::MAX] {
        let mut stream = connect(&node);
        stream.write_all(&length.to_be_bytes()).unwrap();
        assert_eq!(stream.read(&mut [0; 1]).unwrap_or(0), 0, "length {length}");
    }
    // Announced and never sent: memory grows with received bytes.
    let idle: Vec<TcpStream> = (0..200)
        .map(|_| {
            let mut stream = connect(&node);
            stream.write_all(&(15u32 << 20).to_be_bytes()).unwrap();
            stream.write_all(&[0; 100]).unwrap();
            stream
        })
        .collect();
    // Others are served meanwhile, large requests among them.
    let mut stream = connect(&node);
    assert!(ask(&mut stream, &request(18, 0, false, &[])).is_ok());
    let begun = Instant::now();
    produce_large(&node);
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "a large request waited {:?} for those that send nothing",
        begun.elapsed()
    );
    let grown = node.rss_mib().unwrap() - before;
    assert!(grown < 30.0, "{grown} MiB for {} idle connections", idle.len());
    let log = node.said();
    for words in [
        "request 999 version 0 is not supported",
        "request 3 version 99 is not supported",
        "is over the limit",
    ] {
        assert!(log.contains(words), "{words}:\n{log}");
    }
}

/// Idle connections cost little, and others are served beside them.
#[test]
fn idle_connections_cost_little() {
    let count: usize = std::env::var("WEIR_CONNECTIONS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(500);
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), &[QUICK]).unwrap();
    let mut stream = connect(&node);
    ask(&mut stream, &request(18, 0, false, &[])).unwrap();
    let times = |stream: &mut TcpStream| {
        let mut times: Vec<Duration> = (0..500)
            .map(|_| {
                let begun = Instant::now();
                ask(stream, &request(18, 0, false, &[])).unwrap();
                begun.elapsed()
            })
            .collect();
        times.sort_unstable();
        times[494]
    };
    let (alone, before) = (times(&mut stream), node.rss_mib().unwrap());
    let mut idle = Vec::with_capacity(count);
    for i in 0..count {
        // An address may have half of all connections.
        let mut stream = block_on(connect_from([127, 0, 0, 2 + (i % 3) as u8], node.kafka))
            .unwrap_or_else(|e| panic!("connection {i}: {e}"));
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        if i % 3 == 0 {
            ask(&mut stream, &request(18, 0, false, &[])).unwrap();
        } else if i % 3 == 1 {
            stream.write_all(&[0, 0]).unwrap();
        }
        idle.push(stream);
    }
    // The last connection was accepted, and so were those before.
    ask(&mut connect(&node), &request(18, 0, false, &[])).unwrap();
    let each = (node.rss_mib().unwrap() - before) * 1_024.0 / count as f64;
    let beside = times(&mut stream);
    println!(
        "{count} idle connections: {each:.1} KiB each; p99 of another {alone:?} before, {beside:?} beside"
    );
    assert!(each < 40.0, "{each:.1} KiB a connection");
}

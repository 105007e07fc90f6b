//! Whatever an address sends or leaves unread, the node stays small, serves other clients as before, and
//! gives its memory back afterwards.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};
use weir_client::Client;
use weir_peer::protocol::{Hello, MAGIC, Request, VERSION, Welcome};
use weir_peer::{KnownNodes, PeerStream, connect, read_frame, write_frame};
use weir_tests::kafka::{connect_from, request};
use weir_tests::records::{batch, send, still_serves};
use weir_tests::site::Site;
use weir_tests::{DEADLINE, Node, block_on, eventually_async, for_ever};
use weir_types::{Batch, Codec};

/// Somebody who takes all he can; whoever is measured is at 127.0.0.1.
pub(super) const ATTACKER: [u8; 4] = [127, 0, 0, 2];
/// Another address of the attacker, which takes a little of an answer.
const SECOND: [u8; 4] = [127, 0, 0, 3];
const DURING_MIB: f64 = 256.0;
const AFTER_MIB: f64 = 20.0;
/// Number of measurements beside an attack: the best counts.
const MEASURED: usize = 3;
/// Tolerance on a busy machine, beside the factor of three.
const SLACK: Duration = Duration::from_millis(100);

/// As large as a batch may be, of bytes that do not compress well.
fn large() -> Batch {
    let mut state = 7u64;
    let value = (0..3_900_000).map(|_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        b'a' + (state >> 59) as u8 % 26
    });
    batch(Codec::None, [value.collect()])
}

/// Returns the 99th percentile of a hundred sends of batches of `bytes`.
async fn p99(client: &Client, bytes: usize) -> Duration {
    let mut times = Vec::new();
    for _ in 0..100 {
        let begun = Instant::now();
        send(client, "small", &batch(Codec::None, [vec![7; bytes]]))
            .await
            .unwrap();
        times.push(begun.elapsed());
    }
    times.sort_unstable();
    times[98]
}

/// Latency of another client of a node or site.
struct Beside {
    small: Duration,
    /// Of batches that need leave to be received.
    larger: Duration,
}

impl Beside {
    async fn measure(client: &Client) -> Self {
        Self {
            small: p99(client, 1_000).await,
            larger: p99(client, 100_000).await,
        }
    }

    /// Keeps the better figures: an attack slows each measurement, other load of the machine only some.
    fn or_better(self, other: Self) -> Self {
        Self {
            small: self.small.min(other.small),
            larger: self.larger.min(other.larger),
        }
    }
}

/// Starts `attack`, which lasts as long as its returned value.
pub(super) fn withstands<T>(name: &str, env: &[(&str, &str)], attack: impl AsyncFnOnce(&Node) -> T) {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), env).unwrap();
    block_on(async {
        let client = node.client().await.unwrap();
        beside(name, &client, &[&node], attack(&node)).await;
    });
}

/// As [`withstands`], of a site of so many nodes: the attack is on all of them. Its lead is handed over, and
/// taken over, meanwhile.
fn site_withstands<T>(name: &str, nodes: usize, attack: impl AsyncFn(&Node) -> T) {
    let dir = tempfile::tempdir().unwrap();
    let mut site = Site::found(dir.path(), &[]).unwrap();
    for number in 2..=nodes {
        site.grow(&dir.path().join(number.to_string())).unwrap();
    }
    site.until_voters(nodes).unwrap();
    block_on(async {
        let client = site.client().await.unwrap();
        let attacked = async |site: &Site| {
            let mut held = Vec::new();
            for number in 1..=nodes {
                held.push(attack(site.node(number).unwrap()).await);
            }
            held
        };
        let all: Vec<&Node> = (1..=nodes).map(|n| site.node(n).unwrap()).collect();
        beside(name, &client, &all, attacked(&site)).await;
        let held = attacked(&site).await;
        let leader = site.leader().unwrap();
        let next = leader % nodes + 1;
        site.transfer(next).unwrap();
        if nodes > 2 {
            site.kill(next).unwrap();
        }
        still_serves(&site.client().await.unwrap(), "small").await;
        drop(held);
    });
}

/// Measures `client` and the memory of `nodes` before, during and after an attack.
async fn beside<T>(name: &str, client: &Client, nodes: &[&Node], attack: impl Future<Output = T>) {
    let rss = || nodes.iter().map(|node| node.rss_mib().unwrap());
    for topic in ["small", "large"] {
        client.create_topic(topic, 1, &for_ever()).await.unwrap();
    }
    send(client, "large", &large()).await.unwrap();
    // The log has its buffers full of honest work by then.
    let mut alone = Beside::measure(client).await;
    for _ in 0..MEASURED {
        alone = alone.or_better(Beside::measure(client).await);
    }
    let before: Vec<f64> = rss().collect();
    let held = attack.await;
    let mut during = rss().fold(0.0, f64::max);
    let mut beside = Beside::measure(client).await;
    for _ in 1..MEASURED {
        beside = beside.or_better(Beside::measure(client).await);
        during = rss().fold(during, f64::max);
    }
    // Reads, administration and status still work.
    let begun = Instant::now();
    let mut fetcher = client.fetcher().await.unwrap();
    let read = fetcher.fetch("small", 0, weir_types::Offset::ZERO, 1 << 10, Duration::ZERO);
    let read = read.await;
    assert!(read.is_ok(), "{name}: {:?}", read.err());
    client.create_topic("another", 1, &for_ever()).await.unwrap();
    client.status().await.unwrap();
    assert!(
        begun.elapsed() < Duration::from_secs(6),
        "{name}: {:?}",
        begun.elapsed()
    );
    drop(held);
    assert!(
        during < DURING_MIB,
        "{name}: {before:.0?} MiB before, {during:.0} during"
    );
    for (what, alone, beside) in [
        ("small", alone.small, beside.small),
        ("larger", alone.larger, beside.larger),
    ] {
        assert!(
            beside <= alone * 3 + SLACK,
            "{name}: p99 of another client's {what} batches {alone:?} alone, {beside:?} beside"
        );
        println!("{name}: p99 of {what} batches {alone:?} alone, {beside:?} beside");
    }
    let is_back = || rss().zip(&before).all(|(now, before)| now <= before + AFTER_MIB);
    let expected = format!("{name}: {before:.0?} MiB before, {during:.0} during, as small again after");
    eventually_async(&expected, async || match is_back() {
        true => Ok(()),
        false => Err(format!("{:.0?} MiB", rss().collect::<Vec<_>>())),
    })
    .await;
    println!(
        "{name}: {before:.0?} MiB before, {during:.0} during, {:.0?} after",
        rss().collect::<Vec<_>>()
    );
}

pub(super) fn write_all_there_is_room_for(stream: &mut TcpStream, mut bytes: &[u8]) {
    stream.set_nonblocking(true).unwrap();
    let begun = Instant::now();
    while !bytes.is_empty() && begun.elapsed() < Duration::from_millis(500) {
        match stream.write(bytes) {
            Ok(n) => bytes = &bytes[n..],
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {
                std::thread::sleep(Duration::from_millis(2));
            }
            Err(_) => return,
        }
    }
}

pub(super) fn framed(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u32).to_be_bytes(), bytes].concat()
}

/// Fetch 4 of `large`/0 from its start, for as much as there may be.
fn fetch() -> Vec<u8> {
    let mut body = Vec::new();
    for field in [-1i32, 500, 1, 64 << 20] {
        body.extend(field.to_be_bytes());
    }
    body.extend([0, 0, 0, 0, 1, 0, 5]);
    body.extend(b"large");
    body.extend([0, 0, 0, 1]);
    body.extend([0; 12]);
    body.extend((64i32 << 20).to_be_bytes());
    request(1, 4, false, &body)
}

async fn unread_fetches(node: &Node) -> Vec<TcpStream> {
    let mut held = Vec::new();
    for _ in 0..250 {
        let mut stream = connect_from(ATTACKER, node.kafka).await.unwrap();
        stream.write_all(&framed(&fetch())).unwrap();
        held.push(stream);
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    held
}

#[test]
fn withstands_kafka_clients_that_read_no_answers() {
    withstands("250 fetches that nobody reads", &[], unread_fetches);
}

#[test]
fn site_of_three_withstands_kafka_clients_that_read_no_answers() {
    site_withstands(
        "250 fetches that nobody reads, of each of three nodes",
        3,
        unread_fetches,
    );
}

async fn unfinished_requests(node: &Node) -> Vec<TcpStream> {
    let half = vec![0; 8 << 20];
    let mut held = Vec::new();
    for _ in 0..64 {
        let mut stream = connect_from(ATTACKER, node.kafka).await.unwrap();
        let mut head = (16i32 << 20).to_be_bytes().to_vec();
        head.extend(&request(0, 3, false, &[])[..]);
        stream.write_all(&head).unwrap();
        write_all_there_is_room_for(&mut stream, &half[..half.len() / 8]);
        held.push(stream);
    }
    held
}

#[test]
fn withstands_unfinished_kafka_requests() {
    withstands(
        "64 requests of 16 MiB of which half comes",
        &[],
        unfinished_requests,
    );
}

#[test]
fn site_of_two_withstands_unfinished_kafka_requests() {
    let name = "64 requests of 16 MiB of which half comes, at each of two nodes";
    site_withstands(name, 2, unfinished_requests);
}

/// A stream of a client that has said hello.
async fn stream(node: &Node) -> (weir_peer::Peer, PeerStream) {
    let peer = connect(node.quic, &KnownNodes::forgetful()).await.unwrap();
    let mut stream = peer.open().await.unwrap();
    let hello = Hello {
        magic: MAGIC,
        version: VERSION,
        client: "attacker".to_owned(),
    };
    write_frame(&mut stream.tx, &hello, &[]).await.unwrap();
    read_frame::<Welcome>(&mut stream.rx, 4 << 10).await.unwrap();
    let stream = peer.open().await.unwrap();
    (peer, stream)
}

#[test]
fn withstands_huge_lists_over_quic() {
    withstands("six times two million settings", &[], async |node| {
        let mut held = Vec::new();
        for _ in 0..6 {
            let (peer, mut stream) = stream(node).await;
            let request = Request::AlterTopic {
                name: "small".to_owned(),
                partitions: None,
                settings: vec![(String::new(), String::new()); 500_000],
                replicas: None,
            };
            let sent = write_frame(&mut stream.tx, &request, &[]).await;
            // The refusal is an answer, or the end of the stream.
            let answer = tokio::time::timeout(
                DEADLINE,
                read_frame::<weir_peer::protocol::Reply>(&mut stream.rx, 1 << 20),
            );
            let answer = answer.await.unwrap();
            assert!(
                sent.is_err()
                    || !matches!(answer, Ok(Some(ref frame)) if matches!(frame.head, weir_peer::protocol::Reply::Done)),
                "it was taken"
            );
            held.push((peer, stream));
        }
        held
    });
}

#[test]
fn withstands_unread_lists_over_quic() {
    withstands(
        "8 streams that ask 300 times for 9,600 partitions",
        &[],
        async |node| {
            let client = node.client().await.unwrap();
            for topic in 0..10 {
                let name = format!("wide-{topic}");
                client.create_topic(&name, 960, &for_ever()).await.unwrap();
            }
            let (peer, first) = stream(node).await;
            let mut held = vec![first];
            for _ in 1..8 {
                held.push(peer.open().await.unwrap());
            }
            for stream in &mut held {
                for _ in 0..300 {
                    let sent = write_frame(&mut stream.tx, &Request::Topics, &[]);
                    if tokio::time::timeout(Duration::from_millis(100), sent)
                        .await
                        .is_err()
                    {
                        break;
                    }
                }
            }
            tokio::time::sleep(Duration::from_secs(2)).await;
            (peer, held)
        },
    );
}

#[test]
fn withstands_unfinished_module_uploads() {
    withstands("parts of modules on 31 streams", &[], async |node| {
        let part = bytes::Bytes::from(vec![7u8; 1 << 20]);
        let (peer, first) = stream(node).await;
        let mut held = vec![first];
        for _ in 0..30 {
            let mut stream = peer.open().await.unwrap();
            for _ in 0..12 {
                let sent = write_frame(&mut stream.tx, &Request::PushPart, std::slice::from_ref(&part));
                if tokio::time::timeout(Duration::from_millis(300), sent)
                    .await
                    .is_err()
                {
                    break;
                }
            }
            held.push(stream);
        }
        (peer, held)
    });
}

#[test]
fn withstands_unread_http_answers() {
    withstands("100 reads over HTTP that nobody takes", &[], async |node| {
        let mut held = Vec::new();
        for _ in 0..100 {
            let mut stream = connect_from(ATTACKER, node.http).await.unwrap();
            let ask = format!(
                "GET /v1/topics/large/records?offset=start&max_bytes=4000000 HTTP/1.1\r\nhost: {}\r\n\r\n",
                node.http
            );
            stream.write_all(ask.as_bytes()).unwrap();
            held.push(stream);
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
        held
    });
}

#[test]
fn withstands_group_members_with_large_metadata() {
    withstands("12 members that join with much to say", &[], async |node| {
        let join = |member: usize| {
            let mut body = vec![0, 1, b'g'];
            body.extend(30_000i32.to_be_bytes());
            body.extend(10_000i32.to_be_bytes());
            body.extend([0, 0, 0, 8]);
            body.extend(b"consumer");
            body.extend([0, 0, 0, 1, 0, 5]);
            body.extend(b"range");
            body.extend((200_000i32).to_be_bytes());
            body.extend(vec![member as u8; 200_000]);
            framed(&request(11, 2, false, &body))
        };
        let mut held = Vec::new();
        for member in 0..12 {
            let mut stream = connect_from(ATTACKER, node.kafka).await.unwrap();
            write_all_there_is_room_for(&mut stream, &join(member));
            held.push(stream);
        }
        // And a client that reads just enough to stay connected.
        let mut stream = connect_from(SECOND, node.kafka).await.unwrap();
        stream.write_all(&framed(&fetch())).unwrap();
        let _ = stream.read(&mut [0; 64]);
        held.push(stream);
        tokio::time::sleep(Duration::from_secs(2)).await;
        held
    });
}

#[test]
fn status_shows_shares_and_a_refusal_names_its_share() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), &[]).unwrap();
    let mut idle = Vec::new();
    let mut refusal = String::new();
    for _ in 0..600 {
        let mut stream = TcpStream::connect(node.http).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        let mut answer = [0; 512];
        match stream.read(&mut answer) {
            Ok(n) if n > 0 => {
                refusal = String::from_utf8_lossy(&answer[..n]).into_owned();
                break;
            }
            _ => idle.push(stream),
        }
    }
    assert!(
        refusal.contains("503") && refusal.contains("share `http` of connections"),
        "{refusal}"
    );
    let status = node.cli(&["status", "-o", "json"], "").unwrap();
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    let share = |name: &str| {
        let shares = status["shares"].as_array().unwrap();
        shares.iter().find(|s| s["share"] == name).unwrap().clone()
    };
    assert!(share("http")["refused"].as_u64() >= Some(1), "{status}");
    assert!(share("http")["used"].as_u64() >= Some(300), "{status}");
    for name in [
        "store",
        "nodes",
        "newcomers",
        "quic",
        "kafka",
        "requests",
        "records",
        "answers",
        "uploads",
        "modules",
    ] {
        assert!(share(name)["max"].as_u64() > Some(0), "{name}: {status}");
    }
    let table = node.cli(&["status"], "").unwrap();
    let table = String::from_utf8_lossy(&table.stdout).into_owned();
    assert!(table.contains("SHARE") && table.contains("answers"), "{table}");
}

/// Modules take memory as they use memory: never more than the node's share, and a refused call waits.
#[test]
fn modules_stay_within_their_share_of_memory() {
    const PARTITIONS: u32 = 16;
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), &[("WEIR_MODULES_MEMORY_BYTES", "12582912")]).unwrap();
    let pipeline = r#"
        name = "once"
        source = "t"
        [[stages]]
        module = "dedupe"
        config = { horizon_ms = 60000 }
        grants = ["state", "timers"]
    "#;
    let share = || {
        let status = node.cli(&["status", "-o", "json"], "").unwrap();
        let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
        let shares = status["shares"].as_array().unwrap();
        let of = |name: &str| shares.iter().find(|s| s["share"] == name).unwrap().clone();
        (of("modules"), of("state"))
    };
    block_on(async {
        let client = node.client().await.unwrap();
        client.create_topic("t", PARTITIONS, &for_ever()).await.unwrap();
        client.create_topic("free", 1, &for_ever()).await.unwrap();
        let dedupe = weir_tests::module("dedupe");
        client.push_module("dedupe", "1", &dedupe).await.unwrap();
        client.apply_pipeline(pipeline).await.unwrap();
        let (mut taken, mut waits) = (0, None);
        for partition in 0..PARTITIONS {
            let sent = offer(&client, "t", partition).await;
            match sent {
                Ok(()) => taken += 1,
                Err(why) => waits = Some(why),
            }
        }
        assert!((2..PARTITIONS).contains(&taken), "{taken}, {waits:?}");
        // Nobody else is any worse off, and the partitions that have theirs go on.
        offer(&client, "free", 0).await.unwrap();
        offer(&client, "t", 0).await.unwrap();
        let (modules, state) = share();
        assert!(modules["used"].as_u64() <= Some(12_582_912), "{modules}");
        assert!(modules["refused"].as_u64() >= Some(1), "{modules}");
        assert!(state["used"].as_u64() > Some(0), "{state}");
        client.remove_pipeline("once").await.unwrap();
        eventually_async("the memory is given back", async || {
            let (modules, state) = share();
            let is_free = [&modules, &state].iter().all(|share| share["used"] == 0);
            if is_free {
                Ok(())
            } else {
                Err(format!("{modules}, {state}"))
            }
        })
        .await;
        offer(&client, "t", PARTITIONS - 1).await.unwrap();
    });
}

/// Sends a record, and gives up after a while.
async fn offer(client: &Client, topic: &str, partition: u32) -> Result<(), String> {
    let sent = async {
        let mut producer = client.producer().await.map_err(|e| e.to_string())?;
        let mut builder = weir_types::BatchBuilder::new(Codec::None);
        builder.push(0, Some(b"k"), Some(b"x"), weir_types::Headers::NONE);
        let record = builder
            .build(weir_types::Offset::ZERO, None)
            .map_err(|e| e.to_string())?;
        let sent = producer
            .send(topic, partition, &record)
            .await
            .map_err(|e| e.to_string())?;
        sent.done().await.map(|_| ()).map_err(|e| e.to_string())
    };
    let within = tokio::time::timeout(Duration::from_millis(500), sent).await;
    within.unwrap_or_else(|_| Err("it waits".to_owned()))
}

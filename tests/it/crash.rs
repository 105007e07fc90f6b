//! `kill -9` under load: nothing acknowledged is lost, nothing is doubled. Few rounds in CI, a hundred by hand with
//! `WEIR_KILL_ROUNDS=100`. `WEIR_HISTORIES=DIR` keeps what clients did and saw, for `weir-check`.

use crate::{block_on, rounds};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use weir_checkers::{Event, Outcome, Place, Seen, Violation};
use weir_client::{BatchBuilder, Client, Codec, Offset};
use weir_tests::{DEADLINE, Node, read_all};

/// As many as a node remembers of a producer: what is sent again is then always known again.
const IN_FLIGHT: usize = weir_types::limits::PRODUCER_WINDOW;

/// Sends numbered batches until it is stopped or the node is gone. A batch whose fate is unknown is sent again under
/// its number, as an idempotent producer does.
pub(crate) struct Load {
    pub(crate) topic: &'static str,
    pub(crate) producer_id: i64,
    pub(crate) sequence: i32,
    /// How many values were acknowledged.
    pub(crate) acknowledged: usize,
    /// What was sent, and what became of it.
    history: Vec<Event>,
    /// Batches whose fate is not known.
    pub(crate) unknown: VecDeque<(i32, Vec<u64>)>,
    pub(crate) next_value: u64,
}

impl Load {
    pub(crate) async fn new(client: &Client, topic: &'static str) -> Self {
        let producer_id = client.init_producer().await.unwrap();
        Self {
            topic,
            producer_id,
            sequence: 0,
            acknowledged: 0,
            history: Vec::new(),
            unknown: VecDeque::new(),
            next_value: 0,
        }
    }

    pub(crate) async fn run(&mut self, client: &Client, stop: &AtomicBool, count: &AtomicU64) {
        let Ok(mut producer) = client.producer().await else {
            return;
        };
        let mut waiting = VecDeque::new();
        let mut resend: VecDeque<(i32, Vec<u64>)> = std::mem::take(&mut self.unknown);
        while !stop.load(Ordering::Relaxed) {
            let (sequence, values) = resend.pop_front().unwrap_or_else(|| self.fresh());
            let batch = self.batch(sequence, &values);
            let sent = producer.send(self.topic, 0, &batch).await;
            match sent {
                Ok(sent) => waiting.push_back((sent, sequence, values)),
                Err(_) => {
                    values.iter().for_each(|v| self.note(*v, Outcome::Unknown, None));
                    self.unknown.push_back((sequence, values));
                    break;
                }
            }
            if waiting.len() >= IN_FLIGHT && !self.settle(&mut waiting, count).await {
                break;
            }
        }
        while !waiting.is_empty() {
            self.settle(&mut waiting, count).await;
        }
        self.unknown.extend(resend);
        self.unknown.make_contiguous().sort();
    }

    fn place(&self) -> Place {
        Place {
            topic: self.topic.to_owned(),
            partition: 0,
        }
    }

    fn note(&mut self, value: u64, outcome: Outcome, offset: Option<u64>) {
        let (client, place) = (0, self.place());
        self.history.push(Event::Send {
            client,
            place,
            value,
            outcome,
            offset,
        });
    }

    /// What is wrong with what each node has, when everything has come to rest.
    pub(crate) fn judge_nodes(&mut self, finals: Vec<(u32, Vec<Seen>)>) -> Vec<Violation> {
        let place = self.place();
        let mut history = self.history.clone();
        for (node, records) in finals {
            let place = place.clone();
            history.push(Event::Final { node, place, records });
        }
        if let Some(dir) = std::env::var_os("WEIR_HISTORIES") {
            let path = std::path::Path::new(&dir).join(format!("{}-nodes.jsonl", self.topic));
            let mut file = std::io::BufWriter::new(std::fs::File::create(path).unwrap());
            weir_checkers::history::write(&history, &mut file).unwrap();
        }
        weir_checkers::check(&history)
    }

    /// What is wrong with what the node has now, after all that was sent to it. What it has must be the same ever
    /// after.
    pub(crate) fn judge(&mut self, records: Vec<Seen>) -> Vec<Violation> {
        let (node, place) = (1, self.place());
        self.history.push(Event::Final {
            node,
            place: place.clone(),
            records: records.clone(),
        });
        let wrong = weir_checkers::check(&self.history);
        if let Some(dir) = std::env::var_os("WEIR_HISTORIES") {
            let path = std::path::Path::new(&dir).join(format!("{}.jsonl", self.topic));
            let mut file = std::io::BufWriter::new(std::fs::File::create(path).unwrap());
            weir_checkers::history::write(&self.history, &mut file).unwrap();
        }
        // Kept as what a client read, for the next time; one read is enough.
        self.history.pop();
        self.history.retain(|e| !matches!(e, Event::Poll { .. }));
        let client = 1;
        self.history.push(Event::Poll {
            client,
            place,
            records,
        });
        wrong
    }

    fn fresh(&mut self) -> (i32, Vec<u64>) {
        let values: Vec<u64> = (0..1 + self.next_value % 20)
            .map(|i| self.next_value + i)
            .collect();
        self.next_value += values.len() as u64;
        let sequence = self.sequence;
        self.sequence += values.len() as i32;
        (sequence, values)
    }

    fn batch(&self, sequence: i32, values: &[u64]) -> weir_client::Batch {
        let mut builder = BatchBuilder::new(Codec::None);
        for value in values {
            let text = format!("{value}:{}", "x".repeat((*value % 300) as usize));
            let timestamp = *value as i64;
            builder.push(timestamp, None, Some(text.as_bytes()), weir_types::Headers::NONE);
        }
        let producer = weir_types::Producer {
            id: self.producer_id,
            epoch: 0,
            sequence,
        };
        builder.build(Offset::ZERO, Some(producer)).unwrap()
    }

    /// Takes note of the oldest batch under way. False when the node is gone.
    async fn settle(
        &mut self,
        waiting: &mut VecDeque<(weir_client::Sent, i32, Vec<u64>)>,
        count: &AtomicU64,
    ) -> bool {
        let Some((sent, sequence, values)) = waiting.pop_front() else {
            return true;
        };
        match sent.done().await {
            Ok(produced) => {
                count.fetch_add(values.len() as u64, Ordering::Relaxed);
                self.acknowledged += values.len();
                for (value, at) in values.iter().zip(produced.base.get()..) {
                    self.note(*value, Outcome::Ok, Some(at));
                }
                true
            }
            Err(_) => {
                values.iter().for_each(|v| self.note(*v, Outcome::Unknown, None));
                self.unknown.push_back((sequence, values));
                false
            }
        }
    }
}

/// Payloads in every other round go to the value log, which at its default only large ones do, and to small files of
/// it, so that many are made and emptied.
pub(crate) fn value_log(round: u32) -> [(&'static str, &'static str); 2] {
    let from = if round % 2 == 1 { "1500" } else { "131072" };
    [
        ("WEIR_VALUE_LOG_FROM_BYTES", from),
        ("WEIR_VALUE_FILE_BYTES", "65536"),
    ]
}

/// Fills a topic of its own beside the load and deletes it, again and again: the load's files lose most of what they
/// hold, and what is left of them moves while the node is killed.
pub(crate) async fn litter(client: &Client, round: u32, stop: &AtomicBool) {
    let Ok(mut producer) = client.producer().await else {
        return;
    };
    let mut builder = BatchBuilder::new(Codec::None);
    let value = [b'.'; 9_000];
    builder.push(0, None, Some(&value), weir_types::Headers::NONE);
    let batch = builder.build(Offset::ZERO, None).unwrap();
    for n in 0u32.. {
        let topic = format!("litter-{round}-{n}");
        if client
            .create_topic(&topic, 1, &weir_tests::for_ever())
            .await
            .is_err()
        {
            return;
        }
        for _ in 0..20 {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            let Ok(sent) = producer.send(&topic, 0, &batch).await else {
                return;
            };
            if sent.done().await.is_err() {
                return;
            }
        }
        if client.delete_topic(&topic).await.is_err() {
            return;
        }
    }
}

/// All that a topic has.
pub(crate) async fn stored(client: &Client, topic: &str) -> Vec<Seen> {
    let (records, gaps) = read_all(client, topic, 0, 1 << 20).await.unwrap();
    assert!(gaps.is_empty(), "{gaps:?}");
    let seen = |(offset, record): (u64, weir_types::Record)| {
        let value = String::from_utf8(record.value.unwrap().to_vec()).unwrap();
        let value = value.split(':').next().unwrap().parse().unwrap();
        Seen { offset, value }
    };
    records.into_iter().map(seen).collect()
}

#[test]
fn kill_9_under_load_loses_nothing_acknowledged_and_doubles_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut load = None;
    let mut total = 0;
    for round in 0..rounds("WEIR_KILL_ROUNDS", 8) {
        let node = Node::start(dir.path(), &value_log(round)).unwrap();
        block_on(async {
            let client = node.client().await.unwrap();
            if load.is_none() {
                client
                    .create_topic("t", 1, &weir_tests::for_ever())
                    .await
                    .unwrap();
                load = Some(Load::new(&client, "t").await);
            }
            let load: &mut Load = load.as_mut().unwrap();
            let wrong = load.judge(stored(&client, "t").await);
            assert!(wrong.is_empty(), "round {round}: {wrong:?}");
            let (stop, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
            let (killer_stop, killer_count) = (Arc::clone(&stop), Arc::clone(&count));
            let under_load = Arc::new(AtomicBool::new(false));
            let killing = Arc::clone(&under_load);
            let killed_client = client.clone();
            // Somewhere between two acknowledgements, another place each round.
            let killer = std::thread::spawn(move || {
                let want = 50 + u64::from(round) * 37 % 900;
                let begun = Instant::now();
                while killer_count.load(Ordering::Relaxed) < want && begun.elapsed() < DEADLINE {
                    std::thread::sleep(Duration::from_micros(300));
                }
                killing.store(killer_count.load(Ordering::Relaxed) >= want, Ordering::Relaxed);
                node.kill().unwrap();
                killer_stop.store(true, Ordering::Relaxed);
                // The node is gone without a word; the test need not wait until the connection notices.
                killed_client.disconnect();
            });
            let litter = async {
                if round % 4 >= 2 {
                    litter(&client, round, &stop).await;
                }
            };
            tokio::join!(load.run(&client, &stop, &count), litter);
            killer.join().unwrap();
            assert!(
                under_load.load(Ordering::Relaxed),
                "round {round}: the load ended before the node was killed"
            );
            total += count.load(Ordering::Relaxed);
        });
    }
    let node = Node::start(dir.path(), &[]).unwrap();
    block_on(async {
        let client = node.client().await.unwrap();
        let wrong = load.as_mut().unwrap().judge(stored(&client, "t").await);
        assert!(wrong.is_empty(), "{wrong:?}");
    });
    println!("{total} records acknowledged, none lost, none doubled");
    assert!(total > 0);
}

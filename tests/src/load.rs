//! A producer of numbered batches under which nodes are stopped, and its history for the checkers.

use crate::records::stored;
use crate::site::Site;
use crate::{DEADLINE, block_on};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use weir_checkers::{Event, Outcome, Place, Seen, Violation};
use weir_client::{BatchBuilder, Client, Codec, KnownNodes, Offset};

/// As many batches as a node remembers of a producer: a batch that is sent again is then always recognized.
const IN_FLIGHT: usize = weir_types::limits::PRODUCER_WINDOW;

/// Sends numbered batches until a stop or the end of the node. A batch of unknown outcome is sent again under
/// its number, as an idempotent producer does.
pub struct Load {
    /// Topic of the load, with a single partition.
    pub topic: &'static str,
    /// Producer id of all its batches.
    pub producer_id: i64,
    /// Next sequence number.
    pub sequence: i32,
    /// Number of acknowledged values.
    pub acknowledged: usize,
    /// All sends with their outcomes.
    history: Vec<Event>,
    /// Batches whose fate is not known.
    pub unknown: VecDeque<(i32, Vec<u64>)>,
    /// Next number to send.
    pub next_value: u64,
}

impl Load {
    /// Makes a load with a producer id of its own.
    ///
    /// # Panics
    /// When the node gives out no producer id.
    pub async fn new(client: &Client, topic: &'static str) -> Self {
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

    /// Sends until `stop` is set or the node is gone; adds the acknowledged records to `count`.
    pub async fn run(&mut self, client: &Client, stop: &AtomicBool, count: &AtomicU64) {
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

    /// Runs the load until `want` records are acknowledged, and then `ends` its node.
    ///
    /// # Panics
    /// When the load ends before.
    pub async fn run_until(&mut self, client: &Client, want: u64, ends: impl FnOnce() + Send + 'static) {
        let (stop, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (ended, stops, counted) = (client.clone(), Arc::clone(&stop), Arc::clone(&count));
        let ending = std::thread::spawn(move || {
            wait_for(|| counted.load(Ordering::Relaxed) >= want);
            ends();
            stops.store(true, Ordering::Relaxed);
            // The connection would notice the end of the node only after its idle timeout.
            ended.disconnect();
        });
        self.run(client, &stop, &count).await;
        ending.join().unwrap();
        assert!(count.load(Ordering::Relaxed) >= want, "the load ended too early");
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

    /// Checks the final records of each node; returns the violations.
    pub fn judge_nodes(&mut self, finals: Vec<(u32, Vec<Seen>)>) -> Vec<Violation> {
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

    /// Checks the records that the node has now; returns the violations. The same records must be there ever
    /// after.
    pub fn judge(&mut self, records: Vec<Seen>) -> Vec<Violation> {
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
        // Kept for the next check as a read of a client; the newest read is enough.
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

/// Returns settings that send payloads of every other round to the value log, in small files, so that many
/// files are made and emptied.
pub fn value_log(round: u32) -> [(&'static str, &'static str); 2] {
    let from = if round % 2 == 1 { "1500" } else { "131072" };
    [
        ("WEIR_VALUE_LOG_FROM_BYTES", from),
        ("WEIR_VALUE_FILE_BYTES", "65536"),
    ]
}

/// Fills a topic beside the load and deletes the topic, again and again: files of the load lose most of their
/// records, and the rest moves while the node is killed.
pub async fn litter(client: &Client, round: u32, stop: &AtomicBool) {
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
            .create_topic(&topic, 1, &crate::records::for_ever())
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

/// Waits for a condition or the deadline, and looks every 300 microseconds: faults must hit between two
/// records.
pub fn wait_for(mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() && begun.elapsed() < DEADLINE {
        std::thread::sleep(Duration::from_micros(300));
    }
}

/// Longest time between two acknowledgements, watched from outside.
async fn longest_pause(count: &AtomicU64, stop: &AtomicBool) -> Duration {
    let (mut last, mut at, mut longest) = (count.load(Ordering::Relaxed), Instant::now(), Duration::ZERO);
    while !stop.load(Ordering::Relaxed) {
        tokio::time::sleep(Duration::from_millis(2)).await;
        let now = count.load(Ordering::Relaxed);
        if now > last {
            longest = longest.max(at.elapsed());
            (last, at) = (now, Instant::now());
        }
    }
    longest
}

/// Waits until `count` has reached `wanted`.
///
/// # Panics
/// When records are not acknowledged any more.
pub async fn more_than(count: &AtomicU64, wanted: u64) {
    let begun = Instant::now();
    while count.load(Ordering::Relaxed) < wanted {
        assert!(
            begun.elapsed() < DEADLINE,
            "records are not acknowledged any more"
        );
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// A load on a topic of its own, with a client that knows all nodes.
pub async fn loaded(client: &Client) -> Load {
    client
        .create_topic("t", 1, &crate::records::for_ever())
        .await
        .unwrap();
    Load::new(client, "t").await
}

/// Also when an assertion fails: the load would go on for ever.
struct Stops<'a>(&'a AtomicBool);

impl Drop for Stops<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs `during` under the load of a client; `during` gets the number of acknowledged records so far. Returns
/// its value and the longest pause between two acknowledgements.
pub fn under_load<R>(
    seeds: &[SocketAddr],
    load: &mut Load,
    during: impl FnOnce(&AtomicU64) -> R,
) -> (R, Duration) {
    let (stop, count) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let (stop, count) = (&stop, &count);
        let running = scope.spawn(move || {
            block_on(async {
                let client = Client::connect_any(seeds, &KnownNodes::forgetful(), "load")
                    .await
                    .unwrap();
                tokio::join!(load.run(&client, stop, count), longest_pause(count, stop)).1
            })
        });
        let stops = Stops(stop);
        let given = during(count);
        drop(stops);
        (given, running.join().unwrap())
    })
}

/// Lets each node lead in turn and checks all its records; returns the violations.
pub fn judged(site: &Site, load: &mut Load, nodes: &[usize]) -> Vec<Violation> {
    let mut finals = Vec::new();
    for number in nodes {
        site.transfer(*number).unwrap();
        let records = block_on(async { stored(&site.client().await.unwrap(), "t").await });
        finals.push((*number as u32, records));
    }
    load.judge_nodes(finals)
}

//! `weir kafka check`

use super::output::{lines, table};
use super::{Format, Usage};
use anyhow::{Context, Result, bail, ensure};
use clap::{Args, Subcommand};
use rskafka::client::partition::{Compression, OffsetAt, PartitionClient, UnknownTopicHandling};
use rskafka::client::{Client, ClientBuilder};
use rskafka::record::{Record, RecordAndOffset};
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Time for a check: longer than any timeout of a broker.
const CHECK_WITHIN: Duration = Duration::from_secs(15);
/// Timeout in requests that change topics or records.
const TIMEOUT_MS: i32 = 10_000;

/// Check brokers that speak Kafka's protocol.
#[derive(Debug, Args)]
pub(crate) struct KafkaArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check a broker with a Kafka client library, on a topic that is created and deleted for it.
    Check(Check),
}

#[derive(Debug, Args)]
struct Check {
    /// Address of any broker.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9092")]
    bootstrap: String,
    /// A table for people, or a JSON object for each check.
    #[arg(short, long, value_enum, default_value = "table")]
    output: Format,
}

/// A check and its result.
struct Outcome {
    check: &'static str,
    took: Duration,
    result: Result<String>,
}

/// A check in JSON.
#[derive(Serialize)]
struct CheckRow {
    check: &'static str,
    works: bool,
    ms: f64,
    note: String,
}

impl KafkaArgs {
    pub(crate) async fn run(self) -> Result<()> {
        let Command::Check(check) = self.command;
        check.run().await
    }
}

impl Check {
    async fn run(self) -> Result<()> {
        if !self.bootstrap.contains(':') {
            return Err(Usage(format!("`{}` is no HOST:PORT", self.bootstrap)).into());
        }
        let builder = ClientBuilder::new(vec![self.bootstrap.clone()]).client_id("weir-check");
        let client = tokio::time::timeout(CHECK_WITHIN, builder.build()).await;
        let client = client.with_context(|| format!("no answer from {}", self.bootstrap))?;
        let client = client.with_context(|| format!("cannot speak Kafka with {}", self.bootstrap))?;
        let mut random = [0; 4];
        getrandom::fill(&mut random).map_err(|e| anyhow::anyhow!("no randomness: {e}"))?;
        let topic = format!("weir-check-{:08x}", u32::from_le_bytes(random));
        let outcomes = checks(&client, &topic).await;
        let failed = outcomes.iter().filter(|o| o.result.is_err()).count();
        self.print(&outcomes)?;
        if failed > 0 {
            bail!("{failed} of {} checks failed", outcomes.len());
        }
        Ok(())
    }

    fn print(&self, outcomes: &[Outcome]) -> Result<()> {
        let words = |o: &Outcome| match &o.result {
            Ok(words) => words.clone(),
            Err(e) => format!("{e:#}"),
        };
        if self.output == Format::Json {
            return lines(outcomes.iter().map(|o| CheckRow {
                check: o.check,
                works: o.result.is_ok(),
                ms: o.took.as_secs_f64() * 1e3,
                note: words(o),
            }));
        }
        let rows: Vec<Vec<String>> = outcomes
            .iter()
            .map(|o| {
                let works = if o.result.is_ok() { "works" } else { "FAILS" };
                let ms = format!("{:.1}", o.took.as_secs_f64() * 1e3);
                vec![o.check.to_owned(), works.to_owned(), ms, words(o)]
            })
            .collect();
        table(&["CHECK", "RESULT", "MS", "NOTE"], &rows)
    }
}

/// Runs all checks in their order, and deletes the topic in any case.
async fn checks(client: &Client, topic: &str) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    let made = timed(&mut outcomes, "create a topic", create(client, topic)).await;
    if made {
        for (check, compression) in [
            ("produce and fetch, uncompressed", Compression::NoCompression),
            ("produce and fetch, gzip", Compression::Gzip),
            ("produce and fetch, snappy", Compression::Snappy),
            ("produce and fetch, zstd", Compression::Zstd),
        ] {
            timed(&mut outcomes, check, there_and_back(client, topic, compression)).await;
        }
        timed(
            &mut outcomes,
            "fetch in the middle of a batch",
            middle(client, topic),
        )
        .await;
        timed(&mut outcomes, "fetch waits for records", waits(client, topic)).await;
        timed(
            &mut outcomes,
            "fetch beyond the end is refused",
            beyond(client, topic),
        )
        .await;
        timed(&mut outcomes, "delete records", delete_records(client, topic)).await;
        timed(&mut outcomes, "delete the topic", delete_topic(client, topic)).await;
    }
    outcomes
}

async fn timed(
    outcomes: &mut Vec<Outcome>,
    check: &'static str,
    work: impl Future<Output = Result<String>>,
) -> bool {
    let begun = Instant::now();
    let result = tokio::time::timeout(CHECK_WITHIN, work).await;
    let result = result.unwrap_or_else(|_| Err(anyhow::anyhow!("no answer within {CHECK_WITHIN:?}")));
    let worked = result.is_ok();
    outcomes.push(Outcome {
        check,
        took: begun.elapsed(),
        result,
    });
    worked
}

async fn partition(client: &Client, topic: &str) -> Result<Arc<PartitionClient>> {
    Ok(Arc::new(
        client
            .partition_client(topic, 0, UnknownTopicHandling::Retry)
            .await?,
    ))
}

async fn create(client: &Client, topic: &str) -> Result<String> {
    client
        .controller_client()?
        .create_topic(topic, 1, 1, TIMEOUT_MS)
        .await?;
    partition(client, topic).await?;
    Ok(topic.to_owned())
}

/// Returns records with and without keys, values and headers.
fn sample() -> Vec<Record> {
    let record = |i: u8| Record {
        key: (i % 2 == 1).then(|| vec![i]),
        value: (i % 5 != 1).then(|| vec![i; 200]),
        headers: if i % 3 == 1 {
            BTreeMap::from([("h".to_owned(), vec![0, i])])
        } else {
            BTreeMap::new()
        },
        timestamp: Default::default(),
    };
    (0..100).map(record).collect()
}

async fn there_and_back(client: &Client, topic: &str, compression: Compression) -> Result<String> {
    let partition = partition(client, topic).await?;
    let sent = sample();
    let offsets = partition.produce(sent.clone(), compression).await?;
    let (first, last) = (
        offsets.first().copied().unwrap_or(-1),
        offsets.last().copied().unwrap_or(-1),
    );
    ensure!(
        last - first == 99,
        "100 records got the offsets {first} to {last}"
    );
    let got = from(&partition, first, 100).await?;
    ensure!(
        got.iter().map(|r| r.offset).eq(first..=last),
        "offsets do not count up"
    );
    ensure!(
        got.into_iter().map(|r| r.record).eq(sent),
        "records came back changed"
    );
    Ok("keys, values, nulls and headers came back".to_owned())
}

/// Reads `count` records.
async fn from(partition: &PartitionClient, mut offset: i64, count: usize) -> Result<Vec<RecordAndOffset>> {
    let mut got: Vec<RecordAndOffset> = Vec::new();
    while got.len() < count {
        let (records, _) = partition.fetch_records(offset, 1..1 << 20, 1_000).await?;
        ensure!(!records.is_empty(), "{} of {count} records came", got.len());
        offset = records.last().map_or(offset, |r| r.offset + 1);
        got.extend(records);
    }
    Ok(got)
}

async fn middle(client: &Client, topic: &str) -> Result<String> {
    let partition = partition(client, topic).await?;
    let end = partition.get_offset(OffsetAt::Latest).await?;
    let got = from(&partition, end - 37, 37).await?;
    ensure!(
        got.iter().map(|r| r.offset).eq(end - 37..end),
        "it begins elsewhere"
    );
    Ok("begins where it was asked to".to_owned())
}

async fn waits(client: &Client, topic: &str) -> Result<String> {
    let partition = partition(client, topic).await?;
    let end = partition.get_offset(OffsetAt::Latest).await?;
    let waiting = Arc::clone(&partition);
    let begun = Instant::now();
    let fetch = tokio::spawn(async move {
        let fetched = waiting.fetch_records(end, 1..1 << 20, 8_000).await;
        (fetched, begun.elapsed())
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    partition.produce(sample(), Compression::NoCompression).await?;
    let produced = begun.elapsed();
    let (fetched, took) = fetch.await?;
    ensure!(!fetched?.0.is_empty(), "it came back empty after {took:?}");
    ensure!(
        took >= Duration::from_millis(300),
        "records came before they were sent"
    );
    Ok(format!(
        "{:.1} ms after they were sent",
        took.saturating_sub(produced).as_secs_f64() * 1e3
    ))
}

async fn beyond(client: &Client, topic: &str) -> Result<String> {
    let partition = partition(client, topic).await?;
    let end = partition.get_offset(OffsetAt::Latest).await?;
    match partition.fetch_records(end + 1_000, 1..1_000, 100).await {
        Ok(_) => bail!("it was answered as if there were something"),
        Err(e) => {
            let words = e.to_string();
            ensure!(words.contains("OffsetOutOfRange"), "another error: {words}");
            Ok("OFFSET_OUT_OF_RANGE".to_owned())
        }
    }
}

async fn delete_records(client: &Client, topic: &str) -> Result<String> {
    let partition = partition(client, topic).await?;
    partition.delete_records(10, TIMEOUT_MS).await?;
    let start = partition.get_offset(OffsetAt::Earliest).await?;
    ensure!(start == 10, "the partition begins at {start} instead of 10");
    Ok("the partition begins later".to_owned())
}

async fn delete_topic(client: &Client, topic: &str) -> Result<String> {
    client
        .controller_client()?
        .delete_topic(topic, TIMEOUT_MS)
        .await?;
    let begun = Instant::now();
    while client.list_topics().await?.iter().any(|t| t.name == topic) {
        ensure!(begun.elapsed() < CHECK_WITHIN / 2, "it is still listed");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok("it is gone".to_owned())
}

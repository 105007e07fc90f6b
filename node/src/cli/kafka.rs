//! `weir kafka check`

use super::output::{lines, table};
use super::{Format, Usage};
use anyhow::{Context, Result, bail, ensure};
use clap::{Args, Subcommand};
use serde::Serialize;
use std::time::{Duration, Instant};
use weir_kafka::client::{Client, OFFSET_OUT_OF_RANGE, Place};
use weir_types::{Batch, BatchBuilder, Codec, Offset, Record};

/// Time for a check: longer than any timeout of a broker.
const CHECK_WITHIN: Duration = Duration::from_secs(15);
/// Bytes of a response with records.
const FETCH_BYTES: i32 = 1 << 20;
/// Records of a batch.
const RECORDS: u64 = 100;

/// Check brokers that speak Kafka's protocol.
#[derive(Debug, Args)]
pub(crate) struct KafkaArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check a broker with requests of Kafka's protocol, on a topic that is created and deleted for the check.
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
        let client = tokio::time::timeout(CHECK_WITHIN, Client::connect(&self.bootstrap)).await;
        let client = client.with_context(|| format!("no answer from {}", self.bootstrap))?;
        client.with_context(|| format!("cannot speak Kafka with {}", self.bootstrap))?;
        let mut random = [0; 4];
        getrandom::fill(&mut random).map_err(|e| anyhow::anyhow!("no randomness: {e}"))?;
        let topic = format!("weir-check-{:08x}", u32::from_le_bytes(random));
        let outcomes = checks(&self.bootstrap, &topic).await;
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

/// Runs all checks in their order, each on connections of its own, and deletes the topic in any case.
async fn checks(addr: &str, topic: &str) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    let made = timed(&mut outcomes, "create a topic", create(addr, topic)).await;
    if made {
        for (check, codec) in [
            ("produce and fetch, uncompressed", Codec::None),
            ("produce and fetch, gzip", Codec::Gzip),
            ("produce and fetch, snappy", Codec::Snappy),
            ("produce and fetch, lz4", Codec::Lz4),
            ("produce and fetch, zstd", Codec::Zstd),
        ] {
            timed(&mut outcomes, check, there_and_back(addr, topic, codec)).await;
        }
        timed(
            &mut outcomes,
            "fetch in the middle of a batch",
            middle(addr, topic),
        )
        .await;
        timed(&mut outcomes, "fetch waits for records", waits(addr, topic)).await;
        timed(
            &mut outcomes,
            "fetch beyond the end is refused",
            beyond(addr, topic),
        )
        .await;
        timed(&mut outcomes, "delete records", delete_records(addr, topic)).await;
        timed(&mut outcomes, "delete the topic", delete_topic(addr, topic)).await;
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

async fn create(addr: &str, topic: &str) -> Result<String> {
    Client::connect(addr).await?.create_topic(topic).await?;
    Ok(topic.to_owned())
}

/// Returns records with and without keys, values and headers.
fn sample() -> Vec<Record> {
    let record = |i: u8| Record {
        key: (i % 2 == 1).then(|| vec![i].into()),
        value: (i % 5 != 1).then(|| vec![i; 200].into()),
        headers: match i % 3 {
            1 => vec![("h".to_owned(), Some(vec![0, i].into()))],
            _ => Vec::new(),
        },
        timestamp: 1_700_000_000_000 + i64::from(i),
    };
    (0..RECORDS as u8).map(record).collect()
}

fn batch(records: &[Record], codec: Codec) -> Result<Batch> {
    let mut builder = BatchBuilder::new(codec);
    records.iter().for_each(|record| builder.push_record(record));
    Ok(builder.build(Offset::ZERO, None)?)
}

async fn there_and_back(addr: &str, topic: &str, codec: Codec) -> Result<String> {
    let mut client = Client::connect(addr).await?;
    let sent = sample();
    let first = client.produce(topic, &batch(&sent, codec)?).await?;
    let got = from(&mut client, topic, first).await?;
    let offsets = got.iter().map(|(offset, _)| *offset);
    ensure!(
        offsets.eq(first..first + RECORDS as i64),
        "offsets do not count up from {first}"
    );
    ensure!(
        got.into_iter().map(|(_, record)| record).eq(sent),
        "records came back changed"
    );
    Ok("keys, values, nulls and headers came back".to_owned())
}

/// Reads all records from `offset` on, with their offsets.
async fn from(client: &mut Client, topic: &str, mut offset: i64) -> Result<Vec<(i64, Record)>> {
    let end = client.offset(topic, Place::End).await?;
    let mut got = Vec::new();
    while offset < end {
        let batches = client
            .fetch(topic, offset, FETCH_BYTES, Duration::from_secs(1))
            .await?;
        let before = got.len();
        for batch in batches {
            for record in batch.body()?.records() {
                let record = record?;
                let at = record.offset.get() as i64;
                // The first batch may begin before the asked offset.
                if at >= offset {
                    got.push((at, record.to_record()));
                    offset = at + 1;
                }
            }
        }
        ensure!(got.len() > before, "no record came at offset {offset} of {end}");
    }
    Ok(got)
}

async fn middle(addr: &str, topic: &str) -> Result<String> {
    let mut client = Client::connect(addr).await?;
    let end = client.offset(topic, Place::End).await?;
    let got = from(&mut client, topic, end - 37).await?;
    ensure!(
        got.iter().map(|(offset, _)| *offset).eq(end - 37..end),
        "other records came than the asked ones"
    );
    Ok("records begin at the asked offset".to_owned())
}

async fn waits(addr: &str, topic: &str) -> Result<String> {
    let (mut reading, mut writing) = (Client::connect(addr).await?, Client::connect(addr).await?);
    let end = reading.offset(topic, Place::End).await?;
    let begun = Instant::now();
    let asked = topic.to_owned();
    let fetch = tokio::spawn(async move {
        let wait = Duration::from_secs(8);
        let fetched = reading.fetch(&asked, end, FETCH_BYTES, wait).await;
        (fetched, begun.elapsed())
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    writing.produce(topic, &batch(&sample(), Codec::None)?).await?;
    let produced = begun.elapsed();
    let (fetched, took) = fetch.await?;
    ensure!(!fetched?.is_empty(), "the response was empty after {took:?}");
    ensure!(
        took >= Duration::from_millis(300),
        "records came before they were sent"
    );
    Ok(format!(
        "{:.1} ms after they were sent",
        took.saturating_sub(produced).as_secs_f64() * 1e3
    ))
}

async fn beyond(addr: &str, topic: &str) -> Result<String> {
    let mut client = Client::connect(addr).await?;
    let end = client.offset(topic, Place::End).await?;
    let wait = Duration::from_millis(100);
    match client.fetch(topic, end + 1_000, 1_000, wait).await {
        Ok(_) => bail!("the request was not refused"),
        Err(error) => {
            ensure!(
                error.code() == Some(OFFSET_OUT_OF_RANGE),
                "another error came: {error}"
            );
            Ok("OFFSET_OUT_OF_RANGE".to_owned())
        }
    }
}

async fn delete_records(addr: &str, topic: &str) -> Result<String> {
    let mut client = Client::connect(addr).await?;
    client.delete_records(topic, 10).await?;
    let start = client.offset(topic, Place::Start).await?;
    ensure!(start == 10, "the partition begins at {start} instead of 10");
    Ok("the partition begins later".to_owned())
}

async fn delete_topic(addr: &str, topic: &str) -> Result<String> {
    let mut client = Client::connect(addr).await?;
    client.delete_topic(topic).await?;
    let begun = Instant::now();
    while client.has_topic(topic).await? {
        ensure!(begun.elapsed() < CHECK_WITHIN / 2, "the topic is still listed");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok("the topic is gone".to_owned())
}

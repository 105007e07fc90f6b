//! Streams the machine temperature data set through an inline pipeline and shows the result. `cargo demo`
//! runs this example against a node that it starts. All access goes through the client, as in any user's
//! program.

use anyhow::{Context, Result, bail};
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, UNIX_EPOCH};
use weir_client::{BatchBuilder, Client, Codec, KnownNodes, Offset, Piece, Record, Sent};

const SOURCE: &str = "machine-temperature";
const ALERTS: &str = "alerts";
/// Readings per batch, and batches in flight: a gateway's pace, so that latencies are those of a single
/// request.
const BATCH: usize = 100;
const WINDOW: usize = 4;

#[derive(Debug, Parser)]
struct Args {
    /// Address of the node.
    #[arg(long)]
    node: SocketAddr,
    /// Directory with the built modules.
    #[arg(long)]
    modules: PathBuf,
    /// This example's directory.
    #[arg(long)]
    example: PathBuf,
}

/// Labelled failures: start and end, in milliseconds since 1970.
type Windows = Vec<(i64, i64)>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let args = Args::parse();
    let client = Client::connect(args.node, &KnownNodes::forgetful(), "machine-temperature").await?;
    let readings = readings(&args.example.join("data/machine_temperature_system_failure.csv"))?;
    let windows = windows(&args.example.join("data/labels.json"))?;

    // The readings are from 2013: with the usual retention of seven days they would expire at once.
    let for_ever = [("retention.ms".to_owned(), "-1".to_owned())];
    for topic in [SOURCE, ALERTS] {
        client.create_topic(topic, 1, &for_ever).await?;
    }
    for name in ["threshold", "deadband"] {
        let file = args.modules.join(format!("weir_module_{name}.wasm"));
        let module = std::fs::read(&file).with_context(|| format!("cannot read `{}`", file.display()))?;
        client.push_module(name, "0.1.0", &module).await?;
        println!("pushed module {name}, {} KiB", module.len() / 1_024);
    }
    let pipeline = std::fs::read_to_string(args.example.join("pipeline.toml"))?;
    client.apply_pipeline(&pipeline).await?;
    println!(
        "applied pipeline machine-watch: {SOURCE} -> threshold -> threshold -> deadband, alerts -> {ALERTS}"
    );

    let begun = Instant::now();
    let mut latencies = stream(&client, &readings).await?;
    let took = begun.elapsed();
    report(&client, &readings, &windows, &mut latencies, took).await?;
    client.close().await;
    Ok(())
}

fn readings(path: &Path) -> Result<Vec<Record>> {
    let mut reader = csv::Reader::from_path(path)?;
    let mut records = Vec::new();
    for row in reader.records() {
        let row = row?;
        let (time, value) = (
            row.get(0).context("no timestamp")?,
            row.get(1).context("no value")?,
        );
        let timestamp = millis(time)?;
        let value: f64 = value.parse()?;
        let value = json!({ "time": time, "value": value }).to_string();
        records.push(Record {
            key: Some("machine-1".into()),
            value: Some(value.into()),
            timestamp,
            headers: Vec::new(),
        });
    }
    Ok(records)
}

fn windows(path: &Path) -> Result<Windows> {
    let labels: Value = serde_json::from_slice(&std::fs::read(path)?)?;
    let of = &labels["realKnownCause/machine_temperature_system_failure.csv"];
    let pairs = of.as_array().context("no labels")?.iter();
    let end = |v: &Value| millis(v.as_str().unwrap_or_default());
    pairs.map(|w| Ok((end(&w[0])?, end(&w[1])?))).collect()
}

fn millis(text: &str) -> Result<i64> {
    let time = humantime::parse_rfc3339_weak(text).with_context(|| format!("`{text}` is no time"))?;
    Ok(time.duration_since(UNIX_EPOCH)?.as_millis() as i64)
}

/// Sends all readings and returns the time until each batch was acknowledged.
async fn stream(client: &Client, readings: &[Record]) -> Result<Vec<Duration>> {
    let bar = ProgressBar::new(readings.len() as u64);
    bar.set_style(ProgressStyle::with_template(
        "{bar:50} {pos} of {len} readings, {per_sec}",
    )?);
    let mut producer = client.producer().await?;
    let mut waiting: VecDeque<(Sent, Instant, u64)> = VecDeque::new();
    let mut latencies = Vec::new();
    for part in readings.chunks(BATCH) {
        let mut builder = BatchBuilder::new(Codec::None);
        part.iter().for_each(|r| builder.push_record(r));
        let sent = producer
            .send(SOURCE, 0, &builder.build(Offset::ZERO, None)?)
            .await?;
        waiting.push_back((sent, Instant::now(), part.len() as u64));
        if waiting.len() >= WINDOW {
            settle(&mut waiting, &mut latencies, &bar).await?;
        }
    }
    while !waiting.is_empty() {
        settle(&mut waiting, &mut latencies, &bar).await?;
    }
    bar.finish();
    Ok(latencies)
}

async fn settle(
    waiting: &mut VecDeque<(Sent, Instant, u64)>,
    latencies: &mut Vec<Duration>,
    bar: &ProgressBar,
) -> Result<()> {
    if let Some((sent, begun, records)) = waiting.pop_front() {
        sent.done().await?;
        latencies.push(begun.elapsed());
        bar.inc(records);
    }
    Ok(())
}

async fn report(
    client: &Client,
    readings: &[Record],
    windows: &Windows,
    latencies: &mut [Duration],
    took: Duration,
) -> Result<()> {
    let pipelines = client.pipelines().await?;
    let pipeline = pipelines.iter().find(|p| p.name == "machine-watch");
    let pipeline = pipeline.context("the pipeline is gone")?;
    let alerts = count_alerts(client, windows).await?;
    let kept = read_back(client, SOURCE).await?.len() as u64;
    if kept != pipeline.kept
        || alerts.inside + alerts.outside != pipeline.routed.get(ALERTS).copied().unwrap_or(0)
    {
        bail!("what was read back is not what the pipeline says it kept");
    }
    latencies.sort_unstable();
    let at = |q: usize| {
        latencies
            .get(latencies.len() * q / 100)
            .copied()
            .unwrap_or_default()
    };
    let bytes_in: usize = readings
        .iter()
        .map(|r| r.value.as_ref().map_or(0, |v| v.len()))
        .sum();
    let topics = client.topics().await?;
    let stored: u64 = topics.iter().flat_map(|t| &t.partitions).map(|p| p.bytes).sum();
    let caught = alerts.caught.iter().filter(|c| **c).count();

    println!();
    println!(
        "readings in              {:>10}   in {:.2} s",
        pipeline.records_in,
        took.as_secs_f64()
    );
    println!(
        "kept                     {:>10}   read back: {kept}",
        pipeline.kept
    );
    println!(
        "dropped                  {:>10}   within the dead band",
        pipeline.dropped
    );
    println!(
        "routed to `{ALERTS}`       {:>10}",
        alerts.inside + alerts.outside
    );
    println!(
        "  inside labelled windows{:>10}   {caught} of {} failures seen",
        alerts.inside,
        windows.len()
    );
    println!("  outside                {:>10}", alerts.outside);
    println!("dead letters             {:>10}", pipeline.dead_letters);
    println!("bytes in                 {bytes_in:>10}");
    println!("bytes stored             {stored:>10}");
    println!(
        "acknowledged, p50        {:>10.2?}   batches of {BATCH}, after the sync",
        at(50)
    );
    println!("acknowledged, p99        {:>10.2?}", at(99));
    println!(
        "Wasm                     {:>10} ns a record, three stages",
        pipeline.wasm_ns / pipeline.records_in.max(1)
    );
    Ok(())
}

struct Alerts {
    inside: u64,
    outside: u64,
    caught: Vec<bool>,
}

async fn count_alerts(client: &Client, windows: &Windows) -> Result<Alerts> {
    let mut alerts = Alerts {
        inside: 0,
        outside: 0,
        caught: vec![false; windows.len()],
    };
    for timestamp in read_back(client, ALERTS).await? {
        match windows
            .iter()
            .position(|(from, to)| (*from..=*to).contains(&timestamp))
        {
            Some(window) => {
                alerts.inside += 1;
                alerts.caught[window] = true;
            }
            None => alerts.outside += 1,
        }
    }
    Ok(alerts)
}

/// Reads the timestamps of all records of a topic.
async fn read_back(client: &Client, topic: &str) -> Result<Vec<i64>> {
    let mut fetcher = client.fetcher().await?;
    let (mut from, mut timestamps) = (Offset::ZERO, Vec::new());
    loop {
        let fetched = fetcher.fetch(topic, 0, from, 1 << 20, Duration::ZERO).await?;
        for piece in fetched.pieces {
            match piece {
                Piece::Gap(gap) => bail!("records are missing: [{}, {})", gap.start, gap.end),
                Piece::Batch(batch) => {
                    for record in batch.body()?.records() {
                        timestamps.push(record?.timestamp);
                    }
                }
            }
        }
        if fetched.next == fetched.committed_end {
            return Ok(timestamps);
        }
        from = fetched.next;
    }
}

//! `weir produce`

use super::output::lines;
use super::{Format, To, Usage};
use anyhow::{Context, Result};
use bytes::Bytes;
use clap::{Args, ValueEnum};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::mpsc;
use weir_client::{Batch, BatchBuilder, Codec, Offset, Producer, Record, Sent};

/// A batch is sent when it has this many records or bytes, or nothing more has come for a moment.
const BATCH_RECORDS: u32 = 1_000;
const BATCH_BYTES: usize = 256 << 10;
/// Batches under way at once.
const WINDOW: usize = 16;
/// The moment.
const PAUSE: Duration = Duration::from_millis(5);

/// Send records from standard input or a file.
#[derive(Debug, Args)]
pub(crate) struct Produce {
    #[command(flatten)]
    to: To,
    /// Topic to send to.
    topic: String,
    /// File to read instead of standard input.
    #[arg(long)]
    file: Option<PathBuf>,
    /// A record a line; a JSON value a line; or CSV with a heading, each row a JSON object.
    #[arg(long, value_enum, default_value = "lines")]
    format: Input,
    /// Field of the JSON object that is the record's key.
    #[arg(long, value_name = "F")]
    key_field: Option<String>,
    /// Field that is the record's time: milliseconds since 1970, or as 2026-01-31 12:00:00.
    #[arg(long, value_name = "F")]
    time_field: Option<String>,
    /// Records a second at most.
    #[arg(long, value_name = "N")]
    rate: Option<u32>,
    /// Number batches, so that each is stored once however often it is sent.
    #[arg(long)]
    idempotent: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Input {
    Lines,
    Json,
    Csv,
}

impl Produce {
    pub(crate) async fn run(self) -> Result<()> {
        if self.format == Input::Lines && (self.key_field.is_some() || self.time_field.is_some()) {
            return Err(
                Usage("`--key-field` and `--time-field` need `--format json` or `csv`".to_owned()).into(),
            );
        }
        let client = self.to.connect().await?;
        let partitions = client.topic(&self.topic).await?.partitions.len() as u32;
        let producer_id = if self.idempotent {
            Some(client.init_producer().await?)
        } else {
            None
        };
        let (records, mut incoming) = mpsc::channel(BATCH_RECORDS as usize * 2);
        let parser = Parser {
            format: self.format,
            key_field: self.key_field,
            time_field: self.time_field,
        };
        let file = self.file;
        let reader = std::thread::spawn(move || parser.read(file, &records));
        let mut sender = Sender {
            producer: client.producer().await?,
            topic: self.topic,
            partitions,
            open: BTreeMap::new(),
            waiting: VecDeque::new(),
            sequences: BTreeMap::new(),
            producer_id,
            sticky: 0,
            acknowledged: 0,
        };
        let mut pace = self.rate.map(|rate| Pace {
            rate,
            begun: tokio::time::Instant::now(),
            sent: 0,
        });
        while let Some(record) = incoming.recv().await {
            if let Some(pace) = &mut pace {
                sender.flush_if(pace.wait_ms() > PAUSE.as_millis() as u64).await?;
                pace.next().await;
            }
            sender.add(record).await?;
            if incoming.is_empty()
                && tokio::time::timeout(PAUSE, async { incoming.is_closed() })
                    .await
                    .is_ok()
            {
                tokio::task::yield_now().await;
                sender.flush_if(incoming.is_empty()).await?;
            }
        }
        sender.finish().await?;
        let sent = sender.acknowledged;
        reader
            .join()
            .map_err(|_| anyhow::anyhow!("reading the input failed"))??;
        client.close().await;
        match self.to.output {
            Format::Json => lines([&json!({ "records": sent })])?,
            Format::Table => hint!("{sent} records acknowledged"),
        }
        Ok(())
    }
}

struct Pace {
    rate: u32,
    begun: tokio::time::Instant,
    sent: u64,
}

impl Pace {
    fn due(&self) -> tokio::time::Instant {
        self.begun + Duration::from_secs_f64(self.sent as f64 / f64::from(self.rate.max(1)))
    }

    fn wait_ms(&self) -> u64 {
        self.due()
            .saturating_duration_since(tokio::time::Instant::now())
            .as_millis() as u64
    }

    async fn next(&mut self) {
        tokio::time::sleep_until(self.due()).await;
        self.sent += 1;
    }
}

/// Gathers records into batches and keeps a window of them under way.
struct Sender {
    producer: Producer,
    topic: String,
    partitions: u32,
    open: BTreeMap<u32, BatchBuilder>,
    waiting: VecDeque<(Sent, u32)>,
    sequences: BTreeMap<u32, i32>,
    producer_id: Option<i64>,
    /// Partition for records without a key, until its batch is sent.
    sticky: u32,
    acknowledged: u64,
}

impl Sender {
    async fn add(&mut self, record: Record) -> Result<()> {
        let partition = match &record.key {
            Some(key) => weir_types::murmur2::partition_for(key, self.partitions),
            None => self.sticky % self.partitions.max(1),
        };
        let builder = self
            .open
            .entry(partition)
            .or_insert_with(|| BatchBuilder::new(Codec::None));
        builder.push_record(&record);
        if builder.count() >= BATCH_RECORDS || builder.bytes() >= BATCH_BYTES {
            self.send(partition).await?;
        }
        Ok(())
    }

    async fn flush_if(&mut self, now: bool) -> Result<()> {
        while now && let Some(partition) = self.open.keys().next().copied() {
            self.send(partition).await?;
        }
        Ok(())
    }

    async fn send(&mut self, partition: u32) -> Result<()> {
        let Some(builder) = self.open.remove(&partition) else {
            return Ok(());
        };
        self.sticky = self.sticky.wrapping_add(1);
        let count = builder.count();
        let sequence = self.sequences.entry(partition).or_default();
        let number = self.producer_id.map(|id| weir_types::Producer {
            id,
            epoch: 0,
            sequence: *sequence,
        });
        *sequence = sequence.wrapping_add(count as i32) & i32::MAX;
        let batch: Batch = builder.build(Offset::ZERO, number)?;
        // A node knows the last five batches of a producer again.
        let window = self
            .producer_id
            .map_or(WINDOW, |_| weir_types::limits::PRODUCER_WINDOW);
        while self.waiting.len() >= window {
            self.settle_one().await?;
        }
        let sent = self.producer.send(&self.topic, partition, &batch).await?;
        self.waiting.push_back((sent, count));
        Ok(())
    }

    async fn settle_one(&mut self) -> Result<()> {
        if let Some((sent, count)) = self.waiting.pop_front() {
            let acknowledged = self.acknowledged;
            sent.done()
                .await
                .with_context(|| format!("after {acknowledged} records were acknowledged"))?;
            self.acknowledged += u64::from(count);
        }
        Ok(())
    }

    async fn finish(&mut self) -> Result<()> {
        self.flush_if(true).await?;
        while !self.waiting.is_empty() {
            self.settle_one().await?;
        }
        Ok(())
    }
}

/// Turns input into records.
struct Parser {
    format: Input,
    key_field: Option<String>,
    time_field: Option<String>,
}

impl Parser {
    fn read(&self, file: Option<PathBuf>, to: &mpsc::Sender<Record>) -> Result<()> {
        let input: Box<dyn Read> = match &file {
            Some(path) => {
                Box::new(File::open(path).with_context(|| format!("cannot read `{}`", path.display()))?)
            }
            None => Box::new(std::io::stdin()),
        };
        if self.format == Input::Csv {
            return self.read_csv(input, to);
        }
        for (n, line) in BufReader::new(input).split(b'\n').enumerate() {
            let mut line = line?;
            if line.last() == Some(&b'\r') {
                line.pop();
            }
            let record = match self.format {
                Input::Json if line.is_empty() => continue,
                Input::Json => {
                    let value: Value =
                        serde_json::from_slice(&line).with_context(|| not_json(n + 1, &line))?;
                    self.record(line.into(), &value)
                        .with_context(|| format!("line {}", n + 1))?
                }
                Input::Lines | Input::Csv => Record {
                    value: Some(line.into()),
                    timestamp: now_ms(),
                    ..Record::default()
                },
            };
            if to.blocking_send(record).is_err() {
                break;
            }
        }
        Ok(())
    }

    fn read_csv(&self, input: Box<dyn Read>, to: &mpsc::Sender<Record>) -> Result<()> {
        let mut reader = csv::Reader::from_reader(input);
        let headings = reader.headers()?.clone();
        for (n, row) in reader.records().enumerate() {
            let row = row?;
            let mut fields = Map::new();
            for (name, cell) in headings.iter().zip(&row) {
                fields.insert(name.to_owned(), cell_value(cell));
            }
            let value = Value::Object(fields);
            let record = self
                .record(value.to_string().into(), &value)
                .with_context(|| format!("row {}", n + 1))?;
            if to.blocking_send(record).is_err() {
                break;
            }
        }
        Ok(())
    }

    fn record(&self, text: Bytes, value: &Value) -> Result<Record> {
        let key = match &self.key_field {
            None => None,
            Some(field) => match &value[field] {
                Value::Null => None,
                Value::String(key) => Some(Bytes::from(key.clone())),
                other => Some(Bytes::from(other.to_string())),
            },
        };
        let timestamp = match &self.time_field {
            None => now_ms(),
            Some(field) => timestamp(&value[field]).with_context(|| format!("field `{field}`"))?,
        };
        Ok(Record {
            key,
            value: Some(text),
            timestamp,
            headers: Vec::new(),
        })
    }
}

fn timestamp(value: &Value) -> Result<i64> {
    if let Some(ms) = value.as_i64() {
        return Ok(ms);
    }
    let text = value.as_str().context("is no time")?;
    let time = humantime::parse_rfc3339_weak(text).with_context(|| format!("`{text}` is no time"))?;
    Ok(time
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_millis() as i64))
}

fn now_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_millis() as i64)
}

/// A number where JSON would write it the same way, so that no digit of an id is lost; text otherwise.
fn cell_value(cell: &str) -> Value {
    match serde_json::from_str::<serde_json::Number>(cell) {
        Ok(number) if number.to_string() == cell => Value::Number(number),
        // As a double is written, but for zeros at its end.
        Ok(number) if number.is_f64() && !cell.contains(['e', 'E']) && cell.len() <= 16 => {
            Value::Number(number)
        }
        _ => Value::from(cell),
    }
}

fn not_json(n: usize, line: &[u8]) -> String {
    let start = String::from_utf8_lossy(line.get(..40).unwrap_or(line)).into_owned();
    format!("line {n} is not JSON: `{start}`; the lines before it are taken, `--format lines` takes any text")
}

#[cfg(test)]
mod tests {
    #[test]
    fn cells_keep_their_digits() {
        let value = |cell: &str| super::cell_value(cell).to_string();
        for (cell, want) in [
            ("1", "1"),
            ("-7", "-7"),
            ("12345678901234567", "12345678901234567"),
            ("21.5", "21.5"),
            ("21.50", "21.5"),
            ("007", "\"007\""),
            ("1e3", "\"1e3\""),
            ("", "\"\""),
            ("press", "\"press\""),
            ("0.12345678901234567890", "\"0.12345678901234567890\""),
        ] {
            assert_eq!(value(cell), want, "{cell}");
        }
    }
}

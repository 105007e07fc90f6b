//! `weir produce`

use super::input::Input;
use super::output::lines;
use super::{Format, To};
use anyhow::{Context, Result};
use clap::Args;
use serde::Serialize;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;
use tokio::sync::mpsc;
use weir_client::{Batch, BatchBuilder, Codec, Offset, Producer, Record, Sent};

/// Records and bytes at which a batch is sent; a batch is also sent after a short pause of the input.
const BATCH_RECORDS: u32 = 1_000;
const BATCH_BYTES: usize = 256 << 10;
/// Most batches in flight.
const WINDOW: usize = 16;
/// Pause of the input after which a batch is sent.
const PAUSE: Duration = Duration::from_millis(5);

/// Send records from standard input or a file.
#[derive(Debug, Args)]
pub(crate) struct Produce {
    #[command(flatten)]
    to: To,
    /// Topic to send to.
    topic: String,
    #[command(flatten)]
    input: Input,
    /// Most records a second.
    #[arg(long, value_name = "N")]
    rate: Option<u32>,
    /// Number batches with a producer id, so that each is stored once however often it is sent.
    #[arg(long)]
    idempotent: bool,
}

/// Acknowledged records.
#[derive(Serialize)]
struct Acknowledged {
    records: u64,
}

impl Produce {
    pub(crate) async fn run(self) -> Result<()> {
        self.input.check()?;
        let client = self.to.connect().await?;
        let partitions = client.topic(&self.topic).await?.partitions.len() as u32;
        let producer_id = if self.idempotent {
            Some(client.init_producer().await?)
        } else {
            None
        };
        let (records, mut incoming) = mpsc::channel(BATCH_RECORDS as usize * 2);
        let input = self.input;
        let reader = std::thread::spawn(move || input.read(&records));
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
            Format::Json => lines([Acknowledged { records: sent }])?,
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

/// Gathers records into batches, and keeps a window of batches in flight.
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
        // A node recognises the last five batches of a producer.
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

//! `weir consume`

use super::output::json;
use super::{Format, To, Usage};
use anyhow::{Context, Result};
use clap::Args;
use std::collections::BTreeMap;
use std::io::Write;
use std::time::Duration;
use tokio::sync::mpsc;
use weir_client::{Client, Offset, Piece, Place, Record};
use weir_types::parse_time;

/// Wait of a fetch at the end of a followed partition.
const WAIT: Duration = Duration::from_secs(20);
const FETCH_BYTES: u32 = 1 << 20;

/// Read records.
#[derive(Debug, Args)]
pub(crate) struct Consume {
    #[command(flatten)]
    to: To,
    /// Topic to read.
    topic: String,
    /// Where to begin: start, end, an offset, or a time like 2026-01-31T12:00:00Z.
    #[arg(long)]
    from: Option<String>,
    /// Stop after this many records.
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// Begin at the committed offsets of this consumer group, and commit progress.
    #[arg(long, value_name = "G")]
    group: Option<String>,
    /// Only this partition.
    #[arg(long, value_name = "P")]
    partition: Option<u32>,
    /// Wait for new records instead of stopping at the end.
    #[arg(long)]
    follow: bool,
}

enum Event {
    Record(u32, Offset, Box<Record>),
    Gap(u32, weir_client::Gap),
}

impl Consume {
    pub(crate) async fn run(self) -> Result<()> {
        let client = self.to.connect().await?;
        let all = client.topic(&self.topic).await?.partitions.len() as u32;
        let partitions: Vec<u32> = match self.partition {
            Some(p) if p >= all => {
                return Err(Usage(format!(
                    "topic `{}` has {all} partitions, there is no {p}",
                    self.topic
                ))
                .into());
            }
            Some(p) => vec![p],
            None => (0..all).collect(),
        };
        // Partitions are read in turn, to keep few records in memory; followed partitions are read side by
        // side.
        let (events, mut incoming) = mpsc::channel(1_024);
        let mut readers = Vec::new();
        let is_only = partitions.len() == 1;
        for partition in partitions {
            let from = self.start(&client, partition, is_only).await?;
            let end = match self.follow {
                true => None,
                false => Some(client.offset_at(&self.topic, partition, Place::End).await?),
            };
            let (client, topic, events) = (client.clone(), self.topic.clone(), events.clone());
            readers.push(tokio::spawn(read(client, topic, partition, from, end, events)));
        }
        drop(events);
        let mut done = BTreeMap::new();
        let printed = self.print(&mut incoming, &mut done).await;
        readers.iter().for_each(tokio::task::JoinHandle::abort);
        // A record that could not be printed is not committed.
        printed?;
        if let (Some(group), false) = (&self.group, done.is_empty()) {
            let offsets = done
                .into_iter()
                .map(|(p, next)| (self.topic.clone(), p, next))
                .collect();
            client.commit_offsets(group, offsets).await?;
        }
        for reader in readers {
            match reader.await {
                Ok(result) => result?,
                Err(e) if e.is_cancelled() => {}
                Err(e) => return Err(e.into()),
            }
        }
        client.close().await;
        Ok(())
    }

    /// Prints records until the count is reached, there are no more, or the user interrupts.
    async fn print(
        &self,
        incoming: &mut mpsc::Receiver<Event>,
        done: &mut BTreeMap<u32, Offset>,
    ) -> Result<()> {
        let mut out = std::io::BufWriter::new(std::io::stdout().lock());
        let mut left = self.count.unwrap_or(u64::MAX);
        let interrupt = tokio::signal::ctrl_c();
        tokio::pin!(interrupt);
        while left > 0 {
            let event = tokio::select! {
                biased;
                _ = &mut interrupt => break,
                event = incoming.recv() => match event {
                    Some(event) => event,
                    None => break,
                },
            };
            match event {
                Event::Gap(partition, gap) => {
                    out.flush()?;
                    hint!(
                        "partition {partition}: no records in [{}, {}): {}",
                        gap.start,
                        gap.end,
                        gap.reason
                    );
                    done.insert(partition, gap.end);
                }
                Event::Record(partition, offset, record) => {
                    match self.to.output {
                        Format::Json => {
                            writeln!(out, "{}", json(&show(partition, offset, &record))?)?;
                        }
                        Format::Table => {
                            out.write_all(record.value.as_deref().unwrap_or_default())?;
                            out.write_all(b"\n")?;
                        }
                    }
                    done.insert(partition, offset.plus(1));
                    left -= 1;
                }
            }
            if incoming.is_empty() {
                out.flush()?;
            }
        }
        Ok(out.flush()?)
    }

    async fn start(&self, client: &Client, partition: u32, is_only: bool) -> Result<Offset> {
        let place = match (&self.from, &self.group) {
            (None, Some(group)) => {
                if let Some(offset) = client.committed_offset(group, &self.topic, partition).await? {
                    return Ok(offset);
                }
                Place::Start
            }
            (None, None) => {
                if self.follow {
                    Place::End
                } else {
                    Place::Start
                }
            }
            (Some(from), _) => match from.as_str() {
                "start" => Place::Start,
                "end" => Place::End,
                text => match text.parse::<u64>() {
                    Ok(offset) => {
                        let end = client.offset_at(&self.topic, partition, Place::End).await?;
                        let why = format!("`--from {offset}`: partition {partition} ends at {end}");
                        if offset > end.get() && is_only {
                            return Err(Usage(why).into());
                        }
                        if offset > end.get() {
                            hint!("{why}");
                        }
                        return Ok(Offset::new(offset).min(end));
                    }
                    Err(_) => Place::Time(time(text)?),
                },
            },
        };
        Ok(client.offset_at(&self.topic, partition, place).await?)
    }
}

fn time(text: &str) -> Result<i64> {
    parse_time(text).map_err(|e| Usage(format!("`--from`: {e}; or start, end, or an offset")).into())
}

/// Reads a partition, up to `end` or for ever.
async fn read(
    client: Client,
    topic: String,
    partition: u32,
    mut from: Offset,
    end: Option<Offset>,
    events: mpsc::Sender<Event>,
) -> Result<()> {
    let mut fetcher = client.fetcher().await?;
    let wait = if end.is_some() { Duration::ZERO } else { WAIT };
    while end.is_none_or(|end| from < end) {
        let fetched = fetcher.fetch(&topic, partition, from, FETCH_BYTES, wait).await;
        let fetched = fetched.with_context(|| format!("partition {partition} from offset {from}"))?;
        for piece in fetched.pieces {
            match piece {
                Piece::Gap(gap) => drop(events.send(Event::Gap(partition, gap)).await),
                Piece::Batch(batch) => {
                    for record in batch.body()?.records() {
                        let record = record?;
                        if record.offset < from {
                            continue;
                        }
                        let event = Event::Record(partition, record.offset, Box::new(record.to_record()));
                        if events.send(event).await.is_err() {
                            return Ok(());
                        }
                    }
                }
            }
        }
        from = fetched.next;
    }
    Ok(())
}

/// Returns a record as JSON shows it.
pub(super) fn show(partition: u32, offset: Offset, record: &Record) -> weir_api::Record<'_> {
    let headers = record.headers.iter();
    let shown = weir_api::Record::new(
        offset.get(),
        record.timestamp,
        record.key.as_deref(),
        record.value.as_deref(),
    );
    weir_api::Record {
        partition: Some(partition),
        headers: headers
            .map(|(name, value)| weir_api::Header::new(name, value.as_deref()))
            .collect(),
        ..shown
    }
}

//! `weir deadletter`

use super::output::{lines, table};
use super::{Format, To, Usage};
use anyhow::{Context, Result, bail};
use bytes::Bytes;
use clap::{Args, Subcommand};
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;
use weir_client::{BatchBuilder, Client, Codec, Fetcher, Offset, Piece, Place, Record};
use weir_pipeline::dead_letter::header;

const FETCH_BYTES: u32 = 1 << 20;
/// Consumer group that keeps the progress of replays.
const REPLAYED: &str = "weir-deadletter-replay";
/// Most characters of a value in a table.
const SHOWN_CHARS: usize = 60;

/// List, show and replay dead letters of pipelines.
#[derive(Debug, Args)]
pub(crate) struct DeadletterArgs {
    #[command(flatten)]
    to: To,
    #[command(subcommand)]
    command: DeadletterCommand,
}

#[derive(Debug, Subcommand)]
enum DeadletterCommand {
    /// List the topics of dead letters, and the number of letters in each.
    List,
    /// Show dead letters: their origin, the module that refused them, and the reason.
    Show {
        /// Topic of dead letters.
        topic: String,
        /// Show the last N letters of each partition.
        #[arg(long, value_name = "N", default_value_t = 20)]
        count: u64,
    },
    /// Send dead letters back to their topics, as they were, once each: the headers that a pipeline added are
    /// removed. Goes on where the last replay ended.
    Replay {
        /// Topic of dead letters.
        topic: String,
        /// Send all letters to this topic instead.
        #[arg(long, value_name = "TOPIC")]
        into: Option<String>,
        /// Replay all letters, also those that were replayed before.
        #[arg(long)]
        again: bool,
        /// Replay at most N letters of each partition.
        #[arg(long, value_name = "N")]
        count: Option<u64>,
    },
}

/// A dead letter.
struct Letter {
    partition: u32,
    offset: Offset,
    /// The record before it became a dead letter.
    record: Record,
    /// Headers that the pipeline added.
    why: BTreeMap<String, String>,
}

/// A dead letter in JSON.
#[derive(Serialize)]
struct ShownLetter<'a> {
    #[serde(flatten)]
    record: weir_api::Record<'a>,
    why: &'a BTreeMap<String, String>,
}

/// A topic of dead letters.
#[derive(Serialize)]
struct LetterTopic {
    topic: String,
    pipelines: Vec<String>,
    letters: u64,
    not_replayed: u64,
}

impl Letter {
    fn read(partition: u32, offset: Offset, mut record: Record) -> Self {
        let mut why = BTreeMap::new();
        // Only the headers of the last pipeline: a record may become a dead letter twice.
        while let Some((name, value)) = record
            .headers
            .pop_if(|(name, _)| header::ALL.contains(&name.as_str()) && !why.contains_key(name))
        {
            let value = value.map(|value| String::from_utf8_lossy(&value).into_owned());
            why.insert(name, value.unwrap_or_default());
        }
        Self {
            partition,
            offset,
            record,
            why,
        }
    }

    fn why(&self, name: &str) -> &str {
        self.why.get(name).map_or("", String::as_str)
    }

    fn shown(&self) -> ShownLetter<'_> {
        ShownLetter {
            record: super::consume::show(self.partition, self.offset, &self.record),
            why: &self.why,
        }
    }
}

impl DeadletterArgs {
    pub(crate) async fn run(self) -> Result<()> {
        let client = self.to.connect().await?;
        match &self.command {
            DeadletterCommand::List => self.list(&client).await?,
            DeadletterCommand::Show { topic, count } => self.show(&client, topic, *count).await?,
            DeadletterCommand::Replay {
                topic,
                into,
                again,
                count,
            } => {
                let most = count.unwrap_or(u64::MAX);
                let replayed = replay(&client, topic, into.as_deref(), *again, most).await?;
                hint!("{replayed} dead letters are on their way again");
            }
        }
        client.close().await;
        Ok(())
    }

    async fn list(&self, client: &Client) -> Result<()> {
        let mut of: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for pipeline in client.pipelines().await? {
            let topic = pipeline.spec.dead_letters();
            of.entry(topic).or_default().push(pipeline.spec.name);
        }
        let mut rows = Vec::new();
        for topic in client.topics().await? {
            let pipelines = of.get(&topic.name).cloned().unwrap_or_default();
            if pipelines.is_empty() && !topic.name.ends_with(".dead") {
                continue;
            }
            let (mut letters, mut left) = (0, 0);
            for partition in 0..topic.partitions.len() as u32 {
                let at = |place| client.offset_at(&topic.name, partition, place);
                let (start, end) = (at(Place::Start).await?, at(Place::End).await?);
                let replayed = client.committed_offset(REPLAYED, &topic.name, partition).await?;
                letters += end.since(start);
                left += end.since(replayed.unwrap_or(start).max(start).min(end));
            }
            rows.push(LetterTopic {
                topic: topic.name,
                pipelines,
                letters,
                not_replayed: left,
            });
        }
        if self.to.output == Format::Json {
            return lines(rows);
        }
        let row = |row: LetterTopic| {
            vec![
                row.topic,
                row.pipelines.join(", "),
                row.letters.to_string(),
                row.not_replayed.to_string(),
            ]
        };
        let rows: Vec<Vec<String>> = rows.into_iter().map(row).collect();
        table(&["TOPIC", "PIPELINES", "LETTERS", "NOT REPLAYED"], &rows)
    }

    async fn show(&self, client: &Client, topic: &str, count: u64) -> Result<()> {
        let partitions = client.topic(topic).await?.partitions.len() as u32;
        let mut fetcher = client.fetcher().await?;
        let mut rows = Vec::new();
        for partition in 0..partitions {
            let at = |place| client.offset_at(topic, partition, place);
            let (start, end) = (at(Place::Start).await?, at(Place::End).await?);
            let mut from = Offset::new(end.get().saturating_sub(count)).max(start);
            while from < end {
                let letters;
                (letters, from) = read(&mut fetcher, topic, partition, from).await?;
                for letter in letters {
                    match self.to.output {
                        Format::Json => lines([letter.shown()])?,
                        Format::Table => rows.push(row(&letter)),
                    }
                }
            }
        }
        match self.to.output {
            Format::Json => Ok(()),
            Format::Table => table(
                &["PARTITION", "OFFSET", "FROM", "MODULE", "WHY", "KEY", "VALUE"],
                &rows,
            ),
        }
    }
}

fn row(letter: &Letter) -> Vec<String> {
    let from = match letter.why(header::TIMER) {
        "" => format!(
            "{}/{}@{}",
            letter.why(header::TOPIC),
            letter.why(header::PARTITION),
            plain(letter.why(header::OFFSET))
        ),
        due => format!("a timer of {due}"),
    };
    vec![
        letter.partition.to_string(),
        letter.offset.to_string(),
        from,
        letter.why(header::MODULE_NAME).to_owned(),
        letter.why(header::ERROR).to_owned(),
        short(letter.record.key.as_ref()),
        short(letter.record.value.as_ref()),
    ]
}

/// Returns a number without leading zeros.
fn plain(number: &str) -> &str {
    let digits = number.trim_start_matches('0');
    if digits.is_empty() {
        number.get(..1).unwrap_or_default()
    } else {
        digits
    }
}

fn short(bytes: Option<&Bytes>) -> String {
    let Some(bytes) = bytes else {
        return "-".to_owned();
    };
    let text = String::from_utf8_lossy(bytes);
    let mut shown: String = text
        .chars()
        .take(SHOWN_CHARS)
        .collect::<String>()
        .escape_debug()
        .to_string();
    if text.chars().nth(SHOWN_CHARS).is_some() {
        shown.push('…');
    }
    shown
}

/// Reads letters from an offset on. Returns them and the next offset.
async fn read(
    fetcher: &mut Fetcher,
    topic: &str,
    partition: u32,
    from: Offset,
) -> Result<(Vec<Letter>, Offset)> {
    let fetched = fetcher
        .fetch(topic, partition, from, FETCH_BYTES, Duration::ZERO)
        .await;
    let fetched = fetched.with_context(|| format!("partition {partition} from offset {from}"))?;
    let mut letters = Vec::new();
    for piece in fetched.pieces {
        match piece {
            Piece::Gap(gap) => hint!(
                "partition {partition}: no records in [{}, {}): {}",
                gap.start,
                gap.end,
                gap.reason
            ),
            Piece::Batch(batch) => {
                for record in batch.body()?.records() {
                    let record = record?;
                    if record.offset >= from {
                        letters.push(Letter::read(partition, record.offset, record.to_record()));
                    }
                }
            }
        }
    }
    Ok((letters, fetched.next))
}

/// Sends each letter to its origin, and commits the progress after each step. An interrupted replay leaves no
/// letter out; the last few may be sent twice.
async fn replay(client: &Client, topic: &str, into: Option<&str>, again: bool, most: u64) -> Result<u64> {
    if into == Some(topic) {
        bail!(Usage(
            "dead letters cannot be sent to the topic that they lie in".to_owned()
        ));
    }
    let partitions = client.topic(topic).await?.partitions.len() as u32;
    let mut fetcher = client.fetcher().await?;
    let mut producer = client.producer().await?;
    let mut sizes: BTreeMap<String, u32> = BTreeMap::new();
    let mut replayed = 0;
    for partition in 0..partitions {
        let at = |place| client.offset_at(topic, partition, place);
        let (start, end) = (at(Place::Start).await?, at(Place::End).await?);
        let known = client.committed_offset(REPLAYED, topic, partition).await?;
        let mut from = match again {
            true => start,
            false => known.unwrap_or(start).max(start),
        };
        let mut left = most;
        while from < end && left > 0 {
            let (letters, mut next) = read(&mut fetcher, topic, partition, from).await?;
            let mut batches: BTreeMap<(String, u32), BatchBuilder> = BTreeMap::new();
            for letter in letters {
                if left == 0 || letter.offset >= end {
                    next = letter.offset;
                    break;
                }
                left -= 1;
                let Some((to, number)) = place(client, &letter, into, &mut sizes).await? else {
                    hint!(
                        "partition {partition}, offset {}: not replayed, since it comes from no record",
                        letter.offset
                    );
                    continue;
                };
                let batch = batches
                    .entry((to, number))
                    .or_insert_with(|| BatchBuilder::new(Codec::None));
                batch.push_record(&letter.record);
                replayed += 1;
            }
            for ((to, number), builder) in batches {
                let batch = builder.build(Offset::ZERO, None)?;
                let sent = producer.send(&to, number, &batch).await?;
                sent.done()
                    .await
                    .with_context(|| format!("to partition {number} of `{to}`"))?;
            }
            client
                .commit_offsets(REPLAYED, vec![(topic.to_owned(), partition, next)])
                .await?;
            from = next;
        }
    }
    Ok(replayed)
}

/// Returns the destination of a letter: the partition of its origin, if it has an origin.
async fn place(
    client: &Client,
    letter: &Letter,
    into: Option<&str>,
    sizes: &mut BTreeMap<String, u32>,
) -> Result<Option<(String, u32)>> {
    let source = letter.why(header::TOPIC);
    if source.is_empty() || !letter.why(header::TIMER).is_empty() {
        return Ok(None);
    }
    let to = into.unwrap_or(source);
    let size = match sizes.get(to) {
        Some(size) => *size,
        None => {
            let size = client.topic(to).await?.partitions.len() as u32;
            *sizes.entry(to.to_owned()).or_insert(size)
        }
    };
    let number: u32 = letter.why(header::PARTITION).parse().unwrap_or(0);
    Ok(Some((to.to_owned(), number % size.max(1))))
}

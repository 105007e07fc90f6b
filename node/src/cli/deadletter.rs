//! `weir deadletter`

use super::output::{lines, table, text};
use super::{Format, To, Usage};
use anyhow::{Context, Result, bail};
use bytes::Bytes;
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;
use weir_client::{BatchBuilder, Client, Codec, Fetcher, Offset, Piece, Place, Record};
use weir_pipeline::Spec;
use weir_pipeline::dead_letter::header;

const FETCH_BYTES: u32 = 1 << 20;
/// The group that remembers how far a topic of dead letters was replayed.
const REPLAYED: &str = "weir-deadletter-replay";
/// Of a value that is shown for people.
const SHOWN_CHARS: usize = 60;

/// Look at records that pipelines could not take, and send them on their way again.
#[derive(Debug, Args)]
pub(crate) struct DeadletterArgs {
    #[command(flatten)]
    to: To,
    #[command(subcommand)]
    command: DeadletterCommand,
}

#[derive(Debug, Subcommand)]
enum DeadletterCommand {
    /// List the topics that pipelines send dead letters to, and how many are in them.
    List,
    /// Show dead letters: where they come from, which module refused them, and why.
    Show {
        /// The topic of dead letters.
        topic: String,
        /// The last so many of each partition.
        #[arg(long, value_name = "N", default_value_t = 20)]
        count: u64,
    },
    /// Send dead letters to the topic that they come from, as they were, once each: what a pipeline put behind their headers is
    /// taken off again. Goes on where the last replay ended.
    Replay {
        /// The topic of dead letters.
        topic: String,
        /// Another topic than the one that each comes from.
        #[arg(long, value_name = "TOPIC")]
        into: Option<String>,
        /// All that are there, whatever was replayed before.
        #[arg(long)]
        again: bool,
        /// At most so many of each partition.
        #[arg(long, value_name = "N")]
        count: Option<u64>,
    },
}

/// A dead letter.
struct Letter {
    partition: u32,
    offset: Offset,
    /// As it was before it became one.
    record: Record,
    /// What was put behind its headers.
    why: BTreeMap<String, String>,
}

impl Letter {
    fn read(partition: u32, offset: Offset, mut record: Record) -> Self {
        let mut why = BTreeMap::new();
        // Only what the last pipeline has put there: a letter may have been one before.
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

    fn json(&self) -> Value {
        let mut shown = super::consume::show(self.partition, self.offset, &self.record);
        shown["why"] = json!(self.why);
        shown
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
        let pipelines = client.pipelines().await?;
        let pipelines: Vec<Value> = serde_json::from_slice(&pipelines).context("the answer is not JSON")?;
        let mut of: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for pipeline in &pipelines {
            let spec: Spec =
                serde_json::from_value(pipeline["spec"].clone()).context("a pipeline of another release")?;
            if let Ok(topic) = spec.dead_letters() {
                of.entry(topic.to_string())
                    .or_default()
                    .push(spec.name.to_string());
            }
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
            rows.push(json!({ "topic": topic.name, "pipelines": pipelines, "letters": letters, "not_replayed": left }));
        }
        if self.to.output == Format::Json {
            return lines(&rows);
        }
        let row = |row: &Value| {
            let names = row["pipelines"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_str);
            let names: Vec<&str> = names.collect();
            vec![
                text(row, "topic"),
                names.join(", "),
                text(row, "letters"),
                text(row, "not_replayed"),
            ]
        };
        let rows: Vec<Vec<String>> = rows.iter().map(row).collect();
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
                        Format::Json => lines([&letter.json()])?,
                        Format::Table => rows.push(shown(&letter)),
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

fn shown(letter: &Letter) -> Vec<String> {
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

/// A number without the zeros that keep it at one width.
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

/// Letters from an offset on, and where they end.
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

/// Sends each letter to where it comes from, and notes it once it is there: what is interrupted goes on there, so that none is left
/// out, and the last few may go twice.
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

/// Where a letter goes: to the partition that it comes from, where there is one.
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

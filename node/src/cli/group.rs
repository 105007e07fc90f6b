//! `weir group`

use super::output::{fields, lines, table, text};
use super::{Format, To, Usage};
use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use weir_client::{Client, Offset, Place};
use weir_types::parse_time;

/// List and describe consumer groups, set where they go on, and delete them.
#[derive(Debug, Args)]
pub(crate) struct GroupArgs {
    #[command(flatten)]
    to: To,
    #[command(subcommand)]
    command: GroupCommand,
}

#[derive(Debug, Subcommand)]
enum GroupCommand {
    /// List all groups: Kafka's, and those of `weir consume --group`.
    List,
    /// Show a group's members, how far it is, and what it has still to read.
    Describe {
        /// Its name.
        name: String,
    },
    /// Set where a group without members goes on. Shows what would change; with `--execute` it does.
    ResetOffsets {
        /// Its name; a group that is not there yet begins there.
        name: String,
        /// The topic.
        #[arg(long)]
        topic: String,
        /// Only this partition.
        #[arg(long, value_name = "P")]
        partition: Option<u32>,
        /// Where to: start, end, an offset, or a time as 2026-01-31T12:00:00Z.
        #[arg(long, value_name = "PLACE")]
        to_place: String,
        /// Do it.
        #[arg(long)]
        execute: bool,
    },
    /// Forget a group without members, and how far it was.
    Delete {
        /// Its name.
        name: String,
    },
}

impl GroupArgs {
    pub(crate) async fn run(self) -> Result<()> {
        let client = self.to.connect().await?;
        match &self.command {
            GroupCommand::List => self.list(&client).await?,
            GroupCommand::Describe { name } => self.describe(&client, name).await?,
            GroupCommand::ResetOffsets {
                name,
                topic,
                partition,
                to_place,
                execute,
            } => {
                let reset = Reset {
                    topic,
                    partition: *partition,
                    place: to_place,
                    execute: *execute,
                };
                self.reset(&client, name, &reset).await?;
            }
            GroupCommand::Delete { name } => {
                client.delete_group(name).await?;
                hint!("deleted group {name}");
            }
        }
        client.close().await;
        Ok(())
    }

    async fn list(&self, client: &Client) -> Result<()> {
        let groups: Vec<Value> = parsed(&client.groups().await?)?;
        if self.to.output == Format::Json {
            return lines(&groups);
        }
        let row = |g: &Value| vec![text(g, "name"), text(g, "state"), text(g, "offsets")];
        let rows: Vec<Vec<String>> = groups.iter().map(row).collect();
        table(&["GROUP", "STATE", "OFFSETS"], &rows)
    }

    async fn describe(&self, client: &Client, name: &str) -> Result<()> {
        let mut group: Value = parsed(&client.group(name).await?)?;
        let offsets = group["offsets"].take();
        let mut places = Vec::new();
        for place in offsets.as_array().into_iter().flatten() {
            let (topic, partition) = (
                text(place, "topic"),
                place["partition"].as_u64().unwrap_or(0) as u32,
            );
            let end = client.offset_at(&topic, partition, Place::End).await?.get();
            let mut place = place.clone();
            place["end"] = end.into();
            // A number below zero is no place.
            let lag = place["offset"].as_u64().map(|offset| end.saturating_sub(offset));
            place["lag"] = lag.into();
            places.push(place);
        }
        group["offsets"] = places.clone().into();
        if self.to.output == Format::Json {
            return lines([&group]);
        }
        let sum: u64 = places.iter().filter_map(|place| place["lag"].as_u64()).sum();
        fields(&[
            ("group", text(&group, "name")),
            ("state", text(&group, "state")),
            ("protocol", text(&group, "protocol")),
            ("lag", sum.to_string()),
        ])?;
        let row = |place: &Value| {
            ["topic", "partition", "offset", "end", "lag"]
                .map(|field| text(place, field))
                .to_vec()
        };
        let rows: Vec<Vec<String>> = places.iter().map(row).collect();
        table(&["TOPIC", "PARTITION", "OFFSET", "END", "LAG"], &rows)?;
        let row = |member: &Value| ["id", "client", "host"].map(|field| text(member, field)).to_vec();
        let rows: Vec<Vec<String>> = group["members"]
            .as_array()
            .into_iter()
            .flatten()
            .map(row)
            .collect();
        if !rows.is_empty() {
            table(&["MEMBER", "CLIENT", "HOST"], &rows)?;
        }
        Ok(())
    }

    async fn reset(&self, client: &Client, name: &str, reset: &Reset<'_>) -> Result<()> {
        let groups: Vec<Value> = parsed(&client.groups().await?)?;
        let state = groups
            .iter()
            .find(|group| group["name"] == name)
            .map(|group| text(group, "state"));
        if let Some(state) = state.filter(|state| state != "Empty") {
            bail!(
                "group `{name}` has members ({state}): they would go on from where they are. Stop them first"
            );
        }
        let all = client.topic(reset.topic).await?.partitions.len() as u32;
        let partitions = match reset.partition {
            Some(p) if p >= all => {
                bail!(Usage(format!(
                    "topic `{}` has {all} partitions, there is no {p}",
                    reset.topic
                )));
            }
            Some(p) => vec![p],
            None => (0..all).collect(),
        };
        let (mut rows, mut offsets) = (Vec::new(), Vec::new());
        for partition in partitions {
            let before = client.committed_offset(name, reset.topic, partition).await?;
            let to = reset.offset(client, partition).await?;
            offsets.push((reset.topic.to_owned(), partition, to));
            rows.push(json!({
                "topic": reset.topic, "partition": partition, "before": before, "offset": to,
            }));
        }
        if reset.execute {
            client.commit_offsets(name, offsets).await?;
        }
        if self.to.output == Format::Json {
            lines(&rows)?;
        } else {
            let row = |place: &Value| {
                let before = match &place["before"] {
                    Value::Null => "-".to_owned(),
                    before => before.to_string(),
                };
                vec![
                    text(place, "topic"),
                    text(place, "partition"),
                    before,
                    text(place, "offset"),
                ]
            };
            let rows: Vec<Vec<String>> = rows.iter().map(row).collect();
            table(&["TOPIC", "PARTITION", "BEFORE", "OFFSET"], &rows)?;
        }
        match reset.execute {
            true => hint!("group {name} goes on there"),
            false => hint!("nothing is changed yet: `--execute` does it"),
        }
        Ok(())
    }
}

/// Where a group is to go on.
struct Reset<'a> {
    topic: &'a str,
    partition: Option<u32>,
    place: &'a str,
    execute: bool,
}

impl Reset<'_> {
    async fn offset(&self, client: &Client, partition: u32) -> Result<Offset> {
        let at = |place| client.offset_at(self.topic, partition, place);
        let place = match self.place {
            "start" => Place::Start,
            "end" => Place::End,
            text => match text.parse::<u64>() {
                Ok(offset) => {
                    let (start, end) = (at(Place::Start).await?, at(Place::End).await?);
                    if !(start.get()..=end.get()).contains(&offset) {
                        bail!(
                            "partition {partition} of `{}` is from {start} to {end}, there is no {offset}",
                            self.topic
                        );
                    }
                    return Ok(Offset::new(offset));
                }
                Err(_) => {
                    let time = parse_time(text);
                    let time =
                        time.map_err(|e| Usage(format!("`--to-place`: {e}; or start, end, or an offset")))?;
                    Place::Time(time)
                }
            },
        };
        Ok(at(place).await?)
    }
}

fn parsed<T: serde::de::DeserializeOwned>(answer: &[u8]) -> Result<T> {
    serde_json::from_slice(answer).context("the answer is not JSON")
}

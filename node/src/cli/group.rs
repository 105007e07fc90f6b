//! `weir group`

use super::output::{fields, lines, or_dash, table};
use super::{Format, To, Usage};
use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use serde::Serialize;
use weir_api::{GroupMember, GroupOffset, GroupSummary};
use weir_client::{Client, Offset, Place};
use weir_types::parse_time;

/// List, describe, reset and delete consumer groups.
#[derive(Debug, Args)]
pub(crate) struct GroupArgs {
    #[command(flatten)]
    to: To,
    #[command(subcommand)]
    command: GroupCommand,
}

#[derive(Debug, Subcommand)]
enum GroupCommand {
    /// List all groups: of Kafka clients, and of `weir consume --group`.
    List,
    /// Show the members, committed offsets and lag of a group.
    Describe {
        /// Name of the group.
        name: String,
    },
    /// Reset committed offsets of a group without members. Shows the change; makes it with `--execute`.
    ResetOffsets {
        /// Name of the group; an unknown group is created.
        name: String,
        /// The topic.
        #[arg(long)]
        topic: String,
        /// Only this partition.
        #[arg(long, value_name = "P")]
        partition: Option<u32>,
        /// New place: start, end, an offset, or a time like 2026-01-31T12:00:00Z.
        #[arg(long, value_name = "PLACE")]
        to_place: String,
        /// Make the change.
        #[arg(long)]
        execute: bool,
    },
    /// Delete a group without members, and its committed offsets.
    Delete {
        /// Name of the group.
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
        let groups = client.groups().await?;
        if self.to.output == Format::Json {
            return lines(groups);
        }
        let row = |g: &GroupSummary| vec![g.name.clone(), g.state.clone(), g.offsets.to_string()];
        let rows: Vec<Vec<String>> = groups.iter().map(row).collect();
        table(&["GROUP", "STATE", "OFFSETS"], &rows)
    }

    async fn describe(&self, client: &Client, name: &str) -> Result<()> {
        let group = client.group(name).await?;
        let mut offsets = Vec::new();
        for place in group.offsets {
            let end = client
                .offset_at(&place.topic, place.partition, Place::End)
                .await?
                .get();
            // A number below zero is no position.
            let offset = u64::try_from(place.offset).ok();
            let lag = offset.map(|offset| end.saturating_sub(offset));
            offsets.push(Lagging { place, end, lag });
        }
        let group = Described {
            name: group.name,
            state: group.state,
            protocol: group.protocol,
            members: group.members,
            offsets,
        };
        if self.to.output == Format::Json {
            return lines([group]);
        }
        let sum: u64 = group.offsets.iter().filter_map(|offset| offset.lag).sum();
        fields(&[
            ("group", group.name),
            ("state", group.state),
            ("protocol", group.protocol),
            ("lag", sum.to_string()),
        ])?;
        let row = |offset: &Lagging| {
            let Lagging { place, end, lag } = offset;
            vec![
                place.topic.clone(),
                place.partition.to_string(),
                place.offset.to_string(),
                end.to_string(),
                or_dash(*lag),
            ]
        };
        let rows: Vec<Vec<String>> = group.offsets.iter().map(row).collect();
        table(&["TOPIC", "PARTITION", "OFFSET", "END", "LAG"], &rows)?;
        let row = |member: &GroupMember| vec![member.id.clone(), member.client.clone(), member.host.clone()];
        let rows: Vec<Vec<String>> = group.members.iter().map(row).collect();
        if !rows.is_empty() {
            table(&["MEMBER", "CLIENT", "HOST"], &rows)?;
        }
        Ok(())
    }

    async fn reset(&self, client: &Client, name: &str, reset: &Reset<'_>) -> Result<()> {
        let groups = client.groups().await?;
        let state = groups
            .into_iter()
            .find(|group| group.name == name)
            .map(|group| group.state);
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
            rows.push(ResetPlace {
                topic: reset.topic,
                partition,
                before,
                offset: to,
            });
        }
        if reset.execute {
            client.commit_offsets(name, offsets).await?;
        }
        if self.to.output == Format::Json {
            lines(&rows)?;
        } else {
            let row = |place: &ResetPlace<'_>| {
                vec![
                    place.topic.to_owned(),
                    place.partition.to_string(),
                    or_dash(place.before),
                    place.offset.to_string(),
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

/// A group, with the end of each partition.
#[derive(Serialize)]
struct Described {
    name: String,
    state: String,
    protocol: String,
    members: Vec<GroupMember>,
    offsets: Vec<Lagging>,
}

/// A committed offset, the end of its partition, and the number of records between them.
#[derive(Serialize)]
struct Lagging {
    #[serde(flatten)]
    place: GroupOffset,
    end: u64,
    lag: Option<u64>,
}

/// A committed offset before and after a reset.
#[derive(Serialize)]
struct ResetPlace<'a> {
    topic: &'a str,
    partition: u32,
    before: Option<Offset>,
    offset: Offset,
}

/// New place of a group.
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

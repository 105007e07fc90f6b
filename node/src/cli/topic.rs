//! `weir topic`

use super::output::{bytes, fields, lines, table};
use super::{Format, To, setting};
use anyhow::Result;
use clap::{Args, Subcommand};
use serde::Serialize;
use weir_client::TopicInfo;

/// Create, list, describe, alter and delete topics.
#[derive(Debug, Args)]
pub(crate) struct TopicArgs {
    #[command(flatten)]
    to: To,
    #[command(subcommand)]
    command: TopicCommand,
}

#[derive(Debug, Subcommand)]
enum TopicCommand {
    /// Create a topic.
    Create {
        /// Name of the topic.
        name: String,
        /// Number of partitions.
        #[arg(long, default_value_t = 1)]
        partitions: u32,
        /// Number of nodes that keep each partition. The site chooses them by load and rack, and spreads
        /// leaders. Without the option, all nodes keep all partitions, and the leader of the site leads them.
        #[arg(long, value_name = "N")]
        replication: Option<u32>,
        /// A setting: retention.ms, retention.by, retention.bytes, max.message.bytes, durability or priority.
        #[arg(long = "config", value_name = "k=v", value_parser = setting)]
        settings: Vec<(String, String)>,
    },
    /// List all topics.
    List,
    /// Show a topic's settings and partitions.
    Describe {
        /// Name of the topic.
        name: String,
    },
    /// Change settings, replication or the number of partitions.
    Alter {
        /// Name of the topic.
        name: String,
        /// New number of partitions; never fewer than now.
        #[arg(long)]
        partitions: Option<u32>,
        /// New number of nodes that keep each partition, or `all`. Records are copied while others come and
        /// go; `weir cluster status` shows pending moves.
        #[arg(long, value_name = "N|all", value_parser = replication)]
        replication: Option<u32>,
        /// A setting; an empty value restores the default.
        #[arg(long = "config", value_name = "k=v", value_parser = setting)]
        settings: Vec<(String, String)>,
    },
    /// Delete a topic with all its records.
    Delete {
        /// Name of the topic.
        name: String,
    },
}

impl TopicArgs {
    pub(crate) async fn run(self) -> Result<()> {
        let client = self.to.connect().await?;
        let format = self.to.output;
        match self.command {
            TopicCommand::Create {
                name,
                partitions,
                replication,
                settings,
            } => {
                let created = client.create_topic_on(&name, partitions, replication, &settings);
                let topic = created.await?;
                said(format, &topic, "created")?;
            }
            TopicCommand::Alter {
                name,
                partitions,
                replication,
                settings,
            } => {
                if let Some(replicas) = replication {
                    client
                        .move_topic(&name, (replicas > 0).then_some(replicas))
                        .await?;
                }
                let topic = client.alter_topic(&name, partitions, &settings).await?;
                said(format, &topic, "altered")?;
            }
            TopicCommand::Delete { name } => {
                client.delete_topic(&name).await?;
                match format {
                    Format::Json => lines([Deleted { deleted: &name }])?,
                    Format::Table => say!("deleted topic {name}"),
                }
            }
            TopicCommand::List => list(format, &client.topics().await?)?,
            TopicCommand::Describe { name } => describe(format, &client.topic(&name).await?)?,
        }
        client.close().await;
        Ok(())
    }
}

/// A deleted topic.
#[derive(Serialize)]
struct Deleted<'a> {
    deleted: &'a str,
}

/// Parses a number of nodes; 0 stands for all.
fn replication(text: &str) -> Result<u32, String> {
    match (text, text.parse::<u32>()) {
        ("all", _) => Ok(0),
        (_, Ok(n)) if n > 0 => Ok(n),
        _ => Err("use a number of nodes, or `all`".to_owned()),
    }
}

fn said(format: Format, topic: &TopicInfo, what: &str) -> Result<()> {
    match format {
        Format::Json => lines([topic]),
        Format::Table => {
            say!(
                "{what} topic {} with {} partition(s)",
                topic.name,
                topic.partitions.len()
            );
            Ok(())
        }
    }
}

fn list(format: Format, topics: &[TopicInfo]) -> Result<()> {
    if format == Format::Json {
        return lines(topics);
    }
    let rows: Vec<Vec<String>> = topics
        .iter()
        .map(|t| {
            let records: u64 = t
                .partitions
                .iter()
                .map(|p| p.committed_end.since(p.log_start))
                .sum();
            let size = t.partitions.iter().map(|p| p.bytes).sum();
            let durability = t.config.get("durability").cloned().unwrap_or_default();
            let pipeline = t.pipeline.clone().unwrap_or_else(|| "-".to_owned());
            vec![
                t.name.clone(),
                t.partitions.len().to_string(),
                records.to_string(),
                bytes(size),
                durability,
                pipeline,
            ]
        })
        .collect();
    table(
        &["TOPIC", "PARTITIONS", "OFFSETS", "SIZE", "DURABILITY", "PIPELINE"],
        &rows,
    )
}

fn describe(format: Format, topic: &TopicInfo) -> Result<()> {
    if format == Format::Json {
        return lines([topic]);
    }
    let mut rows = vec![("topic", topic.name.clone())];
    rows.push((
        "pipeline",
        topic.pipeline.clone().unwrap_or_else(|| "-".to_owned()),
    ));
    rows.extend(topic.config.iter().map(|(k, v)| (k.as_str(), v.clone())));
    fields(&rows)?;
    say!("");
    let mut rows = Vec::new();
    for (i, p) in topic.partitions.iter().enumerate() {
        let gaps: Vec<String> = p
            .gaps
            .iter()
            .map(|g| format!("[{}, {}) {}", g.start, g.end, g.reason))
            .collect();
        let gaps = if gaps.is_empty() {
            "-".to_owned()
        } else {
            gaps.join(", ")
        };
        let known = |value: String| if p.is_here { value } else { "?".to_owned() };
        let nodes: Vec<String> = p.replicas.iter().map(u64::to_string).collect();
        rows.push(vec![
            i.to_string(),
            p.group.to_string(),
            p.leader.map_or_else(|| "none".to_owned(), |id| id.to_string()),
            nodes.join(","),
            known(p.log_start.to_string()),
            known(p.committed_end.to_string()),
            known(bytes(p.bytes)),
            known(p.lost.to_string()),
            known(gaps),
        ]);
    }
    let head = [
        "PARTITION",
        "GROUP",
        "LEADER",
        "REPLICAS",
        "START",
        "END",
        "SIZE",
        "LOST",
        "GAPS",
    ];
    table(&head, &rows)
}

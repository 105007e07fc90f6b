//! `weir topic`

use super::output::{bytes, fields, lines, table};
use super::{Format, To, setting};
use anyhow::Result;
use clap::{Args, Subcommand};
use serde_json::{Value, json};
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
        /// Its name.
        name: String,
        /// How many partitions it has.
        #[arg(long, default_value_t = 1)]
        partitions: u32,
        /// A setting: retention.ms, retention.bytes, max.message.bytes, durability or priority.
        #[arg(long = "config", value_name = "k=v", value_parser = setting)]
        settings: Vec<(String, String)>,
    },
    /// List all topics.
    List,
    /// Show a topic's settings and partitions.
    Describe {
        /// Its name.
        name: String,
    },
    /// Change settings, or add partitions.
    Alter {
        /// Its name.
        name: String,
        /// How many partitions it has from now on.
        #[arg(long)]
        partitions: Option<u32>,
        /// A setting; an empty value sets its default again.
        #[arg(long = "config", value_name = "k=v", value_parser = setting)]
        settings: Vec<(String, String)>,
    },
    /// Delete a topic with all its records.
    Delete {
        /// Its name.
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
                settings,
            } => {
                let topic = client.create_topic(&name, partitions, &settings).await?;
                said(format, &topic, "created")?;
            }
            TopicCommand::Alter {
                name,
                partitions,
                settings,
            } => {
                let topic = client.alter_topic(&name, partitions, &settings).await?;
                said(format, &topic, "altered")?;
            }
            TopicCommand::Delete { name } => {
                client.delete_topic(&name).await?;
                match format {
                    Format::Json => lines([&json!({ "deleted": name })])?,
                    Format::Table => println!("deleted topic {name}"),
                }
            }
            TopicCommand::List => list(format, &client.topics().await?)?,
            TopicCommand::Describe { name } => describe(format, &client.topic(&name).await?)?,
        }
        client.close().await;
        Ok(())
    }
}

fn said(format: Format, topic: &TopicInfo, what: &str) -> Result<()> {
    match format {
        Format::Json => lines([&value(topic)]),
        Format::Table => {
            println!(
                "{what} topic {} with {} partition(s)",
                topic.name,
                topic.partitions.len()
            );
            Ok(())
        }
    }
}

fn value(topic: &TopicInfo) -> Value {
    serde_json::to_value(topic).unwrap_or_default()
}

fn list(format: Format, topics: &[TopicInfo]) -> Result<()> {
    if format == Format::Json {
        return lines(&topics.iter().map(value).collect::<Vec<_>>());
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
        return lines([&value(topic)]);
    }
    let mut rows = vec![("topic", topic.name.clone())];
    rows.push((
        "pipeline",
        topic.pipeline.clone().unwrap_or_else(|| "-".to_owned()),
    ));
    rows.extend(topic.config.iter().map(|(k, v)| (k.as_str(), v.clone())));
    fields(&rows)?;
    println!();
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
        let (start, end) = (p.log_start.to_string(), p.committed_end.to_string());
        rows.push(vec![
            i.to_string(),
            start,
            end,
            bytes(p.bytes),
            p.lost.to_string(),
            gaps,
        ]);
    }
    table(&["PARTITION", "START", "END", "SIZE", "LOST", "GAPS"], &rows)
}

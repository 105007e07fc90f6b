//! `weir scrub`

use super::output::{bytes, fields, lines, table, text};
use super::{Format, To, Usage, block_on};
use anyhow::{Context, Result, bail};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use weir_broker::NamedGap;
use weir_log::ScrubReport;
use weir_types::{Gap, PartitionId, TopicName};

/// Which partition of which topic it is.
type Topics = BTreeMap<PartitionId, (TopicName, u32)>;

/// Read all records that a node has stored and check them. What is damaged is replaced by another node's copy, if the site
/// has one; fails when something stays damaged.
#[derive(Debug, Args)]
pub(crate) struct Scrub {
    #[command(flatten)]
    to: To,
    /// Directory of a node that is not running, instead of asking one that is.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// With `--data`: when something is damaged, make the database again from all that can be read, and say by topic what
    /// came back and what is lost. The damaged one is kept under `quarantine/`.
    #[arg(long)]
    repair: bool,
}

impl Scrub {
    pub(crate) fn run(self) -> Result<()> {
        if self.repair && self.data.is_none() {
            return Err(
                Usage("`--repair` needs `--data DIR` of a node that is not running".to_owned()).into(),
            );
        }
        let bar = ProgressBar::new(0);
        if let Ok(style) = ProgressStyle::with_template("{bar:40} {bytes} of {total_bytes}, {eta} left") {
            bar.set_style(style);
        }
        let progress = |done: u64, total: u64| {
            bar.set_length(total);
            bar.set_position(done);
        };
        let report = match &self.data {
            Some(dir) => self.closed(dir, progress)?,
            None => block_on(async {
                let client = self.to.connect().await?;
                let report = client.scrub(progress).await?;
                client.close().await;
                serde_json::from_slice(&report).context("the answer is not JSON")
            })?,
        };
        bar.finish_and_clear();
        self.show(&report)
    }

    fn closed(&self, dir: &Path, mut progress: impl FnMut(u64, u64)) -> Result<Value> {
        if !dir.join("db").exists() && !dir.join("watermark.a").exists() {
            bail!("`{}` holds no data of a node", dir.display());
        }
        crate::ownership::keep_to_ourselves();
        let witness = crate::site::load(dir)?.is_some_and(|place| place.witness);
        if witness {
            bail!("`{}` is a witness's: it has no records", dir.display());
        }
        let options = weir_log::Options {
            // What a start gives up, a repair may find.
            only_whole: true,
            ..weir_log::Options::default()
        };
        let (log, recovered) = match weir_log::Log::open(dir, &options) {
            Err(e @ weir_log::OpenError::Damaged { .. }) if self.repair => {
                hint!("{e}");
                return self.repaired(dir, progress);
            }
            opened => opened?,
        };
        crate::site::note_damage(dir, &recovered)?;
        let report = log.scrub(&mut progress)?;
        // What cannot be named is shown by its number.
        let topics = weir_broker::topics_in(&log).unwrap_or_default();
        log.close();
        drop(log);
        let is_whole = recovered.damage.is_none() && report.damaged.is_empty() && report.rows.is_empty();
        if self.repair && !is_whole {
            return self.repaired(dir, progress);
        }
        Ok(told(&report, &recovered.damage.notes, &topics))
    }

    /// Makes the database in `dir` again, and reads all of it.
    fn repaired(&self, dir: &Path, progress: impl FnMut(u64, u64)) -> Result<Value> {
        let rebuilt = weir_log::rebuild(dir)?;
        crate::site::note_repair(dir, &rebuilt.recovered)?;
        weir_log::repair_is_noted(dir)?;
        let (log, _) = weir_log::Log::open(dir, &weir_log::Options::default())?;
        let topics = weir_broker::topics_in(&log)?;
        let report = log.scrub(progress)?;
        log.close();
        let mut told = told(&report, &rebuilt.recovered.damage.notes, &topics);
        let lost = &rebuilt.recovered.damage.lost;
        let mut of: Vec<PartitionId> = rebuilt.partitions.keys().copied().collect();
        of.extend(lost.iter().map(|(partition, _)| *partition));
        of.extend(topics.keys());
        of.sort_unstable();
        of.dedup();
        let partitions = of.iter().map(|partition| {
            let back = rebuilt.partitions.get(partition).copied().unwrap_or_default();
            let topic = topics.get(partition);
            let lost = lost.iter().filter(|(p, _)| p == partition);
            json!({
                "topic": topic.map(|(name, _)| name.as_str()), "partition": topic.map(|(_, index)| index),
                "id": partition.0, "records": back.records, "bytes": back.bytes,
                "lost": lost.map(|(_, g)| json!({ "start": g.start, "end": g.end })).collect::<Vec<_>>(),
            })
        });
        told["repaired"] = partitions.collect();
        told["unreadable"] = json!(rebuilt.unreadable);
        Ok(told)
    }

    fn show(&self, report: &Value) -> Result<()> {
        let damaged = report["damaged"].as_array().map_or(0, Vec::len);
        if self.to.output == Format::Json {
            lines([report])?;
        } else {
            fields(&[
                ("partitions", text(report, "partitions")),
                ("batches", text(report, "batches")),
                ("records", text(report, "records")),
                ("bytes", bytes(report["bytes"].as_u64().unwrap_or(0))),
                ("damaged ranges", damaged.to_string()),
            ])?;
            let rows: Vec<Vec<String>> = ["gaps", "damaged", "mended"]
                .iter()
                .flat_map(|kind| {
                    report[*kind]
                        .as_array()
                        .into_iter()
                        .flatten()
                        .map(move |g| (kind, g))
                })
                .map(|(kind, g)| {
                    let what = match *kind {
                        "gaps" => text(g, "reason"),
                        "mended" => "damaged, and now another node's copy".to_owned(),
                        kind => kind.to_owned(),
                    };
                    let (topic, index) = match g["topic"].as_str() {
                        Some(topic) => (topic.to_owned(), text(g, "index")),
                        None => (of_no_topic(&g["partition"]), String::new()),
                    };
                    vec![topic, index, text(g, "start"), text(g, "end"), what]
                })
                .collect();
            if !rows.is_empty() {
                table(&["TOPIC", "PARTITION", "START", "END", "WHY"], &rows)?;
            }
            let repaired = report["repaired"].as_array();
            let rows: Vec<Vec<String>> = repaired.into_iter().flatten().map(came_back).collect();
            if repaired.is_some() {
                table(
                    &["TOPIC", "PARTITION", "CAME BACK", "BYTES", "LOST OFFSETS"],
                    &rows,
                )?;
            }
        }
        for list in ["notes", "rows", "unreadable"] {
            for why in report[list].as_array().into_iter().flatten() {
                hint!("{}", why.as_str().unwrap_or_default());
            }
        }
        if report["rows"].as_array().is_some_and(|rows| !rows.is_empty()) {
            bail!(
                "rows that say what there is are damaged; `weir scrub --data DIR --repair` makes them again"
            );
        }
        if damaged > 0 {
            bail!("{damaged} ranges are damaged");
        }
        Ok(())
    }
}

/// A report, as it is printed.
fn told(report: &ScrubReport, notes: &[String], topics: &Topics) -> Value {
    let gap = |(p, g): &(PartitionId, Gap)| NamedGap::of(topics, *p, g);
    json!({
        "partitions": report.partitions, "batches": report.batches, "records": report.records,
        "bytes": report.bytes, "gaps": report.gaps.iter().map(gap).collect::<Vec<_>>(),
        "damaged": report.damaged.iter().map(gap).collect::<Vec<_>>(), "rows": report.rows, "notes": notes,
    })
}

fn of_no_topic(id: &Value) -> String {
    format!("of no topic: partition id {id}")
}

/// A row of the table of what came back.
fn came_back(partition: &Value) -> Vec<String> {
    let lost: Vec<String> = partition["lost"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|gap| format!("{} to {}", gap["start"], gap["end"].as_u64().unwrap_or(1) - 1))
        .collect();
    let (topic, index) = match partition["topic"].as_str() {
        Some(topic) => (topic.to_owned(), partition["partition"].to_string()),
        None => (of_no_topic(&partition["id"]), String::new()),
    };
    let none = || "nothing".to_owned();
    vec![
        topic,
        index,
        format!("{} records", partition["records"]),
        bytes(partition["bytes"].as_u64().unwrap_or(0)),
        if lost.is_empty() { none() } else { lost.join(", ") },
    ]
}

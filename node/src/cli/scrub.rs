//! `weir scrub`

use super::output::{bytes, fields, lines, or_dash, table};
use super::{Format, To, Usage, block_on};
use anyhow::{Result, bail};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use weir_admin::named_gaps;
use weir_api::{LostRange, RepairedPartition, ScrubReport};
use weir_types::{Gap, PartitionId, TopicName};

/// Topic and number of each partition, by identity.
type Topics = BTreeMap<PartitionId, (TopicName, u32)>;

/// Read and check all stored records of a node. Damaged ranges are replaced by another node's copy, if the
/// site has one. Fails when a range stays damaged.
#[derive(Debug, Args)]
pub(crate) struct Scrub {
    #[command(flatten)]
    to: To,
    /// Data directory of a stopped node, instead of a running node.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// With `--data`: rebuild a damaged database from all readable data, and list recovered and lost offsets
    /// by topic. The damaged database is kept under `quarantine/`.
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
                anyhow::Ok(report)
            })?,
        };
        bar.finish_and_clear();
        self.show(&report)
    }

    fn closed(&self, dir: &Path, mut progress: impl FnMut(u64, u64)) -> Result<ScrubReport> {
        if !dir.join("db").exists() && !dir.join("watermark.a").exists() {
            bail!("`{}` holds no data of a node", dir.display());
        }
        crate::ownership::keep_to_ourselves();
        let witness = crate::site::load(dir)?.is_some_and(|place| place.witness);
        if witness {
            bail!("`{}` is a witness's: it has no records", dir.display());
        }
        let options = weir_log::Options {
            // A repair may find data that a start gives up.
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
        // A partition without a name is shown by its number.
        let topics = weir_broker::topics_in(&log).unwrap_or_default();
        log.close();
        drop(log);
        let is_whole = recovered.damage.is_none() && report.damaged.is_empty() && report.rows.is_empty();
        if self.repair && !is_whole {
            return self.repaired(dir, progress);
        }
        Ok(report_of(report, recovered.damage.notes, &topics))
    }

    /// Rebuilds the database in `dir`, and reads all of it.
    fn repaired(&self, dir: &Path, progress: impl FnMut(u64, u64)) -> Result<ScrubReport> {
        let rebuilt = weir_log::rebuild(dir)?;
        crate::site::note_repair(dir, &rebuilt.recovered)?;
        weir_log::repair_is_noted(dir)?;
        let (log, _) = weir_log::Log::open(dir, &weir_log::Options::default())?;
        let topics = weir_broker::topics_in(&log)?;
        let report = log.scrub(progress)?;
        log.close();
        let lost = &rebuilt.recovered.damage.lost;
        let mut of: Vec<PartitionId> = rebuilt.partitions.keys().copied().collect();
        of.extend(lost.iter().map(|(partition, _)| *partition));
        of.extend(topics.keys());
        of.sort_unstable();
        of.dedup();
        let partitions = of.into_iter().map(|partition| {
            let back = rebuilt.partitions.get(&partition).copied().unwrap_or_default();
            let topic = topics.get(&partition);
            let lost = lost.iter().filter(|(p, _)| *p == partition);
            RepairedPartition {
                topic: topic.map(|(name, _)| name.to_string()),
                partition: topic.map(|(_, index)| *index),
                id: partition.0,
                records: back.records,
                bytes: back.bytes,
                lost: lost.map(|(_, gap)| range(gap)).collect(),
            }
        });
        let notes = rebuilt.recovered.damage.notes.clone();
        Ok(ScrubReport {
            repaired: Some(partitions.collect()),
            unreadable: Some(rebuilt.unreadable.clone()),
            ..report_of(report, notes, &topics)
        })
    }

    fn show(&self, report: &ScrubReport) -> Result<()> {
        if self.to.output == Format::Json {
            lines([report])?;
        } else {
            show_tables(report)?;
        }
        let remarks = [
            Some(&report.rows),
            report.notes.as_ref(),
            report.unreadable.as_ref(),
        ];
        let [rows, notes, unreadable] = remarks.map(|remarks| remarks.into_iter().flatten());
        for remark in notes.chain(rows).chain(unreadable) {
            hint!("{remark}");
        }
        if !report.rows.is_empty() {
            bail!(
                "rows that say what there is are damaged; `weir scrub --data DIR --repair` makes them again"
            );
        }
        match report.damaged.len() {
            0 => Ok(()),
            damaged => bail!("{damaged} ranges are damaged"),
        }
    }
}

/// Shows a report for people.
fn show_tables(report: &ScrubReport) -> Result<()> {
    fields(&[
        ("partitions", report.partitions.to_string()),
        ("batches", report.batches.to_string()),
        ("records", report.records.to_string()),
        ("bytes", bytes(report.bytes)),
        ("damaged ranges", report.damaged.len().to_string()),
    ])?;
    let gaps = report.gaps.iter().map(|gap| (gap, gap.reason.to_string()));
    let damaged = report.damaged.iter().map(|gap| (gap, "damaged".to_owned()));
    let mended = report.mended.iter().flatten();
    let mended = mended.map(|gap| (gap, "damaged, and now another node's copy".to_owned()));
    let rows: Vec<Vec<String>> = gaps
        .chain(damaged)
        .chain(mended)
        .map(|(gap, why)| {
            let (topic, index) = named(gap.topic.as_deref(), gap.index, gap.partition);
            vec![topic, index, gap.start.to_string(), gap.end.to_string(), why]
        })
        .collect();
    if !rows.is_empty() {
        table(&["TOPIC", "PARTITION", "START", "END", "WHY"], &rows)?;
    }
    let Some(repaired) = &report.repaired else {
        return Ok(());
    };
    let rows: Vec<Vec<String>> = repaired.iter().map(came_back).collect();
    table(
        &["TOPIC", "PARTITION", "CAME BACK", "BYTES", "LOST OFFSETS"],
        &rows,
    )
}

/// Returns the report of a node that is not running.
fn report_of(report: weir_log::ScrubReport, notes: Vec<String>, topics: &Topics) -> ScrubReport {
    ScrubReport {
        partitions: report.partitions,
        batches: report.batches,
        records: report.records,
        bytes: report.bytes,
        gaps: named_gaps(topics, &report.gaps),
        damaged: named_gaps(topics, &report.damaged),
        rows: report.rows,
        notes: Some(notes),
        ..ScrubReport::default()
    }
}

fn range(gap: &Gap) -> LostRange {
    LostRange {
        start: gap.start.get(),
        end: gap.end.get(),
    }
}

/// Returns the cells that name a partition.
fn named(topic: Option<&str>, index: Option<u32>, partition: u32) -> (String, String) {
    match topic {
        Some(topic) => (topic.to_owned(), or_dash(index)),
        None => (format!("of no topic: partition id {partition}"), String::new()),
    }
}

/// Returns the row of a partition after a repair.
fn came_back(partition: &RepairedPartition) -> Vec<String> {
    let lost = partition.lost.iter();
    let lost: Vec<String> = lost
        .map(|range| format!("{} to {}", range.start, range.end.saturating_sub(1)))
        .collect();
    let (topic, index) = named(partition.topic.as_deref(), partition.partition, partition.id);
    let none = || "nothing".to_owned();
    vec![
        topic,
        index,
        format!("{} records", partition.records),
        bytes(partition.bytes),
        if lost.is_empty() { none() } else { lost.join(", ") },
    ]
}

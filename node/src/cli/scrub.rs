//! `weir scrub`

use super::output::{bytes, fields, lines, table, text};
use super::{Format, To, Usage, block_on};
use anyhow::{Context, Result, bail};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use std::path::PathBuf;

/// Read all records that a node has stored and check them. What is damaged is replaced by another node's copy, if the site
/// has one; fails when something stays damaged.
#[derive(Debug, Args)]
pub(crate) struct Scrub {
    #[command(flatten)]
    to: To,
    /// Directory of a node that is not running, instead of asking one that is.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// With `--data`: when the database does not open, set it aside under `quarantine/` and start anew behind the
    /// offsets that it held, which are then marked as lost.
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

    fn closed(&self, dir: &std::path::Path, progress: impl FnMut(u64, u64)) -> Result<Value> {
        if !dir.join("db").exists() {
            bail!("`{}` holds no data of a node", dir.display());
        }
        crate::ownership::keep_to_ourselves();
        let witness = crate::site::load(dir)?.is_some_and(|place| place.witness);
        if witness {
            bail!("`{}` is a witness's: it has no records", dir.display());
        }
        let options = weir_log::Options::default();
        let opened = match weir_log::Log::open(dir, &options) {
            Err(e @ weir_log::OpenError::Damaged { .. }) if self.repair => {
                hint!("{e}");
                weir_log::scrub_closed(dir)?;
                weir_log::Log::open(dir, &options)?
            }
            opened => opened?,
        };
        let (log, recovered) = opened;
        crate::site::note_damage(dir, &recovered)?;
        let report = log.scrub(progress)?;
        log.close();
        let gap = |(p, g): &(weir_types::PartitionId, weir_types::Gap)| json!({ "partition": p.0, "start": g.start, "end": g.end, "reason": g.reason.to_string() });
        Ok(json!({
            "partitions": report.partitions, "batches": report.batches, "records": report.records,
            "bytes": report.bytes, "gaps": report.gaps.iter().map(gap).collect::<Vec<_>>(),
            "damaged": report.damaged.iter().map(gap).collect::<Vec<_>>(), "notes": recovered.damage.notes,
        }))
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
                    vec![text(g, "partition"), text(g, "start"), text(g, "end"), what]
                })
                .collect();
            if !rows.is_empty() {
                table(&["PARTITION ID", "START", "END", "WHY"], &rows)?;
            }
        }
        if damaged > 0 {
            bail!("{damaged} ranges are damaged");
        }
        Ok(())
    }
}

//! `weir pipeline shadow`

use super::Format;
use super::output::{json, lines, or_dash, table};
use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};
use std::time::Duration;
use weir_api::{Shadow, ShadowExample, ShadowRecord, ShadowSide};
use weir_client::Client;

/// Starts a shadow run, and shows how far it is.
pub(super) async fn run(client: &Client, toml: &str, from: &str, wait: Duration) -> Result<Shadow> {
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{pos} records, {per_sec}") {
        bar.set_style(style);
    }
    let shadow = client
        .shadow_pipeline(toml, from, wait, |done| bar.set_position(done))
        .await;
    bar.finish_and_clear();
    Ok(shadow?)
}

/// Shows the outcome.
pub(super) fn show(format: Format, shadow: &Shadow) -> Result<()> {
    if format == Format::Json {
        return lines([shadow]);
    }
    let (seconds, records) = (shadow.seconds, shadow.candidate.records);
    let rate = records as f64 / seconds.max(1e-3);
    say!(
        "pipeline {}: {records} records in {seconds:.1} s, {rate:.0} a second; nothing was written",
        shadow.name
    );
    let candidate = column(&shadow.candidate)?;
    let Some(live) = &shadow.live else {
        let rows = candidate.into_iter().zip(NAMES);
        let rows: Vec<_> = rows
            .filter(|(_, name)| *name != "halted" || shadow.candidate.halted.is_some())
            .map(|(cell, name)| vec![name.to_owned(), cell])
            .collect();
        return table(&["", "CANDIDATE"], &rows);
    };
    let is_halted = live.halted.is_some() || shadow.candidate.halted.is_some();
    let rows = column(live)?.into_iter().zip(candidate).zip(NAMES);
    let rows: Vec<_> = rows
        .filter(|(_, name)| *name != "halted" || is_halted)
        .map(|((live, candidate), name)| vec![name.to_owned(), live, candidate])
        .collect();
    match live.revision {
        None => table(&["", "CANDIDATE"], &rows)?,
        Some(n) => table(&["", &format!("REVISION {n}"), "CANDIDATE"], &rows)?,
    }
    differences(shadow)
}

/// Names of the rows.
const NAMES: [&str; 11] = [
    "records",
    "kept",
    "dropped",
    "emitted",
    "routed",
    "dead_letters",
    "skipped",
    "failures",
    "timers_fired",
    "ns a record",
    "halted",
];

/// Returns the column of a side, a cell for each of [`NAMES`].
fn column(side: &ShadowSide) -> Result<[String; 11]> {
    Ok([
        side.records.to_string(),
        side.kept.to_string(),
        side.dropped.to_string(),
        side.emitted.to_string(),
        json(&side.routed)?,
        side.dead_letters.to_string(),
        side.skipped.to_string(),
        side.failures.to_string(),
        side.timers_fired.to_string(),
        (side.wasm_ns / side.records.max(1)).to_string(),
        or_dash(side.halted.as_ref()),
    ])
}

/// Shows in which records the two sides differ.
fn differences(shadow: &Shadow) -> Result<()> {
    let timers = match shadow.timers_differ {
        true => "; what came of timers differs, too",
        false => "",
    };
    match shadow.differences {
        0 if timers.is_empty() => say!("no difference"),
        0 => say!("no difference by record{timers}"),
        n => say!("{n} records of which something else is made{timers}"),
    }
    for example in &shadow.examples {
        let ShadowExample {
            topic,
            partition,
            offset,
            live,
            candidate,
        } = example;
        say!("{topic}/{partition} at {offset}");
        for (sign, records) in [('-', live), ('+', candidate)] {
            if records.is_empty() {
                say!("  {sign} nothing");
            }
            for record in records {
                say!("  {sign} {}", line(record));
            }
        }
    }
    Ok(())
}

fn line(record: &ShadowRecord) -> String {
    let ShadowRecord { output, key, value } = record;
    match (key, value) {
        (None, None) => format!("{output}: as it came"),
        (None, Some(value)) => format!("{output}: {value}"),
        (Some(key), value) => format!("{output}: {key} {}", value.as_deref().unwrap_or("-")),
    }
}

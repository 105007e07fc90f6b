//! `weir pipeline shadow`

use super::Format;
use super::output::{lines, table, text};
use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;
use std::time::Duration;
use weir_client::Client;

/// Tries the pipeline out, with a line that says how far it is.
pub(super) async fn run(client: &Client, toml: &str, from: &str, wait: Duration) -> Result<Value> {
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{pos} records, {per_sec}") {
        bar.set_style(style);
    }
    let told = client
        .shadow_pipeline(toml, from, wait, |done| bar.set_position(done))
        .await;
    bar.finish_and_clear();
    serde_json::from_slice(&told?).context("the node's answer is not JSON")
}

/// Shows what came of it.
pub(super) fn show(format: Format, told: &Value) -> Result<()> {
    if format == Format::Json {
        return lines([told]);
    }
    let (candidate, live) = (&told["candidate"], &told["live"]);
    let records = candidate["records"].as_u64().unwrap_or(0);
    let seconds = told["seconds"].as_f64().unwrap_or(0.0);
    let rate = records as f64 / seconds.max(1e-3);
    say!(
        "pipeline {}: {records} records in {seconds:.1} s, {rate:.0} a second; nothing was written",
        text(told, "name")
    );
    let ns = |side: &Value| {
        let records = side["records"].as_u64().unwrap_or(0).max(1);
        (side["wasm_ns"].as_u64().unwrap_or(0) / records).to_string()
    };
    let names = [
        "records",
        "kept",
        "dropped",
        "emitted",
        "routed",
        "dead_letters",
        "skipped",
        "failures",
        "timers_fired",
    ];
    let row = |name: &str, of: &dyn Fn(&Value) -> String| match live.is_null() {
        true => vec![name.to_owned(), of(candidate)],
        false => vec![name.to_owned(), of(live), of(candidate)],
    };
    let mut rows: Vec<_> = names
        .iter()
        .map(|name| row(name, &|side| text(side, name)))
        .collect();
    rows.push(row("ns a record", &ns));
    if [candidate, live].iter().any(|side| !side["halted"].is_null()) {
        rows.push(row("halted", &|side| text(side, "halted")));
    }
    match live["revision"].as_u64() {
        None => table(&["", "CANDIDATE"], &rows)?,
        Some(n) => table(&["", &format!("REVISION {n}"), "CANDIDATE"], &rows)?,
    }
    if live.is_null() {
        return Ok(());
    }
    let timers = match told["timers_differ"] == true {
        true => "; what came of timers differs, too",
        false => "",
    };
    match told["differences"].as_u64().unwrap_or(0) {
        0 if timers.is_empty() => say!("no difference"),
        0 => say!("no difference by record{timers}"),
        n => say!("{n} records of which something else is made{timers}"),
    }
    for example in told["examples"].as_array().into_iter().flatten() {
        let [topic, partition, offset] = ["topic", "partition", "offset"].map(|n| text(example, n));
        say!("{topic}/{partition} at {offset}");
        for (sign, side) in [('-', "live"), ('+', "candidate")] {
            let said = example[side].as_array();
            if said.is_none_or(Vec::is_empty) {
                say!("  {sign} nothing");
            }
            for line in said.into_iter().flatten() {
                say!("  {sign} {}", one(line));
            }
        }
    }
    Ok(())
}

fn one(line: &Value) -> String {
    let output = text(line, "output");
    match (line["key"].as_str(), line["value"].as_str()) {
        (None, None) => format!("{output}: as it came"),
        (None, Some(value)) => format!("{output}: {value}"),
        (Some(key), value) => format!("{output}: {key} {}", value.unwrap_or("-")),
    }
}

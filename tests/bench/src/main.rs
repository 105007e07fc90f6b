//! The benchmark table: all figures of Weir, measured in a single run on a single machine, beside those of
//! others. `cargo bench-table`, or `-o json` for programs.

mod behind;
mod kafka;
mod log;
mod neighbours;
mod node;
mod produce;
mod site;
mod wasm;

use anyhow::Result;
use clap::{Parser, ValueEnum};
use serde_json::json;
use std::path::PathBuf;
use std::time::Duration;

#[derive(Debug, Parser)]
struct Args {
    /// Directory with the built modules.
    #[arg(long)]
    modules: PathBuf,
    /// The module that misbehaves, built from `tests/guests/hostile`.
    #[arg(long)]
    hostile: PathBuf,
    /// The `weir` binary.
    #[arg(long)]
    weir: PathBuf,
    /// Directory for data, on the disk that is to be measured; the system's temporary directory when not
    /// given.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// A table, or JSON.
    #[arg(short, long, value_enum, default_value = "table")]
    output: Format,
    /// A tenth of the work: for trying a change out.
    #[arg(long)]
    quick: bool,
    /// Only groups whose name contains this: log, wasm, produce, behind, neighbours, kafka, node or site.
    #[arg(long, default_value = "")]
    only: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    Json,
}

/// Rows as they come.
#[derive(Default)]
struct Table {
    rows: Vec<(String, f64, &'static str, String)>,
    live: bool,
}

impl Table {
    fn add(&mut self, what: impl Into<String>, value: f64, unit: &'static str, note: impl Into<String>) {
        let row = (what.into(), value, unit, note.into());
        if self.live {
            print(&row);
        }
        self.rows.push(row);
    }
}

fn print((what, value, unit, note): &(String, f64, &'static str, String)) {
    let digits = if *value >= 1_000.0 {
        0
    } else if *value >= 10.0 {
        1
    } else {
        2
    };
    println!("{what:<58} {value:>12.digits$} {unit:<10} {note}");
}

/// Input of every group.
struct Setup {
    weir: PathBuf,
    modules: PathBuf,
    hostile: PathBuf,
    dir: PathBuf,
    /// Divides the work.
    less: u64,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let dir = args.dir.clone().unwrap_or_else(std::env::temp_dir);
    let less = if args.quick { 10 } else { 1 };
    let setup = Setup {
        weir: args.weir,
        modules: args.modules,
        hostile: args.hostile,
        dir,
        less,
    };
    let mut table = Table {
        live: args.output == Format::Table,
        ..Table::default()
    };
    type Group = fn(&Setup, &mut Table) -> Result<()>;
    let groups: [(&str, Group); 8] = [
        ("log", log::run),
        ("wasm", wasm::run),
        ("produce", produce::run),
        ("behind", behind::run),
        ("neighbours", neighbours::run),
        ("kafka", kafka::run),
        ("node", node::run),
        ("site", site::run),
    ];
    for (name, run) in groups {
        if name.contains(&args.only) {
            run(&setup, &mut table)?;
        }
    }
    if args.output == Format::Json {
        for (what, value, unit, note) in &table.rows {
            println!(
                "{}",
                json!({ "what": what, "value": value, "unit": unit, "note": note })
            );
        }
    }
    Ok(())
}

/// The value at `q` of sorted `samples`.
fn quantile(samples: &mut [Duration], q: f64) -> f64 {
    samples.sort_unstable();
    let at = ((samples.len() as f64 * q) as usize).min(samples.len().saturating_sub(1));
    samples.get(at).map_or(0.0, |d| d.as_secs_f64() * 1e3)
}

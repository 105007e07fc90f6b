//! `weir-check FILE`: reports the violations in a history; exit code 1 if there are any.

use anyhow::{Context, Result};
use std::fs::File;
use std::io::BufReader;
use std::process::ExitCode;

fn main() -> Result<ExitCode> {
    let path = std::env::args()
        .nth(1)
        .context("use: weir-check FILE, with one event a line")?;
    let file = File::open(&path).with_context(|| format!("cannot read `{path}`"))?;
    let events = weir_checkers::history::read(BufReader::new(file)).with_context(|| format!("`{path}`"))?;
    let violations = weir_checkers::check(&events);
    violations.iter().for_each(|v| println!("{v}"));
    let unseen = weir_checkers::unseen(&events);
    println!(
        "{} events: {} violations, {} acknowledged records not yet read",
        events.len(),
        violations.len(),
        unseen.len()
    );
    Ok(if violations.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

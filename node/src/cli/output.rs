//! Output: tables for people, JSON for programs.

use anyhow::Result;
use serde::Serialize;
use std::io::Write;

/// Prints rows under their headings; columns of numbers are aligned to the right.
pub(super) fn table(headings: &[&str], rows: &[Vec<String>]) -> Result<()> {
    let mut widths: Vec<usize> = headings.iter().map(|h| h.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let numeric: Vec<bool> = (0..headings.len())
        .map(|c| {
            !rows.is_empty()
                && rows
                    .iter()
                    .all(|r| r.get(c).is_some_and(|v| v.parse::<f64>().is_ok()))
        })
        .collect();
    let mut out = std::io::stdout().lock();
    let head: Vec<String> = headings.iter().map(|h| (*h).to_owned()).collect();
    for row in std::iter::once(&head).chain(rows) {
        let mut line = String::new();
        for ((cell, width), right) in row.iter().zip(&widths).zip(&numeric) {
            let pad = " ".repeat(width - cell.chars().count());
            line.push_str(&if *right {
                format!("{pad}{cell}  ")
            } else {
                format!("{cell}{pad}  ")
            });
        }
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

/// Prints names and values, a line each.
pub(super) fn fields(rows: &[(&str, String)]) -> Result<()> {
    let width = rows.iter().map(|(n, _)| n.len()).max().unwrap_or(0);
    let mut out = std::io::stdout().lock();
    for (name, value) in rows {
        writeln!(out, "{name:width$}  {value}")?;
    }
    Ok(())
}

/// Prints a JSON value a line.
pub(super) fn lines<T: Serialize>(values: impl IntoIterator<Item = T>) -> Result<()> {
    let mut out = std::io::stdout().lock();
    for value in values {
        writeln!(out, "{}", json(&value)?)?;
    }
    Ok(())
}

/// Returns a value as JSON, on a single line.
pub(super) fn json(value: &impl Serialize) -> Result<String> {
    Ok(serde_json::to_string(value)?)
}

/// Returns a value as text, and a dash where there is none.
pub(super) fn or_dash<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

/// Returns a number of bytes with a unit that fits.
pub(super) fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut value, mut unit) = (n as f64, 0);
    while value >= 1_024.0 && unit + 1 < UNITS.len() {
        value /= 1_024.0;
        unit += 1;
    }
    if unit == 0 {
        format!("{n} B")
    } else {
        format!("{value:.1} {}", UNITS[unit])
    }
}

//! `weir pipeline state`

use super::Format;
use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::io::Write;
use weir_client::Client;

/// Prints what the modules of a pipeline remember, of a stage or partition alone if one is named; or a digest of it.
pub(super) async fn show(
    client: &Client,
    format: Format,
    name: &str,
    (stage, partition): (Option<u64>, Option<u64>),
    digest: bool,
) -> Result<()> {
    let (mut hash, mut first) = (Sha256::new(), None);
    let mut out = std::io::stdout().lock();
    loop {
        let page = client.pipeline_state(name, first).await?;
        let page: Value = serde_json::from_slice(&page).context("the node's answer is not JSON")?;
        for row in page["rows"].as_array().into_iter().flatten() {
            let is_of = |field: &str, want: Option<u64>| want.is_none_or(|want| row[field] == want);
            if !is_of("stage", stage) || !is_of("partition", partition) {
                continue;
            }
            match (digest, format) {
                // Its fields are in one order always.
                (true, _) => hash.update(format!("{row}\n")),
                (false, Format::Json) => writeln!(out, "{row}")?,
                (false, Format::Table) => writeln!(out, "{}", line(row))?,
            }
        }
        first = page["next"].as_str().map(str::to_owned);
        if first.is_none() {
            break;
        }
    }
    if digest {
        writeln!(out, "{}", hex(&hash.finalize()))?;
    }
    Ok(out.flush()?)
}

fn line(row: &Value) -> String {
    let (stage, partition, key) = (&row["stage"], &row["partition"], readable(&row["key"]));
    match row.get("timer") {
        Some(timer) => {
            let (clock, tag, at) = (
                timer["clock"].as_str().unwrap_or("-"),
                &timer["tag"],
                &timer["at"],
            );
            format!("{stage}/{partition}  {key}  due at {at} of {clock} time, tag {tag}")
        }
        None => format!("{stage}/{partition}  {key}  {}", readable(&row["value"])),
    }
}

/// Bytes as text where they are some, and what is none of it as `\\x` and two digits.
fn readable(base64: &Value) -> String {
    let bytes = STANDARD
        .decode(base64.as_str().unwrap_or_default())
        .unwrap_or_default();
    match std::str::from_utf8(&bytes) {
        Ok(text) if !text.is_empty() && !text.contains(char::is_control) => text.to_owned(),
        _ => bytes.escape_ascii().to_string(),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

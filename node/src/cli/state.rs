//! `weir pipeline state`

use super::Format;
use super::output::json;
use anyhow::Result;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};
use std::io::Write;
use weir_api::{StateEntry, StateRow};
use weir_client::Client;

/// Prints the state of a pipeline's modules, of a single stage or partition if given; or its digest.
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
        for row in &page.rows {
            let is_of_stage = stage.is_none_or(|want| row.stage as u64 == want);
            let is_of_partition = partition.is_none_or(|want| u64::from(row.partition) == want);
            if !is_of_stage || !is_of_partition {
                continue;
            }
            match (digest, format) {
                // The fields of a row are in a fixed order.
                (true, _) => hash.update(format!("{}\n", json(row)?)),
                (false, Format::Json) => writeln!(out, "{}", json(row)?)?,
                (false, Format::Table) => writeln!(out, "{}", line(row))?,
            }
        }
        first = page.next;
        if first.is_none() {
            break;
        }
    }
    if digest {
        writeln!(out, "{}", hex(&hash.finalize()))?;
    }
    Ok(out.flush()?)
}

fn line(row: &StateRow) -> String {
    let (stage, partition, key) = (row.stage, row.partition, readable(&row.key));
    match &row.entry {
        StateEntry::Timer { clock, tag, at } => {
            format!("{stage}/{partition}  {key}  due at {at} of {clock} time, tag {tag}")
        }
        StateEntry::Value(value) => format!("{stage}/{partition}  {key}  {}", readable(value)),
    }
}

/// Returns bytes in base64 as text; as `\\x` and two digits each where they are no text.
fn readable(base64: &str) -> String {
    let bytes = STANDARD.decode(base64).unwrap_or_default();
    match std::str::from_utf8(&bytes) {
        Ok(text) if !text.is_empty() && !text.contains(char::is_control) => text.to_owned(),
        _ => bytes.escape_ascii().to_string(),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

//! `weir status`

use super::output::{bytes, fields, lines, table, text};
use super::{Format, To};
use anyhow::{Context, Result};
use clap::Args;
use serde_json::Value;

/// Show how the node is.
#[derive(Debug, Args)]
pub(crate) struct Status {
    #[command(flatten)]
    to: To,
}

/// Who leads, who lags and why, in a line.
fn site(group: &Value) -> String {
    let me = group["node"].as_u64();
    let nodes = group["members"].as_array().map(Vec::as_slice).unwrap_or_default();
    let leader = group["leader"].as_u64();
    let head = match leader {
        Some(id) if Some(id) == me => format!(
            "node {id} of {}, leads in term {}",
            nodes.len(),
            text(group, "term")
        ),
        Some(id) => format!("node {} of {}, node {id} leads", text(group, "node"), nodes.len()),
        None => format!("node {} of {}, nobody leads", text(group, "node"), nodes.len()),
    };
    let others = nodes.iter().filter(|n| n["id"].as_u64() != me);
    let others: Vec<String> = others
        .map(|n| {
            format!(
                "{} {}",
                text(n, "id"),
                super::cluster::state(n, false, leader == me)
            )
        })
        .collect();
    match others.is_empty() {
        true => head,
        false => format!("{head}; {}", others.join(", ")),
    }
}

/// How many this node has and leads, and which nobody does.
fn groups(status: &Value) -> String {
    let all = status["groups"].as_array().map(Vec::as_slice).unwrap_or_default();
    let me = status["group"]["node"].as_u64();
    let has = |g: &&Value| {
        g["members"]
            .as_array()
            .is_some_and(|m| m.iter().any(|id| id.as_u64() == me))
    };
    let leaderless: Vec<String> = all
        .iter()
        .filter(|g| g["leader"].is_null())
        .map(|g| text(g, "group"))
        .collect();
    let leads = all.iter().filter(|g| g["leader"].as_u64() == me).count();
    match (all.is_empty(), leaderless.is_empty()) {
        (true, _) => "none beside the site's".to_owned(),
        (false, true) => format!(
            "{} of {} are here, {leads} led from here",
            all.iter().filter(has).count(),
            all.len()
        ),
        (false, false) => format!("nobody leads {}", leaderless.join(", ")),
    }
}

/// How a share of what the node has stands.
fn share(share: &Value) -> Vec<String> {
    let amount = |name: &str| match share["of"].as_str() {
        Some("memory") => bytes(share[name].as_u64().unwrap_or(0)),
        _ => text(share, name),
    };
    vec![
        text(share, "share"),
        text(share, "of"),
        amount("used"),
        amount("max"),
        text(share, "refused"),
    ]
}

impl Status {
    pub(crate) async fn run(self) -> Result<()> {
        let client = self.to.connect().await?;
        let status: Value =
            serde_json::from_slice(&client.status().await?).context("the answer is not JSON")?;
        client.close().await;
        if self.to.output == Format::Json {
            return lines([&status]);
        }
        let size = |name: &str| bytes(status[name].as_u64().unwrap_or(0));
        let list = |name: &str| {
            let items: Vec<String> = status[name]
                .as_array()
                .into_iter()
                .flatten()
                .map(|v| match v {
                    Value::String(s) => s.clone(),
                    range if range["topic"].is_string() => format!(
                        "{} of `{}` [{}, {})",
                        range["index"],
                        text(range, "topic"),
                        range["start"],
                        range["end"]
                    ),
                    other => other.to_string(),
                })
                .collect();
            if items.is_empty() {
                "none".to_owned()
            } else {
                items.join(", ")
            }
        };
        let pipelines: Vec<String> = status["pipelines"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|p| {
                let why = p["state"]["why"]
                    .as_str()
                    .map(|w| format!(" ({w})"))
                    .unwrap_or_default();
                format!("{} {}{why}", text(p, "name"), text(&p["state"], "state"))
            })
            .collect();
        fields(&[
            ("node", format!("{} {}", self.to.node, text(&status, "version"))),
            ("identity", text(&status, "identity")),
            ("site", site(&status["group"])),
            ("replica groups", groups(&status)),
            ("up", format!("{} s", text(&status, "uptime_s"))),
            ("accepting records", text(&status, "accepting")),
            (
                "topics",
                format!(
                    "{} with {} partitions",
                    text(&status, "topics"),
                    text(&status, "partitions")
                ),
            ),
            ("lazy topics", list("lazy_topics")),
            (
                "removed",
                format!(
                    "{} records by age, {} by size, {} over the disk budget",
                    text(&status["removed"], "age"),
                    text(&status["removed"], "size"),
                    text(&status["removed"], "budget")
                ),
            ),
            (
                "disk",
                format!(
                    "{} used, {} free, {} in reserve",
                    size("disk_bytes"),
                    size("disk_free_bytes"),
                    size("disk_reserve_bytes")
                ),
            ),
            (
                "log",
                format!(
                    "{} written in {} syncs, origin epoch {}",
                    size("written_bytes"),
                    text(&status, "syncs"),
                    text(&status, "epoch")
                ),
            ),
            (
                "pipelines",
                if pipelines.is_empty() {
                    "none".to_owned()
                } else {
                    pipelines.join(", ")
                },
            ),
            ("found damaged", list("damaged")),
            ("lost at start", list("lost_at_start")),
            ("notes at start", list("notes_at_start")),
        ])?;
        let shares = status["shares"].as_array().into_iter().flatten();
        let rows: Vec<Vec<String>> = shares.map(share).collect();
        table(&["SHARE", "OF", "USED", "OF ALL", "REFUSED"], &rows)
    }
}

//! `weir cluster`

use super::output::{fields, lines, table, text};
use super::{Format, To};
use crate::keep::SILENT_MS;
use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use serde_json::Value;
use std::path::PathBuf;
use std::time::Duration;
use weir_client::{Client, ErrorKind};

/// How often a node that is to go is asked for again while what it has is copied.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// A leader that takes longer to answer is told of by another.
const LEADER_WITHIN: Duration = Duration::from_secs(2);

/// Let nodes join a site, see how they are, hand over, take one out.
#[derive(Debug, Args)]
pub(crate) struct ClusterArgs {
    #[command(subcommand)]
    command: ClusterCommand,
}

#[derive(Debug, Subcommand)]
enum ClusterCommand {
    /// Show who leads, who lags and why.
    Status {
        #[command(flatten)]
        to: To,
    },
    /// List the nodes and how to reach them.
    Members {
        #[command(flatten)]
        to: To,
    },
    /// Print a token that lets one node join: `weir serve --join HOST:PORT --token TOKEN`.
    Invite {
        /// How long it can be used.
        #[arg(long, default_value = "1h", value_parser = humantime::parse_duration)]
        valid: Duration,
        #[command(flatten)]
        to: To,
    },
    /// Have another node lead.
    Transfer {
        /// The number of the node that shall lead.
        #[arg(value_name = "NODE")]
        number: u64,
        #[command(flatten)]
        to: To,
    },
    /// Have replicas go from nodes with much to nodes with little, and leaders take turns, as after a node has joined.
    /// Prints what is to move; it moves while records come and go.
    Rebalance {
        #[command(flatten)]
        to: To,
    },
    /// Take a node out that is gone, or that shall go. What replica groups have there goes to others first.
    Remove {
        /// Its number.
        #[arg(value_name = "NODE")]
        number: u64,
        #[command(flatten)]
        to: To,
    },
    /// Make a stopped node its site's only one, when most of the others are gone for good: no majority can come back to
    /// decide anything. What only they had is lost, and one that does come back stays out.
    Recover {
        /// The node's directory.
        #[arg(long, value_name = "DIR")]
        data: PathBuf,
    },
    /// As `remove`, for a node that is there: returns once it has no part in anything and can be stopped.
    Drain {
        /// Its number.
        #[arg(value_name = "NODE")]
        number: u64,
        #[command(flatten)]
        to: To,
    },
}

impl ClusterArgs {
    pub(crate) async fn run(self) -> Result<()> {
        match self.command {
            ClusterCommand::Status { to } => status(&to).await,
            ClusterCommand::Members { to } => members(&to).await,
            ClusterCommand::Invite { valid, to } => invite(&to, valid).await,
            ClusterCommand::Recover { data } => {
                let node = crate::site::make_alone(&data).await?;
                say!("node {node} is its site's only one from now on: start it, and let others join");
                Ok(())
            }
            ClusterCommand::Transfer { number: node, to } => {
                let client = to.connect().await?;
                client.transfer(node).await?;
                client.close().await;
                say!("node {node} leads");
                Ok(())
            }
            ClusterCommand::Rebalance { to } => rebalance(&to).await,
            ClusterCommand::Remove { number: node, to } | ClusterCommand::Drain { number: node, to } => {
                let client = to.connect().await?;
                remove(&client, node).await?;
                client.close().await;
                say!(
                    "node {node} is no member any more: it can be stopped, and joins again only with a token"
                );
                Ok(())
            }
        }
    }
}

/// Takes a node out, however long it takes to copy what it has.
async fn remove(client: &Client, node: u64) -> Result<()> {
    loop {
        match client.remove_node(node).await {
            Err(e) if e.kind() == ErrorKind::Retry => hint!("{e}"),
            done => return Ok(done?),
        }
        tokio::time::sleep(ASK_AGAIN).await;
    }
}

async fn rebalance(to: &To) -> Result<()> {
    let client = to.connect().await?;
    let moves: Vec<String> =
        serde_json::from_slice(&client.rebalance().await?).context("the answer is not JSON")?;
    client.close().await;
    match to.output {
        Format::Json => lines([&serde_json::json!({ "moves": moves })]),
        Format::Table if moves.is_empty() => {
            say!("nothing is to move");
            Ok(())
        }
        Format::Table => {
            for m in moves {
                say!("{m}");
            }
            Ok(())
        }
    }
}

/// What the leader says, who alone knows how the others are; what the first that answers says, if the leader does not.
async fn asked(to: &To) -> Result<Value> {
    let status = ask_one(to).await?;
    let leader = status["leader"].as_u64();
    if leader.is_none() || leader == status["node"].as_u64() {
        return Ok(status);
    }
    let nodes = status["members"].as_array().cloned().unwrap_or_default();
    let at = nodes.iter().find(|n| n["id"].as_u64() == leader);
    let Some(node) = at.and_then(|n| n["quic"].as_str()) else {
        return Ok(status);
    };
    let there = To {
        node: node.to_owned(),
        ..to.clone()
    };
    match tokio::time::timeout(LEADER_WITHIN, ask_one(&there)).await {
        Ok(Ok(of_leader)) => Ok(of_leader),
        _ => Ok(status),
    }
}

async fn ask_one(to: &To) -> Result<Value> {
    let client = to.connect().await?;
    let status = serde_json::from_slice(&client.cluster().await?).context("the answer is not JSON")?;
    client.close().await;
    Ok(status)
}

async fn status(to: &To) -> Result<()> {
    let status = asked(to).await?;
    if to.output == Format::Json {
        return lines([&status]);
    }
    let nodes = status["members"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    let leader = match status["leader"].as_u64() {
        Some(id) => format!("node {id} in term {}", text(&status, "term")),
        None => "nobody leads at the moment".to_owned(),
    };
    fields(&[
        ("asked", format!("node {}", text(&status, "node"))),
        ("leader", leader),
        ("survives", survives(&status, nodes)),
        (
            "log",
            format!(
                "{} entries, {} applied here, {} purged",
                text(&status, "last"),
                text(&status, "applied"),
                text(&status, "purged")
            ),
        ),
    ])?;
    say!("");
    let asked = status["node"].as_u64();
    let row = |n: &Value| {
        vec![
            text(n, "id"),
            text(n, "role"),
            n["lag"]
                .as_u64()
                .map_or_else(|| "?".to_owned(), |l| l.to_string()),
            state(n, asked == n["id"].as_u64(), asked == status["leader"].as_u64()),
            text(n, "quic"),
            text(n, "rack"),
        ]
    };
    let rows: Vec<Vec<String>> = nodes.iter().map(row).collect();
    table(&["NODE", "ROLE", "LAG", "STATE", "ADDRESS", "RACK"], &rows)?;
    let groups = status["groups"].as_array().map(Vec::as_slice).unwrap_or_default();
    if groups.is_empty() {
        return Ok(());
    }
    say!("");
    let is_silent = |id: u64| {
        let node = nodes.iter().find(|n| n["id"].as_u64() == Some(id));
        let heard = node.and_then(|n| n["heard_ms_ago"].as_u64());
        asked == status["leader"].as_u64() && Some(id) != asked && heard.is_none_or(|ms| ms > SILENT_MS)
    };
    let rows: Vec<Vec<String>> = groups.iter().map(|g| group(g, is_silent)).collect();
    table(&["GROUP", "PARTITIONS", "LEADER", "REPLICAS", "STATE"], &rows)?;
    for moving in status["moves"].as_array().into_iter().flatten() {
        let [topic, partition, from, to] =
            ["topic", "partition", "from", "to"].map(|name| text(moving, name));
        say!("topic {topic}, partition {partition}: on its way from group {from} to group {to}");
    }
    let waiting = status["outbox"].as_array().into_iter().flatten();
    for waiting in waiting.filter(|waiting| waiting["records"] != 0) {
        let [topic, partition, home, records, bytes] =
            ["topic", "partition", "home", "records", "bytes"].map(|name| text(waiting, name));
        say!(
            "topic {topic}, partition {partition}: {records} records ({bytes} bytes) wait in the outbox of group {home}"
        );
    }
    Ok(())
}

/// A replica group, in words: who leads, and what is still to happen to it.
fn group(group: &Value, is_silent: impl Fn(u64) -> bool) -> Vec<String> {
    let ids = |name: &str| -> Vec<u64> {
        let ids = group[name].as_array().into_iter().flatten();
        ids.filter_map(Value::as_u64).collect()
    };
    let (wanted, has) = (ids("replicas"), ids("members"));
    let said = |nodes: Vec<&u64>| {
        nodes
            .into_iter()
            .map(u64::to_string)
            .collect::<Vec<_>>()
            .join(", ")
    };
    let coming: Vec<&u64> = wanted.iter().filter(|n| !has.contains(n)).collect();
    let going: Vec<&u64> = has.iter().filter(|n| !wanted.contains(n)).collect();
    let state = match (coming.is_empty(), going.is_empty()) {
        _ if group["leader"].as_u64().is_none_or(&is_silent) => "nobody leads".to_owned(),
        _ if has.iter().any(|id| is_silent(*id)) => {
            let silent = has.iter().filter(|id| is_silent(**id)).collect();
            format!("node {} is silent", said(silent))
        }
        (true, true) => "in place".to_owned(),
        (false, true) => format!("node {} is to come", said(coming)),
        (true, false) => format!("node {} is to go", said(going)),
        (false, false) => format!("node {} is to come, node {} to go", said(coming), said(going)),
    };
    vec![
        text(group, "group"),
        text(group, "partitions"),
        group["leader"]
            .as_u64()
            .map_or_else(|| "none".to_owned(), |id| id.to_string()),
        said(wanted.iter().collect()),
        state,
    ]
}

/// In words: what may still happen to the voters. Those that the leader knows to be away or to take nothing are lost
/// already.
fn survives(status: &Value, nodes: &[Value]) -> String {
    let leader_was_asked = status["leader"] == status["node"];
    let voters = || nodes.iter().filter(|n| n["role"] != "learner");
    let away = |n: &&Value| {
        let silent = n["heard_ms_ago"].as_u64().is_none_or(|ms| ms > SILENT_MS);
        n["id"] != status["node"] && leader_was_asked && (silent || n["refuses"].is_string())
    };
    let (all, lost) = (voters().count(), voters().filter(away).count());
    let is_witness = |n: &&Value| n["witness"] == true;
    if voters().any(|n| is_witness(&n))
        && voters().filter(|n| !is_witness(n)).any(|n| away(&n))
        && lost * 2 < all
    {
        return format!("no further loss: {lost} of {all} lost, and a witness has no copy of what is new");
    }
    match (all, all.saturating_sub(1) / 2) {
        (0 | 1, _) => "no loss of a node".to_owned(),
        (2, _) => {
            "no loss of a node: with two there is no majority without the other; add a third, or a witness"
                .to_owned()
        }
        (_, spare) if lost == 0 => format!("the loss of {spare} of {all}"),
        (_, spare) if lost < spare => format!("the loss of {} more: {lost} of {all} lost", spare - lost),
        (_, spare) if lost == spare => format!("no further loss: {lost} of {all} lost"),
        _ => format!("nothing: {lost} of {all} are lost, and it takes no records until one of them is back"),
    }
}

/// In words: how a node is, as far as the one that was asked can know.
pub(super) fn state(node: &Value, is_asked: bool, leader_was_asked: bool) -> String {
    if is_asked {
        return "answers".to_owned();
    }
    if !leader_was_asked {
        return "ask the leader".to_owned();
    }
    let lag = node["lag"].as_u64().unwrap_or(u64::MAX);
    match node["heard_ms_ago"].as_u64() {
        None => "not heard of yet".to_owned(),
        Some(ms) if ms > SILENT_MS => format!("silent for {} s", ms / 1_000),
        Some(_) if node["refuses"].is_string() => format!("takes nothing: {}", text(node, "refuses")),
        Some(_) if lag > 1_000 => "catching up".to_owned(),
        Some(_) => "in step".to_owned(),
    }
}

async fn members(to: &To) -> Result<()> {
    let status = asked(to).await?;
    let nodes = status["members"].as_array().cloned().unwrap_or_default();
    if to.output == Format::Json {
        return lines(&nodes);
    }
    let columns = ["id", "role", "quic", "kafka", "http", "rack", "key"];
    let row = |n: &Value| columns.iter().map(|c| text(n, c)).collect();
    let rows: Vec<Vec<String>> = nodes.iter().map(row).collect();
    table(&["NODE", "ROLE", "QUIC", "KAFKA", "HTTP", "RACK", "KEY"], &rows)
}

async fn invite(to: &To, valid: Duration) -> Result<()> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(|e| anyhow::anyhow!("no randomness: {e}"))?;
    let client = to.connect().await?;
    client.invite(random, valid).await?;
    client.close().await;
    let token = weir_broker::Token::new(random).to_string();
    match to.output {
        Format::Json => lines([&serde_json::json!({ "token": token, "valid_s": valid.as_secs() })]),
        Format::Table => {
            say!("{token}");
            Ok(())
        }
    }
}

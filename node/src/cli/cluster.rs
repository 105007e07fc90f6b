//! `weir cluster`

use super::output::{fields, lines, table};
use super::{Format, To};
use crate::keep::SILENT_MS;
use anyhow::Result;
use clap::{Args, Subcommand};
use serde::Serialize;
use std::path::PathBuf;
use std::time::Duration;
use weir_api::{Cluster, Member, Move, OutboxEntry, Rebalance, ReplicaGroup, Role, Site};
use weir_client::{Client, ErrorKind};

/// Pause between requests to remove a node while its replicas are copied.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// Time for the leader to answer; after it, the status of another node is shown.
const LEADER_WITHIN: Duration = Duration::from_secs(2);

/// Manage the nodes of a site: status, invite, transfer, rebalance, drain, remove.
#[derive(Debug, Args)]
pub(crate) struct ClusterArgs {
    #[command(subcommand)]
    command: ClusterCommand,
}

#[derive(Debug, Subcommand)]
enum ClusterCommand {
    /// Show the leader, and the state and lag of each node.
    Status {
        #[command(flatten)]
        to: To,
    },
    /// List the nodes and their addresses.
    Members {
        #[command(flatten)]
        to: To,
    },
    /// Print a token that lets a single node join: `weir serve --join HOST:PORT --token TOKEN`.
    Invite {
        /// Lifetime of the token.
        #[arg(long, default_value = "1h", value_parser = humantime::parse_duration)]
        valid: Duration,
        #[command(flatten)]
        to: To,
    },
    /// Transfer leadership to another node.
    Transfer {
        /// Number of the new leader.
        #[arg(value_name = "NODE")]
        number: u64,
        #[command(flatten)]
        to: To,
    },
    /// Move replicas from busy nodes to idle nodes and spread leaders, as after a node has joined. Prints the
    /// moves; they run while records come and go.
    Rebalance {
        #[command(flatten)]
        to: To,
    },
    /// Remove a node that is dead or to be retired. Its replicas are copied to other nodes first.
    Remove {
        /// Number of the node.
        #[arg(value_name = "NODE")]
        number: u64,
        #[command(flatten)]
        to: To,
    },
    /// Make a stopped node the only node of its site, when the majority is lost for good. Data that only the
    /// other nodes had is lost; a node that returns cannot rejoin.
    Recover {
        /// Data directory of the node.
        #[arg(long, value_name = "DIR")]
        data: PathBuf,
    },
    /// Remove a running node: returns once the node has no replicas and can be stopped.
    Drain {
        /// Number of the node.
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

/// Removes a node, however long copying its replicas takes.
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
    let moves = client.rebalance().await?;
    client.close().await;
    match to.output {
        Format::Json => lines([Moves { moves }]),
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

/// Moves that a rebalance starts.
#[derive(Serialize)]
struct Moves {
    moves: Rebalance,
}

/// Returns the status from the leader, which alone knows the state of other nodes; or from the first node
/// that answers.
async fn asked(to: &To) -> Result<Cluster> {
    let status = ask(to).await?;
    let site = &status.site;
    if site.leader.is_none() || site.leader == Some(site.node) {
        return Ok(status);
    }
    let leader = site.members.iter().find(|n| Some(n.id) == site.leader);
    let Some(leader) = leader else {
        return Ok(status);
    };
    let there = To {
        node: leader.quic.clone(),
        ..to.clone()
    };
    match tokio::time::timeout(LEADER_WITHIN, ask(&there)).await {
        Ok(Ok(of_leader)) => Ok(of_leader),
        _ => Ok(status),
    }
}

async fn ask(to: &To) -> Result<Cluster> {
    let client = to.connect().await?;
    let status = client.cluster().await?;
    client.close().await;
    Ok(status)
}

async fn status(to: &To) -> Result<()> {
    let status = asked(to).await?;
    if to.output == Format::Json {
        return lines([&status]);
    }
    let site = &status.site;
    let leader = match site.leader {
        Some(id) => format!("node {id} in term {}", site.term),
        None => "nobody leads at the moment".to_owned(),
    };
    fields(&[
        ("asked", format!("node {}", site.node)),
        ("leader", leader),
        ("survives", survives(site)),
        (
            "log",
            format!(
                "{} entries, {} applied here, {} purged",
                site.last, site.applied, site.purged
            ),
        ),
    ])?;
    say!("");
    let leader_was_asked = site.leader == Some(site.node);
    let row = |n: &Member| {
        vec![
            n.id.to_string(),
            n.role.name().to_owned(),
            n.lag.map_or_else(|| "?".to_owned(), |lag| lag.to_string()),
            state(n, n.id == site.node, leader_was_asked),
            n.quic.clone(),
            n.rack.clone(),
        ]
    };
    let rows: Vec<Vec<String>> = site.members.iter().map(row).collect();
    table(&["NODE", "ROLE", "LAG", "STATE", "ADDRESS", "RACK"], &rows)?;
    if status.groups.is_empty() {
        return Ok(());
    }
    say!("");
    let is_silent = |id: u64| {
        let node = site.members.iter().find(|n| n.id == id);
        let heard = node.and_then(|n| n.heard_ms_ago);
        leader_was_asked && id != site.node && heard.is_none_or(|ms| ms > SILENT_MS)
    };
    let rows: Vec<Vec<String>> = status.groups.iter().map(|g| group(g, is_silent)).collect();
    table(&["GROUP", "PARTITIONS", "LEADER", "REPLICAS", "STATE"], &rows)?;
    for moving in &status.moves {
        let Move {
            topic,
            partition,
            from,
            to,
        } = moving;
        say!("topic {topic}, partition {partition}: on its way from group {from} to group {to}");
    }
    for waiting in status.outbox.iter().filter(|waiting| waiting.records != 0) {
        let OutboxEntry {
            topic,
            partition,
            home,
            records,
            bytes,
        } = waiting;
        say!(
            "topic {topic}, partition {partition}: {records} records ({bytes} bytes) wait in the outbox of group {home}"
        );
    }
    Ok(())
}

/// Returns the row of a replica group: its leader, its replicas, and its pending changes.
fn group(group: &ReplicaGroup, is_silent: impl Fn(u64) -> bool) -> Vec<String> {
    let (wanted, has) = (&group.replicas, &group.members);
    let listed = |nodes: Vec<&u64>| {
        nodes
            .into_iter()
            .map(u64::to_string)
            .collect::<Vec<_>>()
            .join(", ")
    };
    let coming: Vec<&u64> = wanted.iter().filter(|n| !has.contains(n)).collect();
    let going: Vec<&u64> = has.iter().filter(|n| !wanted.contains(n)).collect();
    let state = match (coming.is_empty(), going.is_empty()) {
        _ if group.leader.is_none_or(&is_silent) => "nobody leads".to_owned(),
        _ if has.iter().any(|id| is_silent(*id)) => {
            let silent = has.iter().filter(|id| is_silent(**id)).collect();
            format!("node {} is silent", listed(silent))
        }
        (true, true) => "in place".to_owned(),
        (false, true) => format!("node {} is to come", listed(coming)),
        (true, false) => format!("node {} is to go", listed(going)),
        (false, false) => format!("node {} is to come, node {} to go", listed(coming), listed(going)),
    };
    vec![
        group.group.to_string(),
        group.partitions.to_string(),
        group
            .leader
            .map_or_else(|| "none".to_owned(), |id| id.to_string()),
        listed(wanted.iter().collect()),
        state,
    ]
}

/// Describes the losses that the site still survives. Voters that are silent, or refuse entries, count as
/// lost already.
fn survives(site: &Site) -> String {
    let leader_was_asked = site.leader == Some(site.node);
    let voters = || site.members.iter().filter(|n| n.role != Role::Learner);
    let away = |n: &&Member| {
        let silent = n.heard_ms_ago.is_none_or(|ms| ms > SILENT_MS);
        n.id != site.node && leader_was_asked && (silent || n.refuses.is_some())
    };
    let (all, lost) = (voters().count(), voters().filter(away).count());
    if voters().any(|n| n.witness) && voters().filter(|n| !n.witness).any(|n| away(&n)) && lost * 2 < all {
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

/// Describes the state of a node, as far as the answering node knows.
pub(super) fn state(node: &Member, is_asked: bool, leader_was_asked: bool) -> String {
    if is_asked {
        return "answers".to_owned();
    }
    if !leader_was_asked {
        return "ask the leader".to_owned();
    }
    let lag = node.lag.unwrap_or(u64::MAX);
    match (node.heard_ms_ago, &node.refuses) {
        (None, _) => "not heard of yet".to_owned(),
        (Some(ms), _) if ms > SILENT_MS => format!("silent for {} s", ms / 1_000),
        (Some(_), Some(why)) => format!("takes nothing: {why}"),
        (Some(_), None) if lag > 1_000 => "catching up".to_owned(),
        (Some(_), None) => "in step".to_owned(),
    }
}

async fn members(to: &To) -> Result<()> {
    let members = asked(to).await?.site.members;
    if to.output == Format::Json {
        return lines(members);
    }
    let row = |n: Member| {
        let role = n.role.name().to_owned();
        vec![n.id.to_string(), role, n.quic, n.kafka, n.http, n.rack, n.key]
    };
    let rows: Vec<Vec<String>> = members.into_iter().map(row).collect();
    table(&["NODE", "ROLE", "QUIC", "KAFKA", "HTTP", "RACK", "KEY"], &rows)
}

/// A token that lets a node join.
#[derive(Serialize)]
struct Invitation<'a> {
    token: &'a str,
    valid_s: u64,
}

async fn invite(to: &To, valid: Duration) -> Result<()> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(|e| anyhow::anyhow!("no randomness: {e}"))?;
    let client = to.connect().await?;
    client.invite(random, valid).await?;
    client.close().await;
    let token = weir_broker::Token::new(random).to_string();
    match to.output {
        Format::Json => lines([Invitation {
            token: &token,
            valid_s: valid.as_secs(),
        }]),
        Format::Table => {
            say!("{token}");
            Ok(())
        }
    }
}

//! `weir status`

use super::output::{bytes, fields, lines, or_dash, table};
use super::{Format, To};
use anyhow::Result;
use clap::Args;
use weir_api::{NamedGap, PipelineSummary, ReplicaGroup, Share, Site};

/// Show the status of a node.
#[derive(Debug, Args)]
pub(crate) struct Status {
    #[command(flatten)]
    to: To,
}

impl Status {
    pub(crate) async fn run(self) -> Result<()> {
        let client = self.to.connect().await?;
        let status = client.status().await?;
        client.close().await;
        match self.to.output {
            Format::Json => lines([&status]),
            Format::Table => show(&self.to.node, &status),
        }
    }
}

/// Shows a status for people.
fn show(node: &str, status: &weir_api::Status) -> Result<()> {
    let removed = &status.removed;
    fields(&[
        ("node", format!("{node} {}", status.version)),
        ("identity", status.identity.clone()),
        ("site", site(&status.group)),
        ("replica groups", groups(status.group.node, &status.groups)),
        ("up", format!("{} s", status.uptime_s)),
        ("accepting records", status.accepting.to_string()),
        (
            "topics",
            format!("{} with {} partitions", status.topics, status.partitions),
        ),
        ("lazy topics", listed(&status.lazy_topics, Clone::clone)),
        (
            "removed",
            format!(
                "{} records by age, {} by size, {} over the disk budget",
                removed.age, removed.size, removed.budget
            ),
        ),
        (
            "disk",
            format!(
                "{} used, {} free, {} in reserve",
                bytes(status.disk_bytes),
                bytes(status.disk_free_bytes),
                bytes(status.disk_reserve_bytes)
            ),
        ),
        (
            "log",
            format!(
                "{} written in {} syncs, origin epoch {}",
                bytes(status.written_bytes),
                status.syncs,
                status.epoch
            ),
        ),
        ("pipelines", listed(&status.pipelines, pipeline)),
        ("found damaged", listed(&status.damaged, gap)),
        ("lost at start", listed(&status.lost_at_start, gap)),
        ("notes at start", listed(&status.notes_at_start, Clone::clone)),
    ])?;
    let rows: Vec<Vec<String>> = status.shares.iter().map(share).collect();
    table(&["SHARE", "OF", "USED", "OF ALL", "REFUSED"], &rows)
}

/// Returns items with commas between them, or `none`.
fn listed<T>(items: &[T], text: impl Fn(&T) -> String) -> String {
    match items.is_empty() {
        true => "none".to_owned(),
        false => items.iter().map(text).collect::<Vec<_>>().join(", "),
    }
}

/// Returns a line on the site: its leader, and the state of its other nodes.
fn site(group: &Site) -> String {
    let (me, nodes) = (group.node, &group.members);
    let head = match group.leader {
        Some(id) if id == me => format!("node {id} of {}, leads in term {}", nodes.len(), group.term),
        Some(id) => format!("node {me} of {}, node {id} leads", nodes.len()),
        None => format!("node {me} of {}, nobody leads", nodes.len()),
    };
    let others = nodes.iter().filter(|n| n.id != me);
    let others: Vec<String> = others
        .map(|n| {
            let state = super::cluster::state(n, false, group.leader == Some(me));
            format!("{} {state}", n.id)
        })
        .collect();
    match others.is_empty() {
        true => head,
        false => format!("{head}; {}", others.join(", ")),
    }
}

/// Returns a line on the replica groups: how many are here and led from here, or which have no leader.
fn groups(me: u64, all: &[ReplicaGroup]) -> String {
    let has = all.iter().filter(|g| g.members.contains(&me)).count();
    let leads = all.iter().filter(|g| g.leader == Some(me)).count();
    let leaderless = all.iter().filter(|g| g.leader.is_none());
    let leaderless: Vec<String> = leaderless.map(|g| g.group.to_string()).collect();
    match (all.is_empty(), leaderless.is_empty()) {
        (true, _) => "none beside the site's".to_owned(),
        (false, true) => format!("{has} of {} are here, {leads} led from here", all.len()),
        (false, false) => format!("nobody leads {}", leaderless.join(", ")),
    }
}

fn pipeline(pipeline: &PipelineSummary) -> String {
    let state = &pipeline.state;
    let why = state.why().map(|why| format!(" ({why})")).unwrap_or_default();
    format!("{} {}{why}", pipeline.name, state.name())
}

fn gap(gap: &NamedGap) -> String {
    let (start, end) = (gap.start, gap.end);
    match &gap.topic {
        Some(topic) => format!("{} of `{topic}` [{start}, {end})", or_dash(gap.index)),
        None => format!("of no topic: partition id {} [{start}, {end})", gap.partition),
    }
}

/// Returns the row of a share.
fn share(share: &Share) -> Vec<String> {
    let amount = |n: u64| match share.of.as_str() {
        "memory" => bytes(n),
        _ => n.to_string(),
    };
    vec![
        share.share.clone(),
        share.of.clone(),
        amount(share.used),
        amount(share.max),
        share.refused.to_string(),
    ]
}

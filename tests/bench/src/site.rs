//! Three nodes on a single machine and disk: the cost of replication, the pause after the loss of a leader,
//! and the catch-up of a node that was away.

use crate::node::Node;
use crate::produce::{flood, paced};
use crate::{Setup, Table, quantile};
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::time::{Duration, Instant};
use weir_client::{Batch, BatchBuilder, Client, Codec, KnownNodes, Offset};

/// Longest wait for anything.
const DEADLINE: Duration = Duration::from_secs(60);
/// Leaders that are killed.
const KILLS: u32 = 5;
/// Partitions of a large site.
const MANY: u32 = 10_000;
/// Partitions of an idle site.
const PARTITIONS: u32 = 1_000;

struct Site {
    dir: tempfile::TempDir,
    /// Its nodes' settings.
    config: String,
    /// Addresses of the nodes, the same after a restart of all.
    addrs: Vec<String>,
    nodes: Vec<Option<Node>>,
}

impl Site {
    async fn of_three(setup: &Setup, settings: &str) -> Result<Self> {
        let dir = tempfile::tempdir_in(&setup.dir)?;
        let config = dir.path().join("weir.toml");
        std::fs::write(&config, settings)?;
        let mut site = Self {
            config: config.display().to_string(),
            addrs: Vec::new(),
            dir,
            nodes: Vec::new(),
        };
        for _ in 0..3 {
            // Free a moment ago, and not given out again soon.
            let free = std::net::UdpSocket::bind("127.0.0.1:0")?;
            site.addrs.push(free.local_addr()?.to_string());
            site.nodes.push(None);
        }
        site.start(setup, 0, &[])?;
        let client = site.client().await?;
        for n in 1..3 {
            let mut token = [n; 16];
            token[0] = 7;
            client.invite(token, DEADLINE).await?;
            let text: String = token.iter().map(|b| format!("{b:02x}")).collect();
            let addr = site.node(0)?.addr().to_string();
            let token = format!("weir-{text}");
            site.start(setup, usize::from(n), &["--join", &addr, "--token", &token])?;
        }
        site.until(|s| {
            let members = s["members"].as_array().cloned().unwrap_or_default();
            members.iter().filter(|m| m["role"] != "learner").count() == 3
        })
        .await?;
        Ok(site)
    }

    fn place(&self, n: usize) -> Result<std::path::PathBuf> {
        let place = self.dir.path().join(n.to_string());
        std::fs::create_dir_all(&place)?;
        Ok(place)
    }

    fn node(&self, n: usize) -> Result<&Node> {
        self.nodes.get(n).and_then(Option::as_ref).context("node is down")
    }

    async fn client(&self) -> Result<Client> {
        let seeds: Vec<_> = self.nodes.iter().flatten().map(Node::addr).collect();
        Ok(Client::connect_any(&seeds, &KnownNodes::forgetful(), "bench").await?)
    }

    /// Returns the leader's status, once `condition` holds.
    async fn until(&self, condition: impl Fn(&Value) -> bool) -> Result<Value> {
        let begun = Instant::now();
        loop {
            for node in self.nodes.iter().flatten() {
                let status: Value = serde_json::to_value(node.client().await?.cluster().await?)?;
                if status["serving"] == true && condition(&status) {
                    return Ok(status);
                }
            }
            if begun.elapsed() > DEADLINE {
                bail!("the site does not come to rest");
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn leader(&self) -> Result<usize> {
        let status = self.until(|_| true).await?;
        Ok(status["node"].as_u64().context("no number")? as usize - 1)
    }

    fn start(&mut self, setup: &Setup, n: usize, more: &[&str]) -> Result<()> {
        let place = self.place(n)?;
        let args = [&["--config", &self.config], more].concat();
        self.nodes[n] = Some(Node::start_at(setup, &place, &self.addrs[n], &args)?);
        Ok(())
    }
}

pub(crate) fn run(setup: &Setup, table: &mut Table) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut site = rates(setup, table).await?;
        idle(&site, table).await?;
        failover(setup, &mut site, "leader killed", table).await?;
        catch_up(setup, &mut site, table).await?;
        many(setup, &mut site, table).await?;
        drop(site);
        let mut central = Site::of_three(setup, "timing = \"central\"\n").await?;
        central.client().await?.create_topic("t", 1, &[]).await?;
        failover(setup, &mut central, "timing = central, leader killed", table).await
    })
}

async fn rates(setup: &Setup, table: &mut Table) -> Result<Site> {
    let batches = 1_000 / setup.less;
    let alone = Node::start(setup, &[])?;
    let client = alone.client().await?;
    client.create_topic("t", 1, &[]).await?;
    let single = flood(&client, "t", 1_000, 128, batches).await? * 1_000.0;
    let mut times = paced(&client, "t", 3_000 / setup.less).await?;
    let single_p99 = quantile(&mut times, 0.99);
    drop((client, alone));

    let site = Site::of_three(setup, "").await?;
    let client = site.client().await?;
    client.create_topic("t", 1, &[]).await?;
    let three = flood(&client, "t", 1_000, 128, batches).await? * 1_000.0;
    table.add(
        "one node: produce over QUIC, 128 B, batches of 1000",
        single,
        "records/s",
        "",
    );
    let share = format!("{:.0} % of one node", 100.0 * three / single);
    table.add(
        "three nodes on one disk, synced on all",
        three,
        "records/s",
        share,
    );
    site.until(|s| {
        s["members"]
            .as_array()
            .is_some_and(|m| m.iter().all(|m| m["lag"] == 0))
    })
    .await?;
    let mut times = paced(&client, "t", 3_000 / setup.less).await?;
    let p99 = quantile(&mut times, 0.99);
    table.add(
        "three nodes: single records at 1,000/s, p50",
        quantile(&mut times, 0.5),
        "ms",
        "",
    );
    let note = format!("one node {single_p99:.2}");
    table.add("three nodes: single records at 1,000/s, p99", p99, "ms", note);
    Ok(site)
}

async fn idle(site: &Site, table: &mut Table) -> Result<()> {
    let before: f64 = site
        .nodes
        .iter()
        .flatten()
        .map(|n| n.rss_mib().unwrap_or(0.0))
        .sum();
    let client = site.client().await?;
    client.create_topic("many", PARTITIONS, &[]).await?;
    client.close().await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let after: f64 = site
        .nodes
        .iter()
        .flatten()
        .map(|n| n.rss_mib().unwrap_or(0.0))
        .sum();
    let cpu = || -> Result<f64> { site.nodes.iter().flatten().map(Node::cpu_seconds).sum() };
    let (begun, used) = (Instant::now(), cpu()?);
    tokio::time::sleep(Duration::from_secs(10)).await;
    let share = 100.0 * (cpu()? - used) / begun.elapsed().as_secs_f64() / 3.0;
    table.add(
        "three nodes, 1,000 partitions, idle, each",
        share,
        "% of a core",
        "",
    );
    let each = (after - before) * 1_024.0 / 3.0 / f64::from(PARTITIONS);
    table.add("memory a partition and node", each.max(0.0), "KiB", "");
    Ok(())
}

fn numbered(id: i64, sequence: i32) -> Result<Batch> {
    let mut builder = BatchBuilder::new(Codec::None);
    builder.push(0, None, Some(b"21.5"), weir_types::Headers::NONE);
    let producer = weir_types::Producer {
        id,
        epoch: 0,
        sequence,
    };
    Ok(builder.build(Offset::ZERO, Some(producer))?)
}

/// Measures the time from the kill of a leader to the next leader's first acknowledgement, at a producer.
async fn failover(setup: &Setup, site: &mut Site, what: &str, table: &mut Table) -> Result<()> {
    let mut pauses = Vec::new();
    for _ in 0..KILLS {
        let client = site.client().await?;
        let id = client.init_producer().await?;
        let mut producer = client.producer().await?;
        producer.send("t", 0, &numbered(id, 0)?).await?.done().await?;
        let leader = site.leader().await?;
        site.nodes[leader] = None;
        let begun = Instant::now();
        producer.send("t", 0, &numbered(id, 1)?).await?.done().await?;
        pauses.push(begun.elapsed());
        site.start(setup, leader, &[])?;
        site.until(|s| {
            s["members"]
                .as_array()
                .is_some_and(|m| m.iter().all(|m| m["lag"] == 0))
        })
        .await?;
    }
    let note = format!("of {KILLS} kills");
    table.add(
        format!("{what}: no acknowledgement for, longest"),
        quantile(&mut pauses, 1.0),
        "ms",
        note,
    );
    table.add(
        format!("{what}: no acknowledgement for, median"),
        quantile(&mut pauses, 0.5),
        "ms",
        "",
    );
    Ok(())
}

/// Ten thousand partitions: all nodes are killed at once and started again.
async fn many(setup: &Setup, site: &mut Site, table: &mut Table) -> Result<()> {
    let client = site.client().await?;
    // Beside the partitions of `many`, and that of `t`.
    let more = MANY - PARTITIONS - 1;
    client.create_topic("more", more, &[]).await?;
    client.close().await;
    site.nodes.fill_with(|| None);
    let begun = Instant::now();
    (0..3).try_for_each(|n| site.start(setup, n, &[]))?;
    site.until(|_| true).await?;
    let client = site.client().await?;
    let id = client.init_producer().await?;
    let mut producer = client.producer().await?;
    producer
        .send("more", more - 1, &numbered(id, 0)?)
        .await?
        .done()
        .await?;
    let took = begun.elapsed().as_secs_f64() * 1_000.0;
    table.add(
        "10,000 partitions: all three killed and started, first acknowledgement after",
        took,
        "ms",
        "",
    );
    Ok(())
}

async fn catch_up(setup: &Setup, site: &mut Site, table: &mut Table) -> Result<()> {
    let leader = site.leader().await?;
    let away = (leader + 1) % 3;
    site.nodes[away] = None;
    let client = site.client().await?;
    let batches = 1_000 / setup.less;
    let before = flood(&client, "t", 1_000, 128, batches).await? * 1_000.0;
    site.start(setup, away, &[])?;
    let begun = Instant::now();
    let producing = flood(&client, "t", 1_000, 128, batches);
    let caught_up = async {
        site.until(|s| {
            s["members"]
                .as_array()
                .is_some_and(|m| m.iter().all(|m| m["lag"].as_u64() < Some(8)))
        })
        .await?;
        anyhow::Ok(begun.elapsed())
    };
    let (meanwhile, took) = tokio::join!(producing, caught_up);
    let (meanwhile, took) = (meanwhile? * 1_000.0, took?);
    let records = (batches * 1_000) as f64;
    let note = format!("{:.1} s, from its start", took.as_secs_f64());
    table.add(
        "a node that was away catches up",
        records / took.as_secs_f64(),
        "records/s",
        note,
    );
    let share = format!("{:.0} % of before", 100.0 * meanwhile / before);
    table.add("producers meanwhile", meanwhile, "records/s", share);
    Ok(())
}

//! The node as a process: memory, start, size.

use crate::{Setup, Table};
use anyhow::{Context, Result, bail};
use std::fs::File;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use weir_client::{Client, KnownNodes};

/// A node of the benchmark, with its data in a temporary directory.
pub(crate) struct Node {
    child: Child,
    addr: SocketAddr,
    kafka: SocketAddr,
    took_ms: f64,
    _dir: Option<tempfile::TempDir>,
}

impl Node {
    pub(crate) fn start(setup: &Setup, args: &[&str]) -> Result<Self> {
        let dir = tempfile::tempdir_in(&setup.dir)?;
        let mut node = Self::start_in(setup, dir.path(), args)?;
        node._dir = Some(dir);
        Ok(node)
    }

    pub(crate) fn start_in(setup: &Setup, dir: &Path, args: &[&str]) -> Result<Self> {
        Self::start_at(setup, dir, "127.0.0.1:0", args)
    }

    /// Starts a node with a fixed address `quic`.
    pub(crate) fn start_at(setup: &Setup, dir: &Path, quic: &str, args: &[&str]) -> Result<Self> {
        Self::spawn(Command::new(&setup.weir), dir, quic, args)
    }

    /// Starts a node on a core of its own.
    pub(crate) fn start_on_a_core(setup: &Setup) -> Result<Self> {
        let dir = tempfile::tempdir_in(&setup.dir)?;
        let mut pinned = Command::new("taskset");
        pinned.args(["-c", "0"]).arg(&setup.weir);
        let mut node = Self::spawn(pinned, dir.path(), "127.0.0.1:0", &[])?;
        node._dir = Some(dir);
        Ok(node)
    }

    fn spawn(mut command: Command, dir: &Path, quic: &str, args: &[&str]) -> Result<Self> {
        let log = dir.join("node.log");
        let mut child = command
            .args([
                "serve",
                "--quic",
                quic,
                "--kafka",
                "127.0.0.1:0",
                "--http",
                "127.0.0.1:0",
                "--data",
            ])
            .arg(dir.join("data"))
            .args(args)
            .stdin(Stdio::null())
            .stderr(File::create(&log)?)
            .spawn()?;
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let text = std::fs::read_to_string(&log)?;
            if let Some(line) = text.lines().find(|l| l.contains(" ready ")) {
                let field = |name: &str| line.split(name).nth(1).and_then(|r| r.split_whitespace().next());
                let addr = field("quic=").context("no address")?.parse()?;
                let kafka = field("kafka=").context("no address")?.parse()?;
                let took_ms = field("took_ms=").context("no time")?.parse()?;
                return Ok(Self {
                    child,
                    addr,
                    kafka,
                    took_ms,
                    _dir: None,
                });
            }
            if child.try_wait()?.is_some() || Instant::now() > deadline {
                bail!("the node did not start:\n{text}");
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    pub(crate) async fn client(&self) -> Result<Client> {
        Ok(Client::connect(self.addr, &KnownNodes::forgetful(), "bench").await?)
    }

    /// Address for clients.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Address for Kafka clients.
    pub(crate) fn kafka(&self) -> SocketAddr {
        self.kafka
    }

    /// Processor time so far, of all threads.
    pub(crate) fn cpu_seconds(&self) -> Result<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        // After the name, which may hold anything: fields 14 and 15 are user and system time in ticks of 10
        // ms.
        let rest = stat.rsplit_once(')').context("no name")?.1;
        let mut ticks = rest.split_whitespace().skip(11).take(2).map(str::parse::<f64>);
        let user = ticks.next().context("no time")??;
        let system = ticks.next().context("no time")??;
        Ok((user + system) / 100.0)
    }

    pub(crate) fn rss_mib(&self) -> Result<f64> {
        self.status("VmRSS:")
    }

    pub(crate) fn peak_rss_mib(&self) -> Result<f64> {
        self.status("VmHWM:")
    }

    /// Bytes that the process caused to be sent to the device.
    pub(crate) fn written_bytes(&self) -> Result<f64> {
        let io = std::fs::read_to_string(format!("/proc/{}/io", self.child.id()))?;
        let line = io.lines().find_map(|l| l.strip_prefix("write_bytes: "));
        Ok(line.context("no write_bytes")?.parse()?)
    }

    fn status(&self, field: &str) -> Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status
            .lines()
            .find_map(|l| l.strip_prefix(field))
            .context("no such field")?;
        let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kib / 1_024.0)
    }

    fn stop(mut self) -> Result<()> {
        Command::new("kill").arg(self.child.id().to_string()).status()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn run(setup: &Setup, table: &mut Table) -> Result<()> {
    table.add(
        "size of the binary",
        std::fs::metadata(&setup.weir)?.len() as f64 / f64::from(1 << 20),
        "MiB",
        "",
    );
    let node = Node::start(setup, &[])?;
    table.add("start on an empty log", node.took_ms, "ms", "");
    std::thread::sleep(Duration::from_secs(1));
    table.add("RSS idle", node.rss_mib()?, "MiB", "");
    drop(node);

    let dir = tempfile::tempdir_in(&setup.dir)?;
    let node = Node::start_in(setup, dir.path(), &[])?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let gib = 1.0 / setup.less as f64;
    runtime.block_on(async {
        let client = node.client().await?;
        client.create_topic("t", 1, &[]).await?;
        let payload = crate::log::batch(1_000, 1_024, 3);
        let mut producer = client.producer().await?;
        let mut waiting = std::collections::VecDeque::new();
        for _ in 0..(gib * f64::from(1 << 30) / payload.bytes().len() as f64) as u64 {
            waiting.push_back(producer.send("t", 0, &payload).await?);
            if waiting.len() >= 4
                && let Some(first) = waiting.pop_front()
            {
                first.done().await?;
            }
        }
        for sent in waiting {
            sent.done().await?;
        }
        client.close().await;
        anyhow::Ok(())
    })?;
    node.stop()?;
    let node = Node::start_in(setup, dir.path(), &[])?;
    table.add(
        format!("start on a log of {gib} GiB, after an orderly stop"),
        node.took_ms,
        "ms",
        "",
    );
    drop(node);
    let node = Node::start_in(setup, dir.path(), &[])?;
    table.add(
        format!("start on a log of {gib} GiB, after kill -9"),
        node.took_ms,
        "ms",
        "",
    );
    std::thread::sleep(Duration::from_secs(1));
    table.add(format!("RSS idle with {gib} GiB"), node.rss_mib()?, "MiB", "");
    Ok(())
}

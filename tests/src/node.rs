//! A node as a process of its own.

use crate::builds::weir;
use crate::{DEADLINE, RESERVE_BYTES};
use anyhow::{Context, Result, bail};
use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use weir_client::{Client, KnownNodes};

/// A node as a process. Killed when dropped.
pub struct Node {
    child: Child,
    /// Address for clients.
    pub quic: SocketAddr,
    /// Address for Kafka clients; port 0 where none are served.
    pub kafka: SocketAddr,
    /// Address for HTTP.
    pub http: SocketAddr,
    log: PathBuf,
}

impl Node {
    /// Starts a node with its data in `dir`/data.
    ///
    /// # Errors
    /// When the node does not come up; with its output.
    pub fn start(dir: &Path, env: &[(&str, &str)]) -> Result<Self> {
        Self::start_at(dir, &dir.join("data"), env)
    }

    /// Starts a node with its data in `data` and its output in `dir`.
    ///
    /// # Errors
    /// When the node does not come up; with its output.
    pub fn start_at(dir: &Path, data: &Path, env: &[(&str, &str)]) -> Result<Self> {
        Self::run(Command::new(weir()), dir, data, &[], env)
    }

    /// Starts a node with its data in `dir`/data and more arguments of `weir serve`.
    ///
    /// # Errors
    /// When the node does not come up; with its output.
    pub fn start_with(dir: &Path, args: &[&str], env: &[(&str, &str)]) -> Result<Self> {
        Self::run(Command::new(weir()), dir, &dir.join("data"), args, env)
    }

    /// As [`Node::start`], by a program that runs another, with `weir` as its last argument.
    ///
    /// # Errors
    /// As [`Node::start`].
    pub fn start_by(command: Command, dir: &Path) -> Result<Self> {
        Self::run(command, dir, &dir.join("data"), &[], &[])
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Starts a node, as [`Node::start`] does, without the privilege to raise the priority of a thread, where
    /// `setpriv` can drop that privilege.
    ///
    /// # Errors
    /// As [`Node::start`].
    pub fn start_unprivileged(dir: &Path) -> Result<Self> {
        let setpriv = Command::new("setpriv").arg("--version").output();
        let command = if setpriv.is_ok_and(|o| o.status.success()) {
            let mut setpriv = Command::new("setpriv");
            setpriv.args(["--bounding-set", "-sys_nice"]).arg(weir());
            setpriv
        } else {
            Command::new(weir())
        };
        Self::run(command, dir, &dir.join("data"), &[], &[])
    }

    pub(crate) fn run(
        mut command: Command,
        dir: &Path,
        data: &Path,
        args: &[&str],
        env: &[(&str, &str)],
    ) -> Result<Self> {
        let log = dir.join("node.log");
        let mut child = command
            .args(["serve", "--data"])
            .arg(data)
            .args(args)
            .env("WEIR_QUIC", "127.0.0.1:0")
            .env("WEIR_HTTP", "127.0.0.1:0")
            .env("WEIR_KAFKA", "127.0.0.1:0")
            .env("WEIR_DISK_RESERVE_BYTES", RESERVE_BYTES)
            .envs(env.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log)?)
            .spawn()
            .with_context(|| format!("cannot run {}; `cargo build` makes it", weir().display()))?;
        let begun = Instant::now();
        loop {
            let text = std::fs::read_to_string(&log)?;
            if let Some(line) = text.lines().find(|l| l.contains(" ready ")) {
                let field = |name: &str| line.split(name).nth(1).and_then(|r| r.split_whitespace().next());
                let quic = field("quic=").context("no address")?.parse()?;
                let kafka = match field("kafka=").context("no address")? {
                    "off" => SocketAddr::from(([0, 0, 0, 0], 0)),
                    addr => addr.parse()?,
                };
                let http = field("http=").context("no address")?.parse()?;
                return Ok(Self {
                    child,
                    quic,
                    http,
                    kafka,
                    log,
                });
            }
            if child.try_wait()?.is_some() || begun.elapsed() > DEADLINE {
                let _ = child.kill();
                bail!("the node did not start:\n{text}");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Returns the output of the node so far.
    pub fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Connects a client.
    ///
    /// # Errors
    /// When the node does not answer.
    pub async fn client(&self) -> Result<Client> {
        Ok(Client::connect(self.quic, &KnownNodes::forgetful(), "test").await?)
    }

    /// Ends the node at once (`SIGKILL`).
    ///
    /// # Errors
    /// When the process cannot be waited for.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Stops the node in good order (`SIGTERM`).
    ///
    /// # Errors
    /// When the node does not end.
    pub fn stop(mut self) -> Result<()> {
        Command::new("kill").arg(self.child.id().to_string()).status()?;
        let begun = Instant::now();
        while self.child.try_wait()?.is_none() {
            if begun.elapsed() > DEADLINE {
                bail!("the node does not stop:\n{}", self.said());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Tells whether the node has ended by itself.
    pub fn ended(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(Some(_)))
    }

    /// Runs the command line against the node, with `input` on standard input.
    ///
    /// # Errors
    /// When the command cannot be run.
    pub fn cli(&self, args: &[&str], input: &str) -> Result<Output> {
        let known = self.log.with_file_name("known_nodes");
        let mut child = Command::new(weir())
            .args(args)
            .env("WEIR_NODE", self.quic.to_string())
            .env("WEIR_KNOWN_NODES", known)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let mut stdin = child.stdin.take().context("no input")?;
        let input = input.to_owned();
        let writer = std::thread::spawn(move || std::io::Write::write_all(&mut stdin, input.as_bytes()));
        let output = child.wait_with_output()?;
        // The command may end before the end of its input.
        let _ = writer.join();
        Ok(output)
    }

    /// Stops all threads of the node (`SIGSTOP`), as a loss of power would: the node says nothing more.
    /// Without this, a sync during the shutdown of its file system may succeed and keep nothing: the abort
    /// ends the journal's transaction and leaves nothing to wait for, and the node would acknowledge lost
    /// records.
    ///
    /// # Errors
    /// When the node does not stop.
    pub fn freeze(&self) -> Result<()> {
        let pid = self.child.id().to_string();
        let status = Command::new("kill").args(["-STOP", &pid]).status()?;
        anyhow::ensure!(status.success(), "cannot stop the node");
        let begun = Instant::now();
        while !self.is_frozen()? {
            anyhow::ensure!(begun.elapsed() < DEADLINE, "the node does not stop");
            std::thread::yield_now();
        }
        Ok(())
    }

    /// Tells whether all threads stand still, by [`Node::freeze`] or at a failpoint (`weir_log::Stop`).
    ///
    /// # Errors
    /// When the process is gone.
    pub fn is_frozen(&self) -> Result<bool> {
        let mut tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id()))?.flatten();
        // Only a stopped thread says `T`; a thread that waits for the disk (D) stops before its return from
        // the kernel.
        let state = |task: &std::fs::DirEntry| {
            let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
            stat.rsplit_once(')')
                .and_then(|(_, rest)| rest.trim_start().chars().next())
        };
        let mut is_any = false;
        let all = tasks.all(|task| {
            let state = state(&task);
            is_any |= state == Some('T');
            matches!(state, Some('T' | 'D'))
        });
        Ok(all && is_any)
    }

    /// Lets the node continue after [`Node::freeze`].
    ///
    /// # Errors
    /// When the node does not continue.
    pub fn thaw(&self) -> Result<()> {
        let pid = self.child.id().to_string();
        let status = Command::new("kill").args(["-CONT", &pid]).status()?;
        anyhow::ensure!(status.success(), "cannot let the node go on");
        Ok(())
    }

    /// Nice value of the thread `name`.
    ///
    /// # Errors
    /// When there is no such thread.
    pub fn nice(&self, name: &str) -> Result<i64> {
        for task in std::fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            // A thread may end while we look.
            let stat = std::fs::read_to_string(task?.path().join("stat")).unwrap_or_default();
            // proc_pid_stat(5): the name in parentheses, and the nice value 17 fields behind them.
            if let Some((head, rest)) = stat.rsplit_once(')')
                && head.ends_with(&format!("({name}"))
                && let Some(nice) = rest.split_whitespace().nth(16)
            {
                return Ok(nice.parse()?);
            }
        }
        bail!("no thread `{name}`")
    }

    /// Resident memory, in MiB.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn rss_mib(&self) -> Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status
            .lines()
            .find_map(|l| l.strip_prefix("VmRSS:"))
            .context("no VmRSS")?;
        Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? / 1_024.0)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

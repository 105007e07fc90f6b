//! Sites of several nodes, as processes that keep their addresses over restarts.

use crate::netns::Host;
use crate::{DEADLINE, Node, weir};
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::collections::VecDeque;
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use weir_client::{Client, KnownNodes};

/// A site. Its nodes are numbered from 1, as they number themselves.
pub struct Site {
    nodes: Vec<Place>,
    env: Vec<(String, String)>,
    /// Release of nodes to come; `None` for the release under test.
    release: Option<PathBuf>,
    /// For the nodes to come, in order.
    hosts: VecDeque<Host>,
}

struct Place {
    dir: PathBuf,
    quic: SocketAddr,
    /// Network namespace of the node, if the site is on a network of its own.
    host: Option<Host>,
    /// Release of the node; `None` for the release under test.
    release: Option<PathBuf>,
    node: Option<Node>,
}

impl Site {
    /// Founds a site of a single node, in `dir`.
    ///
    /// # Errors
    /// When the node does not come up.
    pub fn found(dir: &Path, env: &[(&str, &str)]) -> Result<Self> {
        Self::found_at(&dir.join("1"), env)
    }

    /// Founds a site of a single node, with its data right in `dir`.
    ///
    /// # Errors
    /// When the node does not come up.
    pub fn found_at(dir: &Path, env: &[(&str, &str)]) -> Result<Self> {
        let owned = |(k, v): &(&str, &str)| ((*k).to_owned(), (*v).to_owned());
        let mut site = Self {
            nodes: Vec::new(),
            env: env.iter().map(owned).collect(),
            release: None,
            hosts: VecDeque::new(),
        };
        site.add(dir.to_owned(), &[])?;
        Ok(site)
    }

    /// Makes a site of three voters of another release.
    ///
    /// # Errors
    /// When a node does not come up or become a voter.
    pub fn of_three_of(release: &Path, dir: &Path) -> Result<Self> {
        let mut site = Self {
            nodes: Vec::new(),
            env: Vec::new(),
            release: Some(release.to_owned()),
            hosts: VecDeque::new(),
        };
        site.add(dir.join("1"), &[])?;
        site.grow(&dir.join("2"))?;
        site.grow(&dir.join("3"))?;
        site.until_voters(3)?;
        Ok(site)
    }

    /// Sets the release that a node runs from its next start on; `None` for the release under test.
    pub fn replace(&mut self, number: usize, release: Option<&Path>) {
        self.nodes[number - 1].release = release.map(Path::to_owned);
    }

    /// Makes a site with a voter on each host.
    ///
    /// # Errors
    /// When a node does not come up or become a voter.
    pub fn on(dir: &Path, hosts: &[Host]) -> Result<Self> {
        let mut site = Self {
            nodes: Vec::new(),
            env: Vec::new(),
            release: None,
            hosts: hosts.iter().copied().collect(),
        };
        site.add(dir.join("1"), &[])?;
        for number in 2..=hosts.len() {
            site.grow(&dir.join(number.to_string()))?;
        }
        site.until_voters(hosts.len())?;
        Ok(site)
    }

    /// Makes a site of three voters.
    ///
    /// # Errors
    /// When a node does not come up or become a voter.
    pub fn of_three(dir: &Path, env: &[(&str, &str)]) -> Result<Self> {
        let mut site = Self::found(dir, env)?;
        site.grow(&dir.join("2"))?;
        site.grow(&dir.join("3"))?;
        site.until_voters(3)?;
        Ok(site)
    }

    /// Adds a node, with its data in `dir`; returns its number.
    ///
    /// # Errors
    /// When the node does not come up.
    pub fn grow(&mut self, dir: &Path) -> Result<usize> {
        let token = self.cli(&["cluster", "invite"])?;
        let first = self
            .nodes
            .iter()
            .find(|p| p.node.is_some())
            .context("nobody is up")?;
        let addr = first.quic.to_string();
        self.add(dir.to_owned(), &["--join", &addr, "--token", token.trim()])?;
        Ok(self.nodes.len())
    }

    /// Adds a witness, with its data in `dir`; returns its number.
    ///
    /// # Errors
    /// When the node does not come up.
    pub fn grow_witness(&mut self, dir: &Path) -> Result<usize> {
        let token = self.cli(&["cluster", "invite"])?;
        let first = self.seeds().first().context("nobody is up")?.to_string();
        let args = ["--join", &first, "--token", token.trim(), "--witness"];
        self.add(dir.to_owned(), &args)?;
        Ok(self.nodes.len())
    }

    fn add(&mut self, dir: PathBuf, args: &[&str]) -> Result<()> {
        std::fs::create_dir_all(&dir)?;
        let host = self.hosts.pop_front();
        let quic = match host {
            Some(host) => SocketAddr::from((host.ip, 7_400)),
            // Free a moment ago, and not given out again soon.
            None => UdpSocket::bind("127.0.0.1:0")?.local_addr()?,
        };
        self.nodes.push(Place {
            dir,
            quic,
            host,
            release: self.release.clone(),
            node: None,
        });
        self.start_with(self.nodes.len(), args)
    }

    /// Starts a node again.
    ///
    /// # Errors
    /// When the node does not come up.
    pub fn start(&mut self, number: usize) -> Result<()> {
        self.start_with(number, &[])
    }

    fn start_with(&mut self, number: usize, args: &[&str]) -> Result<()> {
        let place = &mut self.nodes[number - 1];
        let addr = place.quic.to_string();
        let mut all = vec!["--quic", &addr];
        all.extend(args);
        let env: Vec<(&str, &str)> = self.env.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        let binary = place.release.clone().unwrap_or_else(weir);
        let command = match place.host {
            Some(host) => host.command(binary),
            None => Command::new(binary),
        };
        let data = place.dir.join("data");
        place.node = Some(Node::run(command, &place.dir, &data, &all, &env)?);
        Ok(())
    }

    /// Starts a node again at another address.
    ///
    /// # Errors
    /// When the node does not come up.
    pub fn start_elsewhere(&mut self, number: usize) -> Result<()> {
        self.nodes[number - 1].quic = UdpSocket::bind("127.0.0.1:0")?.local_addr()?;
        self.start(number)
    }

    /// Returns the node `number`.
    ///
    /// # Errors
    /// When the node is down.
    pub fn node(&self, number: usize) -> Result<&Node> {
        self.nodes[number - 1].node.as_ref().context("node is down")
    }

    /// Ends a node at once (`SIGKILL`).
    ///
    /// # Errors
    /// When the process cannot be waited for.
    pub fn kill(&mut self, number: usize) -> Result<()> {
        self.nodes[number - 1].node.take().map_or(Ok(()), Node::kill)
    }

    /// Stops a node in good order.
    ///
    /// # Errors
    /// When the node does not end.
    pub fn stop(&mut self, number: usize) -> Result<()> {
        self.nodes[number - 1].node.take().map_or(Ok(()), Node::stop)
    }

    /// Addresses of all nodes, up or down.
    pub fn seeds(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(|p| p.quic).collect()
    }

    /// A client that knows all nodes.
    ///
    /// # Errors
    /// When none answers.
    pub async fn client(&self) -> Result<Client> {
        Ok(Client::connect_any(&self.seeds(), &KnownNodes::forgetful(), "test").await?)
    }

    /// Runs the command line against the site; returns its standard output.
    ///
    /// # Errors
    /// When the command fails; with its standard error.
    pub fn cli(&self, args: &[&str]) -> Result<String> {
        let seeds: Vec<String> = self.seeds().iter().map(ToString::to_string).collect();
        let up = self
            .nodes
            .iter()
            .find_map(|p| p.node.as_ref())
            .context("nobody is up")?;
        let mut all = args.to_vec();
        let seeds = seeds.join(",");
        all.extend(["--node", &seeds]);
        let output = up.cli(&all, "")?;
        let error = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{args:?}: {error}");
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Waits for a leader and returns its status of the site.
    ///
    /// # Errors
    /// When no node leads in time.
    pub fn status(&self) -> Result<Value> {
        let begun = Instant::now();
        loop {
            for place in &self.nodes {
                let Some(node) = &place.node else { continue };
                let output = node.cli(&["cluster", "status", "-o", "json"], "")?;
                if let Ok(status) = serde_json::from_slice::<Value>(&output.stdout)
                    && status["serving"] == true
                {
                    return Ok(status);
                }
            }
            if begun.elapsed() > DEADLINE {
                bail!("nobody leads:\n{}", self.said());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits for a leader and returns its number.
    ///
    /// # Errors
    /// When no node leads in time.
    pub fn leader(&self) -> Result<usize> {
        let status = self.status()?;
        Ok(status["node"].as_u64().context("no number")? as usize)
    }

    /// Waits until `condition` holds of the leader's status.
    ///
    /// # Errors
    /// When the condition does not hold in time; with the last status.
    pub fn until(&self, what: &str, condition: impl Fn(&Value) -> bool) -> Result<Value> {
        let begun = Instant::now();
        loop {
            let status = self.status()?;
            if condition(&status) {
                return Ok(status);
            }
            if begun.elapsed() > DEADLINE {
                bail!("{what} does not come to be: {status}\n{}", self.said());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until exactly `wanted` nodes vote.
    ///
    /// # Errors
    /// When their number differs until the deadline.
    pub fn until_voters(&self, wanted: usize) -> Result<()> {
        let voters = |s: &Value| {
            let members = s["members"].as_array().cloned().unwrap_or_default();
            members.iter().filter(|m| m["role"] != "learner").count() == wanted
        };
        self.until(&format!("a site of {wanted} voters"), voters)
            .map(drop)
    }

    /// Waits until no node that is up lags.
    ///
    /// # Errors
    /// When a node lags until the deadline.
    pub fn until_in_step(&self) -> Result<()> {
        let in_step = |s: &Value| {
            let members = s["members"].as_array().cloned().unwrap_or_default();
            members.iter().all(|m| {
                let number = m["id"].as_u64().unwrap_or(0) as usize;
                let up = self.nodes.get(number - 1).is_some_and(|p| p.node.is_some());
                !up || m["lag"] == 0
            })
        };
        self.until("everybody in step", in_step).map(drop)
    }

    /// Transfers the leadership to `number`.
    ///
    /// # Errors
    /// When another node leads until the deadline.
    pub fn transfer(&self, number: usize) -> Result<()> {
        let begun = Instant::now();
        while self.leader()? != number {
            let moved = self.cli(&["cluster", "transfer", &number.to_string()]);
            if let Err(e) = moved
                && begun.elapsed() > DEADLINE
            {
                return Err(e);
            }
        }
        Ok(())
    }

    /// Returns the last output of all nodes.
    pub fn said(&self) -> String {
        let logs = self.nodes.iter().map(|p| p.dir.join("node.log"));
        let tail = |path: PathBuf| {
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            let lines: Vec<&str> = text.lines().rev().take(12).collect();
            let lines: Vec<&str> = lines.into_iter().rev().collect();
            format!("{}:\n{}\n", path.display(), lines.join("\n"))
        };
        logs.map(tail).collect()
    }
}

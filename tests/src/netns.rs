//! Hosts on a network of their own, whose packets can be dropped: network namespaces on a bridge, with rules
//! of nftables. All namespaces belong to processes that end with the test, so nothing is left behind.

use anyhow::{Context, Result, bail, ensure};
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs::{File, read_link};
use std::io::Write;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A network. The thread that made the network is on its bridge, as are the threads and processes that the
/// thread starts from then on.
pub struct Network {
    hosts: Vec<Host>,
    holders: Vec<Child>,
}

/// A host of the network.
#[derive(Clone, Copy, Debug)]
pub struct Host {
    /// Its address.
    pub ip: Ipv4Addr,
    /// A process that does nothing there.
    holder: u32,
}

impl Host {
    /// A command that runs there.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--net", "--target", &self.holder.to_string()]);
        command.arg(program);
        command
    }
}

impl Network {
    /// Makes a network of `count` hosts; `None`, with a line that says why, where namespaces are not
    /// permitted or a tool is missing.
    ///
    /// # Errors
    /// When namespaces are permitted and do not work.
    pub fn make(count: u8) -> Result<Option<Self>> {
        for tool in ["unshare", "nsenter", "ip", "nft"] {
            let there = Command::new(tool).arg("--version").output();
            let there = there.or_else(|_| Command::new(tool).arg("-V").output());
            if there.is_err() {
                println!("skipped: there is no `{tool}`");
                return Ok(None);
            }
        }
        let Ok(hub) = hold() else {
            println!("skipped: network namespaces are not permitted");
            return Ok(None);
        };
        let mut this = Self {
            hosts: Vec::new(),
            holders: Vec::new(),
        };
        let namespace = File::open(format!("/proc/{}/ns/net", hub.id()))?;
        this.holders.push(hub);
        let kind = rustix::thread::LinkNameSpaceType::Network;
        rustix::thread::move_into_link_name_space(namespace.as_fd(), Some(kind))?;
        ip("link set lo up")?;
        ip("link add br0 type bridge")?;
        ip("addr add 10.77.0.254/24 dev br0")?;
        ip("link set br0 up")?;
        for number in 1..=count {
            this.add(number)?;
        }
        Ok(Some(this))
    }

    fn add(&mut self, number: u8) -> Result<()> {
        let holder = hold()?;
        let host = Host {
            ip: Ipv4Addr::new(10, 77, 0, number),
            holder: holder.id(),
        };
        self.holders.push(holder);
        self.hosts.push(host);
        ip(&format!(
            "link add v{number} type veth peer name eth0 netns {}",
            host.holder
        ))?;
        ip(&format!("link set v{number} master br0 up"))?;
        for args in [
            "link set lo up".to_owned(),
            format!("addr add {}/24 dev eth0", host.ip),
            "link set eth0 up".to_owned(),
        ] {
            run(host.command("ip").args(args.split(' ')))?;
        }
        Ok(())
    }

    /// The hosts.
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// Drops, from now on, at host `at` (numbered from 1) all packets of the hosts `from`, and of all others
    /// `lost` in a thousand.
    ///
    /// # Errors
    /// When nftables refuses the rules.
    pub fn drop_at(&self, at: usize, from: &[usize], lost: u32) -> Result<()> {
        let host = self.hosts.get(at - 1).context("no such host")?;
        let mut rules =
            "flush ruleset\ntable inet weir {\nchain input {\ntype filter hook input priority 0;\n"
                .to_owned();
        for other in from {
            let other = self.hosts.get(other - 1).context("no such host")?;
            writeln!(rules, "ip saddr {} drop", other.ip)?;
        }
        if lost > 0 {
            writeln!(rules, "meta l4proto udp numgen random mod 1000 < {lost} drop")?;
        }
        rules.push_str("}\n}\n");
        let mut nft = host.command("nft");
        let mut nft = nft.args(["-f", "-"]).stdin(Stdio::piped()).spawn()?;
        nft.stdin
            .take()
            .context("no input")?
            .write_all(rules.as_bytes())?;
        ensure!(nft.wait()?.success(), "nft does not take:\n{rules}");
        Ok(())
    }

    /// Nothing is dropped any more.
    ///
    /// # Errors
    /// When the rules are not taken.
    pub fn heal(&self) -> Result<()> {
        (1..=self.hosts.len()).try_for_each(|at| self.drop_at(at, &[], 0))
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for holder in &mut self.holders {
            let _ = holder.kill();
            let _ = holder.wait();
        }
    }
}

/// A process in a network namespace of its own.
fn hold() -> Result<Child> {
    // The namespace of this thread, which may differ from that of the process: children begin there.
    let own = read_link("/proc/thread-self/ns/net")?;
    let mut holder = Command::new("unshare")
        .args(["--net", "sleep", "infinity"])
        .stderr(Stdio::null())
        .spawn()?;
    let begun = Instant::now();
    while read_link(format!("/proc/{}/ns/net", holder.id())).is_ok_and(|ns| ns == own) {
        if holder.try_wait()?.is_some() || begun.elapsed() > crate::DEADLINE {
            bail!("no namespace");
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    ensure!(holder.try_wait()?.is_none(), "no namespace");
    Ok(holder)
}

fn ip(args: &str) -> Result<()> {
    run(Command::new("ip").args(args.split(' ')))
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {said}");
    Ok(())
}

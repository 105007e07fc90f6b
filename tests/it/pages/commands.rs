//! Runs the commands of every page, and compiles its modules.

use super::{Page, pages, root};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use weir_tests::{target, weir};

/// Commands that no page runs, with the reason.
const LEFT_OUT: [(&str, &str); 4] = [
    ("cargo demo", "builds a release; `cargo verify` runs its parts"),
    ("cargo verify", "runs this test"),
    (
        "cargo build --release",
        "`cargo verify` has built the node, in debug",
    ),
    ("cargo xtask modules", "`cargo verify` has built the modules"),
];
/// Programs that may be missing, as `cargo verify` says when it cannot install them.
const OPTIONAL: [&str; 1] = ["kcat"];
/// First line of a block that is left out; the reason follows.
const NOT_RUN: &str = "# not run: ";
/// Languages of blocks without commands.
const LANGUAGES: [&str; 5] = ["toml", "rust", "json", "mermaid", "text"];
/// A page whose module has to be compiled from nothing on a slow machine.
const PAGE_WITHIN: Duration = Duration::from_secs(300);
/// Pages at a time: most of them wait for a node.
const PAGES_AT_ONCE: usize = 4;

#[test]
fn every_command_runs_as_typed() {
    let pages = pages();
    let scripts: Vec<(String, String)> = pages
        .iter()
        .filter_map(|page| Some((page.name(), script(page)?)))
        .collect();
    assert!(scripts.len() > 8, "only {} pages with commands", scripts.len());
    let (next, failures) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..PAGES_AT_ONCE {
            scope.spawn(|| {
                while let Some((name, script)) = scripts.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let begun = Instant::now();
                    if let Err(said) = run(script) {
                        failures.lock().unwrap().push(format!("{name}: {said}"));
                    }
                    eprintln!("{name}: {:.1} s", begun.elapsed().as_secs_f64());
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

/// Returns the commands of a page as a script for bash; none when it has no commands to run.
fn script(page: &Page) -> Option<String> {
    let (mut script, mut has_commands) = (String::new(), false);
    for block in page.blocks() {
        let _ = writeln!(script, "at={}:{}", page.name(), block.line);
        if let Some(file) = block.file {
            let text = &block.text;
            let _ = write!(
                script,
                "mkdir -p \"$(dirname {file})\"\ncat > {file} <<'END OF FILE'\n{text}END OF FILE\n"
            );
            continue;
        }
        if !["", "sh"].contains(&block.language) {
            let language = block.language;
            assert!(
                LANGUAGES.contains(&language),
                "{}:{}: commands stand in blocks without a language; `{language}` is none of {LANGUAGES:?}",
                page.name(),
                block.line
            );
            continue;
        }
        if let Some(reason) = block.text.strip_prefix(NOT_RUN) {
            let reason = reason.lines().next().unwrap_or_default();
            assert!(reason.len() > 5, "{}:{}: no reason", page.name(), block.line);
            continue;
        }
        has_commands = true;
        for line in block.text.lines() {
            script.push_str(&command(line));
        }
    }
    has_commands.then(|| on_free_ports(&script))
}

/// Returns a line of a page as a line of a script.
fn command(line: &str) -> String {
    if LEFT_OUT.iter().any(|(command, _)| *command == line) {
        return String::new();
    }
    let is_missing =
        |program: &&&str| line.split(' ').any(|word| word == **program) && !is_installed(program);
    if let Some(program) = OPTIONAL.iter().find(is_missing) {
        eprintln!("skipped, for want of {program}: {line}");
        return String::new();
    }
    if line.starts_with("weir serve ") && line.ends_with('&') {
        let quic = line
            .split(" --quic ")
            .nth(1)
            .and_then(|rest| rest.split(' ').next());
        return format!("{line}\nready {}\n", quic.unwrap_or("127.0.0.1:7400"));
    }
    format!("{line}\n")
}

fn is_installed(program: &str) -> bool {
    Command::new(program).arg("-V").output().is_ok()
}

/// Replaces each port on this machine by a free one, and sets up the environment for it.
fn on_free_ports(script: &str) -> String {
    let mut ports: BTreeMap<String, u16> = BTreeMap::new();
    let (mut replaced, mut rest) = (String::new(), script);
    let mut port = |digits: &str| *ports.entry(digits.to_owned()).or_insert_with(free_port);
    let (quic, http, kafka) = (port("7400"), port("7480"), port("9092"));
    while let Some((at, host)) = ["localhost:", "127.0.0.1:"]
        .iter()
        .filter_map(|host| Some((rest.find(host)?, host)))
        .min()
    {
        let (before, after) = rest.split_at(at + host.len());
        let end = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
        let (digits, after) = after.split_at(end);
        replaced.push_str(before);
        if !digits.is_empty() {
            let _ = write!(replaced, "{}", port(digits));
        }
        rest = after;
    }
    replaced.push_str(rest);
    let local = "127.0.0.1";
    format!(
        "export WEIR_QUIC={local}:{quic} WEIR_HTTP={local}:{http} WEIR_KAFKA={local}:{kafka} WEIR_NODE={local}:{quic}\n\
         set -eE -o pipefail\n\
         trap 'echo \"FAILED at $at: $BASH_COMMAND\"' ERR\n\
         ready() {{\n\
         for _ in $(seq 600); do if weir status --node \"$1\" > /dev/null 2>&1; then return; fi; sleep 0.1; done\n\
         echo \"no node answers at $1\"; return 1\n\
         }}\n\
         {replaced}"
    )
}

/// Returns a port that nobody has, and that no other test is given by the kernel.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    const FIRST: u16 = 20_000;
    // Below those that Linux gives out by itself (ip_local_port_range).
    const COUNT: u16 = 12_000;
    loop {
        let offset = (std::process::id() as u16)
            .wrapping_mul(97)
            .wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed))
            % COUNT;
        let address = ("127.0.0.1", FIRST + offset);
        if TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok() {
            return FIRST + offset;
        }
    }
}

/// Runs a script in a home and a copy of the repository's layout of its own. Fails with its output.
fn run(script: &str) -> Result<(), String> {
    let dir = tempfile::tempdir().unwrap();
    let (home, work) = (dir.path().join("home"), dir.path().join("weir"));
    let release = work.join("target/release");
    for dir in [&home, &release] {
        fs::create_dir_all(dir).unwrap();
    }
    for name in ["examples", "modules", "node", "sdk", "tests", "wit"] {
        symlink(root().join(name), work.join(name)).unwrap();
    }
    let wasm = "wasm32-unknown-unknown";
    symlink(target().join(wasm), work.join("target").join(wasm)).unwrap();
    symlink(weir(), release.join("weir")).unwrap();
    let outer = PathBuf::from(std::env::var_os("HOME").unwrap());
    let of_outer = |variable: &str, name: &str| {
        std::env::var_os(variable).map_or_else(|| outer.join(name), PathBuf::from)
    };
    let path = format!(
        "{}:{}",
        release.display(),
        std::env::var("PATH").unwrap_or_default()
    );
    let log = dir.path().join("log");
    let output = fs::File::create(&log).unwrap();
    let mut shell = Command::new("bash")
        .args(["-c", script])
        .current_dir(&work)
        .env("HOME", &home)
        .env("PATH", path)
        .env("CARGO_HOME", of_outer("CARGO_HOME", ".cargo"))
        .env("RUSTUP_HOME", of_outer("RUSTUP_HOME", ".rustup"))
        // Dependencies are compiled once for all runs; results stay in the project.
        .env("CARGO_BUILD_BUILD_DIR", target().join("new"))
        .env_remove("CARGO_TARGET_DIR")
        .env("WEIR_DISK_RESERVE_BYTES", weir_tests::RESERVE_BYTES)
        .stdin(Stdio::null())
        .stdout(output.try_clone().unwrap())
        .stderr(output)
        .process_group(0)
        .spawn()
        .unwrap();
    let begun = Instant::now();
    let status = loop {
        match shell.try_wait().unwrap() {
            Some(status) => break Some(status),
            None if begun.elapsed() > PAGE_WITHIN => break None,
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    // Nodes that the page left running, too: they are of the shell's group.
    let _ = Command::new("kill")
        .args(["-9", "--", &format!("-{}", shell.id())])
        .stderr(Stdio::null())
        .status();
    let _ = shell.wait();
    if status.is_some_and(|status| status.success()) {
        return Ok(());
    }
    let said = fs::read(&log).unwrap();
    let said = String::from_utf8_lossy(&said);
    let from = said.len().saturating_sub(6_000);
    let tail = said.get(from..).unwrap_or(&said);
    Err(match status {
        Some(status) => format!("{status}\n{tail}"),
        None => format!("not done after {PAGE_WITHIN:?}\n{tail}"),
    })
}

//! The long form: checks that are too slow for every change. Hundreds of rounds, and each fuzz target for a
//! while.

use crate::{cargo, clients, modules, node_for_tests, root, run, say, target, test_guests};
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;

const FUZZ_TARGETS: [&str; 9] = [
    "record_batch",
    "decompress",
    "json_field",
    "json_readers",
    "kafka_frame",
    "kafka_request",
    "client_frame",
    "component",
    "pipeline_file",
];
/// Coverage for libFuzzer from a stable compiler: the flags that `cargo-fuzz` passes to a nightly compiler.
const FUZZ_FLAGS: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table";
/// Version of the tool that checks licences and sources: pinned, as its findings change with the version.
const DENY: &str = "0.20.2";
/// The last commit of release 0.1.0, which has no tag.
const EARLIER: &str = "dc54948";
/// Memory limit of a fuzz target: a target that needs more has found a fault.
const FUZZ_RSS_MIB: u32 = 1_024;

/// Runs the long form, each fuzz target for `seconds`.
pub(crate) fn long(seconds: u64) -> Result<()> {
    modules()?;
    test_guests()?;
    clients();
    node_for_tests()?;
    deny()?;
    say("every byte and sector of a closed log, one after the other");
    let mut damage = cargo(&["test", "-p", "weir-log", "--", "no_damaged", "--nocapture"]);
    damage.env("WEIR_DAMAGE_ROUNDS", "40");
    run(damage)?;
    say("a hundred kills, fifty power cuts, ten thousand connections");
    let filters = [
        "durability::",
        "pipelines::",
        "cluster::",
        "modules::decoders::",
        "under_librdkafka",
        "idle_connections",
    ];
    let earlier = earlier()?;
    let mut rounds = cargo(&["test", "-p", "weir-tests", "--test", "it", "--", "--nocapture"]);
    rounds
        .args(filters)
        .env("WEIR_KILL_ROUNDS", "100")
        .env("WEIR_STOP_ROUNDS", "400")
        .env("WEIR_POWER_CUTS", "50")
        .env("WEIR_SITE_KILLS", "50")
        .env("WEIR_SITE_CUTS", "100")
        .env("WEIR_CHAOS_SEEDS", "100")
        .env("WEIR_NET_ROUNDS", "200")
        .env("WEIR_ALL", "1")
        .env("WEIR_CONNECTIONS", "10000")
        .env("WEIR_EARLIER", earlier);
    run(rounds)?;
    say("ten thousand seeds of the simulation");
    run(cargo(&["run", "-p", "weir-sim", "--", "--seeds", "10000"]))?;
    fuzz(seconds)
}

/// Checks the bans, licences and sources of all dependencies by `.cargo/deny.toml`, and prints the unchecked
/// rest.
pub(crate) fn deny() -> Result<()> {
    say("bans, licences and sources of all dependencies");
    let tools = target().join("tools");
    let deny = tools.join("bin/cargo-deny");
    let known = Command::new(&deny).arg("--version").output();
    let is_there = known.is_ok_and(|o| String::from_utf8_lossy(&o.stdout).trim().ends_with(DENY));
    if !is_there {
        let mut install = cargo(&[
            "install",
            "cargo-deny",
            "--locked",
            "--force",
            "--version",
            DENY,
            "--root",
        ]);
        install.arg(&tools);
        run(install)?;
    }
    for workspace in [".", "tests/fuzz", "tests/guests"] {
        let mut check = Command::new(&deny);
        check
            .arg("--manifest-path")
            .arg(root().join(workspace).join("Cargo.toml"))
            .arg("--config")
            .arg(root().join(".cargo/deny.toml"))
            .args(["check", "bans", "licenses", "sources"]);
        run(check).with_context(|| format!("`{workspace}` has what `.cargo/deny.toml` does not allow"))?;
    }
    println!(
        "not looked at: advisories (their database comes over a network that a test may not have), other people's clients and \
         toolchains that tests install (npm, PyPI), and code in C that crates bring along (zstd, ring)"
    );
    Ok(())
}

/// Builds the node of the earlier release from this repository's history, under `target/earlier`, and returns
/// its path: `WEIR_EARLIER`, of the test of a site of two releases.
pub(crate) fn earlier() -> Result<PathBuf> {
    let home = target().join("earlier");
    let source = home.join("source");
    if !source.exists() {
        say("taking the earlier release from the history");
        let mut clone = Command::new("git");
        clone.args(["clone", "--quiet", "--shared", "--no-checkout"]);
        clone.arg(root()).arg(&source);
        run(clone)?;
    }
    let mut checkout = Command::new("git");
    checkout
        .current_dir(&source)
        .args(["checkout", "--quiet", EARLIER]);
    run(checkout)
        .context("the history lacks the earlier release: this is a shallow clone, `git fetch --unshallow`")?;
    say("building the earlier release (several minutes the first time)");
    let mut build = cargo(&["build", "--quiet", "-p", "weir-node"]);
    build
        .current_dir(&source)
        .env("CARGO_TARGET_DIR", home.join("build"));
    run(build)?;
    Ok(home.join("build/debug/weir"))
}

/// Runs each fuzz target for `seconds`, beginning with the corpus of earlier runs.
pub(crate) fn fuzz(seconds: u64) -> Result<()> {
    let modules = modules()?;
    let host = host()?;
    say("building the fuzz targets (several minutes the first time)");
    let mut build = cargo(&["build", "--release", "--quiet", "--bins", "--target", &host]);
    build
        .current_dir(root().join("tests/fuzz"))
        .env("CARGO_TARGET_DIR", target().join("fuzz"))
        .env("RUSTFLAGS", FUZZ_FLAGS);
    run(build)?;
    let mut failed = Vec::new();
    for name in FUZZ_TARGETS {
        say(&format!("fuzzing {name} for {seconds} s"));
        let corpus = target().join("fuzz/corpus").join(name);
        seed(name, &corpus, &modules)?;
        let mut fuzzer = Command::new(target().join("fuzz").join(&host).join("release").join(name));
        fuzzer
            .arg(&corpus)
            .arg(format!("-max_total_time={seconds}"))
            .arg(format!("-rss_limit_mb={FUZZ_RSS_MIB}"))
            .arg("-timeout=20")
            .arg("-print_final_stats=1")
            // An input that fails is left here.
            .current_dir(target().join("fuzz"));
        if run(fuzzer).is_err() {
            failed.push(name);
        }
    }
    if failed.is_empty() {
        return Ok(());
    }
    bail!(
        "inputs that fail were found by {}: see {}",
        failed.join(", "),
        target().join("fuzz").display()
    )
}

/// Gives a target something real to begin with, where random bytes would not get far.
fn seed(name: &str, corpus: &Path, modules: &Path) -> Result<()> {
    std::fs::create_dir_all(corpus)?;
    let (from, end): (PathBuf, &str) = match name {
        "component" => (modules.to_owned(), "wasm"),
        "pipeline_file" => (root().join("examples/machine-temperature"), "toml"),
        _ => return Ok(()),
    };
    for entry in std::fs::read_dir(from)? {
        let path = entry?.path();
        if let Some(file) = path
            .file_name()
            .filter(|_| path.extension().is_some_and(|e| e == end))
        {
            std::fs::copy(&path, corpus.join(file))?;
        }
    }
    Ok(())
}

fn host() -> Result<String> {
    let rustc = Command::new("rustc").arg("-vV").output().context("no rustc")?;
    let said = String::from_utf8_lossy(&rustc.stdout).into_owned();
    let host = said.lines().find_map(|l| l.strip_prefix("host: "));
    host.map(str::to_owned)
        .context("rustc does not say for what it compiles")
}

//! Whole nodes on a simulated network, disk and clock.
//!
//! ```text
//! cargo run -p weir-sim -- --seeds 300        # seeds 1 to 300, on all cores; ends with 1 when a seed fails
//! cargo run -p weir-sim -- --only 17 --show   # a single seed, and its events
//! cargo run -p weir-sim -- --bugs             # plants bugs, each with the seed that finds the bug
//! ```
//!
//! A node is the real log, replica, peer and broker; consensus, QUIC and TLS are the real libraries. In place
//! of sockets, timers, threads and fjall there are turmoil's network and clock, tasks, and a disk that loses
//! unsynced writes. Each seed has a process of its own, so that a run is the same twice to the last byte of a
//! key.

mod bugs;
mod counting;
mod entropy;
mod faults;
mod invariants;
mod knobs;
mod load;
mod network;
mod node;
mod run;
mod workers;
mod world;

use anyhow::{Context, Result, bail};
use clap::Parser;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use weir_types::planted::{Bug, plant};

#[derive(Parser)]
#[command(about = "Simulates sites by seed, and says which fail")]
struct Args {
    /// Number of seeds to run.
    #[arg(long, default_value_t = 20)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// Parallel runs; 0 for as many as cores.
    #[arg(long, default_value_t = 0)]
    jobs: usize,
    /// Runs each seed twice, and compares the traces.
    #[arg(long)]
    twice: bool,
    /// Runs this seed alone, in this process, and prints its report.
    #[arg(long)]
    only: Option<u64>,
    /// Plants this bug: see `weir_types::planted`.
    #[arg(long)]
    bug: Option<String>,
    /// Plants each bug in turn and runs its recorded seed; ends with 1 when a bug is not found.
    #[arg(long, conflicts_with_all = ["only", "bug", "hunt"])]
    bugs: bool,
    /// Plants each bug in turn, or that of `--bug`, and searches `--seeds` for the first that finds the bug.
    /// Prints the record.
    #[arg(long)]
    hunt: bool,
    /// With `--only`: prints the events.
    #[arg(long)]
    show: bool,
    /// Directory for the files of nodes that are not simulated: in memory, where possible.
    #[arg(long, default_value_os_t = scratch())]
    dir: PathBuf,
}

fn scratch() -> PathBuf {
    let memory = PathBuf::from("/dev/shm");
    match memory.is_dir() {
        true => memory,
        false => std::env::temp_dir(),
    }
}

/// Of real time: a run takes a few seconds.
const STUCK_AFTER: Duration = Duration::from_secs(120);

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    if let Some(seed) = args.only {
        if let Ok(filter) = std::env::var("WEIR_LOG") {
            let filter = tracing_subscriber::EnvFilter::new(filter);
            tracing_subscriber::fmt()
                .with_env_filter(filter)
                .with_writer(std::io::stderr)
                .init();
        }
        if let Some(name) = &args.bug {
            plant(named(name)?);
        }
        watch(seed);
        // A thread that has rolled nothing yet: hash maps take their seeds from its first roll.
        let (dir, show) = (args.dir.clone(), args.show);
        let ran = std::thread::spawn(move || run::run(seed, &dir, show)).join();
        let report = ran.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        println!("{}", serde_json::to_string(&report)?);
        return Ok(ExitCode::SUCCESS);
    }
    let jobs = match args.jobs {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        jobs => jobs,
    };
    if args.bugs {
        return bugs::all_found(&args, jobs);
    }
    if args.hunt {
        return bugs::hunt(&args, jobs);
    }
    seeds(&args, jobs)
}

/// A run in which time stands still for ever: tasks that keep each other busy. Real time tells.
fn watch(seed: u64) {
    std::thread::spawn(move || {
        let begun = Instant::now();
        while begun.elapsed() < STUCK_AFTER {
            std::thread::park_timeout(STUCK_AFTER);
        }
        eprintln!("seed {seed} does not come to its end: some moment in it lasts for ever");
        std::process::exit(3);
    });
}

fn named(name: &str) -> Result<Bug> {
    let bug = Bug::ALL.iter().find(|b| b.name() == name);
    let known = || Bug::ALL.iter().map(|b| b.name()).collect::<Vec<_>>().join(", ");
    bug.copied()
        .with_context(|| format!("`{name}` is none of the planted bugs: {}", known()))
}

fn seeds(args: &Args, jobs: usize) -> Result<ExitCode> {
    let begun = Instant::now();
    let (next, end) = (AtomicU64::new(args.first), args.first + args.seeds);
    let done = Mutex::new(Done::default());
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        return;
                    }
                    let outcome = judged(args, seed);
                    done.lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .take(seed, outcome);
                }
            });
        }
    });
    let done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    println!(
        "{} seeds, {} failed; {} records acknowledged, {} of unknown fate, {} faults; {:.1} s of the site's time each, {:.0} s in all",
        args.seeds,
        done.failed.len(),
        done.acknowledged,
        done.unknown,
        done.faults,
        done.virtual_ms as f64 / 1_000.0 / args.seeds.max(1) as f64,
        begun.elapsed().as_secs_f64()
    );
    if done.failed.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    println!("failed: {:?}; look at one with --only SEED --show", done.failed);
    Ok(ExitCode::FAILURE)
}

#[derive(Default)]
struct Done {
    failed: Vec<u64>,
    acknowledged: u64,
    unknown: u64,
    faults: u64,
    virtual_ms: u64,
}

impl Done {
    fn take(&mut self, seed: u64, outcome: Result<serde_json::Value>) {
        match outcome {
            Ok(report) => {
                self.acknowledged += report["acknowledged"].as_u64().unwrap_or_default();
                self.unknown += report["unknown"].as_u64().unwrap_or_default();
                self.virtual_ms += report["virtual_ms"].as_u64().unwrap_or_default();
                self.faults += report["faults"].as_array().map_or(0, |f| f.len() as u64);
            }
            Err(e) => {
                println!("seed {seed}: {e:#}");
                self.failed.push(seed);
            }
        }
    }
}

/// Runs a seed in a process of its own.
fn judged(args: &Args, seed: u64) -> Result<serde_json::Value> {
    let bug = args.bug.as_deref();
    let report = run(args, seed, bug)?;
    if args.twice {
        let again = run(args, seed, bug)?;
        if report["trace"] != again["trace"] {
            bail!(
                "a second run was another: {} and {}",
                report["trace"],
                again["trace"]
            );
        }
    }
    let violations: Vec<&str> = report["violations"]
        .as_array()
        .map(|all| all.iter().filter_map(|v| v.as_str()).collect())
        .unwrap_or_default();
    if !violations.is_empty() {
        bail!("{}", violations.join("; "));
    }
    Ok(report)
}

fn run(args: &Args, seed: u64, bug: Option<&str>) -> Result<serde_json::Value> {
    let mut command = Command::new(std::env::current_exe()?);
    command
        .args(["--only", &seed.to_string(), "--dir"])
        .arg(&args.dir);
    command.args(bug.iter().flat_map(|bug| ["--bug", bug]));
    let output = command.output()?;
    if !output.status.success() {
        bail!(
            "it ended with {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
    }
    serde_json::from_slice(&output.stdout).context("it reported nothing that can be read")
}

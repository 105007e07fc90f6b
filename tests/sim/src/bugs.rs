//! Bugs are planted, and must be found: a simulation that finds none of them would find nothing else either.

use crate::{Args, named, run};
use anyhow::{Context, Result};
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use weir_types::planted::Bug;

/// Bugs with the seeds that find them, as [`hunt`] printed them.
const ON_RECORD: &str = include_str!("../bugs.txt");

/// Seeds that may miss a bug before the suite counts as having missed the bug: as many as CI runs.
const LOOKED_THROUGH: u64 = 300;

/// Runs the seed on record for each bug.
pub(crate) fn all_found(args: &Args, jobs: usize) -> Result<ExitCode> {
    let record: Result<Vec<_>> = ON_RECORD.lines().map(on_record).collect();
    let record = record?;
    for bug in Bug::ALL {
        let known = record.iter().any(|(b, _)| b == bug);
        known
            .then_some(())
            .with_context(|| format!("no seed is on record for `{}`", bug.name()))?;
    }
    let found = each(&record, jobs, |(bug, seed)| found_by(args, *bug, *seed));
    let mut away = 0;
    for ((bug, seed), _) in record.iter().zip(&found).filter(|(_, found)| found.is_none()) {
        let name = bug.name();
        match looked_for(args, jobs, *bug) {
            Some(other) => {
                println!("{name}: seed {seed} finds it no more, {other} does: to be put on record")
            }
            None => {
                println!("{name} gets away from {LOOKED_THROUGH} seeds");
                away += 1;
            }
        }
    }
    println!("{} of {} planted bugs found", record.len() - away, record.len());
    Ok(ExitCode::from(u8::from(away > 0)))
}

/// Any change to a node's behaviour changes the events of each seed, and the recorded seed may find nothing
/// any more: the suite as a whole must find the bug.
fn looked_for(args: &Args, jobs: usize, bug: Bug) -> Option<u64> {
    let seeds: Vec<u64> = (1..=LOOKED_THROUGH).collect();
    seeds.chunks(jobs.max(1)).find_map(|some| {
        let found = each(some, jobs, |seed| found_by(args, bug, *seed));
        some.iter()
            .zip(found)
            .find_map(|(seed, found)| found.map(|_| *seed))
    })
}

/// Looks for seeds that find bugs.
pub(crate) fn hunt(args: &Args, jobs: usize) -> Result<ExitCode> {
    let bugs = match &args.bug {
        Some(name) => vec![named(name)?],
        None => Bug::ALL.to_vec(),
    };
    let found = each(&bugs, jobs, |bug| {
        (args.first..args.first + args.seeds).find_map(|seed| {
            let why = found_by(args, *bug, seed)?;
            eprintln!(
                "{} {seed}: {}",
                bug.name(),
                why.chars().take(300).collect::<String>()
            );
            Some(seed)
        })
    });
    for (bug, seed) in bugs.iter().zip(&found) {
        match seed {
            Some(seed) => println!("{} {seed}", bug.name()),
            None => eprintln!("{} gets away from {} seeds", bug.name(), args.seeds),
        }
    }
    Ok(ExitCode::from(u8::from(found.iter().any(Option::is_none))))
}

fn on_record(line: &str) -> Result<(Bug, u64)> {
    let (name, seed) = line
        .split_once(' ')
        .context("a line of the record is a name and a seed")?;
    Ok((named(name)?, seed.parse()?))
}

/// Returns the report of the seed about the bug; `None` when the seed finds nothing. A panic is a report,
/// too.
fn found_by(args: &Args, bug: Bug, seed: u64) -> Option<String> {
    match run(args, seed, Some(bug.name())) {
        Err(e) => Some(e.to_string()),
        Ok(report) => {
            let first = report["violations"].as_array()?.first()?;
            Some(first.as_str().unwrap_or_default().to_owned())
        }
    }
}

/// `what` of each, `jobs` at once.
fn each<T: Sync, R: Send>(all: &[T], jobs: usize, what: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                while let Some((i, one)) = {
                    let i = next.fetch_add(1, Ordering::Relaxed);
                    all.get(i).map(|one| (i, one))
                } {
                    let result = what(one);
                    done.lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push((i, result));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(i, _)| *i);
    done.into_iter().map(|(_, result)| result).collect()
}

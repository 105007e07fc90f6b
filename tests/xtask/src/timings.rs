//! Build times: a change of a line in each crate until the release binary runs, and cold builds of a fresh clone.

use crate::{cargo, root, run, say, target};
use anyhow::{Context, Result};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Instant, SystemTime};

/// Goals in seconds, on two cores: see the page for contributors.
const CHANGE_GOAL_S: u64 = 90;
const DEMO_GOAL_S: u64 = 600;
const CI_GOAL_S: u64 = 2_700;

/// Prints the build times. `cold` adds the cold builds, which take more than half an hour.
pub(crate) fn timings(cold: bool) -> Result<()> {
    say("building the release binary before the changes");
    run(release())?;
    println!("{:32} {:>8} {:>8}", "A CHANGE OF A LINE IN", "SECONDS", "GOAL");
    for source in sources()? {
        let file = File::options().append(true).open(&source)?;
        file.set_modified(SystemTime::now())?;
        let begun = Instant::now();
        run(release())?;
        row(&name(&source), begun, CHANGE_GOAL_S);
    }
    if cold {
        let clone = target().join("timings");
        if clone.exists() {
            std::fs::remove_dir_all(&clone)?;
        }
        let mut git = Command::new("git");
        git.args(["clone", "--quiet"]).arg(root()).arg(&clone);
        run(git)?;
        let begun = Instant::now();
        run(within(&clone, "cargo", &["demo"]))?;
        row("cargo demo, cold", begun, DEMO_GOAL_S);
        std::fs::remove_dir_all(clone.join("target"))?;
        let begun = Instant::now();
        run(within(&clone, ".ci/run", &[]))?;
        row(".ci/run, cold", begun, CI_GOAL_S);
        std::fs::remove_dir_all(&clone)?;
    }
    Ok(())
}

fn row(name: &str, begun: Instant, goal: u64) {
    println!("{name:32} {:8.1} {goal:8}", begun.elapsed().as_secs_f64());
}

fn release() -> Command {
    cargo(&["build", "--release", "--quiet", "-p", "weir-node"])
}

/// A command in a clone, with a target folder of the clone's own.
fn within(clone: &Path, program: &str, args: &[&str]) -> Command {
    let mut command = Command::new(program);
    command
        .current_dir(clone)
        .args(args)
        .env_remove("CARGO_TARGET_DIR");
    command
}

/// Returns the first source file of each host crate, the binary last.
fn sources() -> Result<Vec<PathBuf>> {
    let crates = root().join("node/crates");
    let entries =
        std::fs::read_dir(&crates).with_context(|| format!("cannot read `{}`", crates.display()))?;
    let mut sources = Vec::new();
    for entry in entries {
        sources.push(entry?.path().join("src/lib.rs"));
    }
    sources.sort();
    sources.push(root().join("sdk/client/src/lib.rs"));
    sources.push(root().join("node/src/main.rs"));
    Ok(sources)
}

/// Returns the folder of a crate below the repository.
fn name(source: &Path) -> String {
    let folder = source.ancestors().nth(2).unwrap_or(source);
    let folder = folder.strip_prefix(root()).unwrap_or(folder);
    folder.display().to_string()
}

//! `weir pipeline`

use super::output::{fields, lines, table, text};
use super::{Format, To};
use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Plan, apply, list, describe, pause, resume, rewind, reset and remove pipelines.
#[derive(Debug, Args)]
pub(crate) struct PipelineArgs {
    #[command(flatten)]
    to: To,
    #[command(subcommand)]
    command: PipelineCommand,
}

#[derive(Debug, Subcommand)]
enum PipelineCommand {
    /// Put a pipeline in place, or change it between two batches.
    Apply {
        /// The pipeline in TOML.
        file: PathBuf,
    },
    /// Show what applying a pipeline would change, and whether it can be; nothing is changed.
    Plan {
        /// The pipeline in TOML.
        file: PathBuf,
    },
    /// Try a pipeline out on what its source has, beside the one that works; nothing is written.
    ///
    /// Both begin without anything remembered. An in-line pipeline is tried on what its source has: what it dropped is not there.
    Shadow {
        /// The pipeline in TOML.
        file: PathBuf,
        /// Where to begin: `start`, `end`, an offset on all partitions, or a time like `2026-11-22T08:00:00Z`.
        #[arg(long, default_value = "start")]
        from: String,
        /// Go on with what comes, for so long.
        #[arg(long, value_name = "TIME", default_value = "0s")]
        wait: humantime::Duration,
    },
    /// List all pipelines.
    List,
    /// Show a pipeline and what it did.
    Describe {
        /// Its name.
        name: String,
    },
    /// Pause. The source of an in-line pipeline refuses records until it is resumed; one behind the log lags.
    Pause {
        /// Its name.
        name: String,
    },
    /// Let a paused or halted pipeline go on.
    Resume {
        /// Its name.
        name: String,
    },
    /// Forget what its modules remember. It is then paused: resume it, or apply it anew first.
    Reset {
        /// Its name.
        name: String,
    },
    /// Have a pipeline behind the log forget what its modules remember, and begin anew somewhere else.
    Rewind {
        /// Its name.
        name: String,
        /// Where to: `start`, `end`, an offset on all partitions, or a time like `2026-11-22T08:00:00Z`.
        #[arg(long)]
        to: String,
    },
    /// Show what the modules of a pipeline remember, as committed: values and timers.
    State {
        /// The pipeline's name.
        name: String,
        /// Only of this stage, counted from 1.
        #[arg(long)]
        stage: Option<u64>,
        /// Only of this partition.
        #[arg(long)]
        partition: Option<u64>,
        /// Only a SHA-256 of all of it: the same for the same state.
        #[arg(long)]
        digest: bool,
    },
    /// Show what a pipeline was: its revisions, who put them in place, and why.
    History {
        /// Its name.
        name: String,
    },
    /// Try a pipeline on some partitions, for real: the one of its name that is there works on the others. `promote` ends that, or
    /// `rollback`.
    Canary {
        /// The pipeline in TOML.
        file: PathBuf,
        /// Which: `0,3`.
        #[arg(long, value_delimiter = ',', required = true)]
        partitions: Vec<u32>,
    },
    /// Have what is tried on some partitions work on all.
    Promote {
        /// Its name.
        name: String,
    },
    /// Make a pipeline what it was, with the same modules. Of one that is tried on some partitions: end that.
    Rollback {
        /// Its name.
        name: String,
        /// The revision to go back to; without it, the last one that was something else.
        #[arg(long, value_name = "REVISION")]
        to: Option<u64>,
    },
    /// Remove a pipeline and what its modules remember; its topics stay.
    Remove {
        /// Its name.
        name: String,
    },
}

impl PipelineArgs {
    pub(crate) async fn run(self) -> Result<()> {
        let client = self.to.connect().await?;
        let format = self.to.output;
        match self.command {
            PipelineCommand::Plan { file } => {
                let toml = read(&file)?;
                let told = parse(&client.plan_pipeline(&toml).await?);
                plan(format, &told.with_context(|| file.display().to_string())?)?;
            }
            PipelineCommand::Apply { file } => {
                let toml = read(&file)?;
                let info = parse(&client.apply_pipeline(&toml).await?)
                    .with_context(|| file.display().to_string())?;
                said(format, &info, &format!("applied, revision {}", info["revision"]))?;
            }
            PipelineCommand::Pause { name } => {
                said(format, &parse(&client.set_paused(&name, true).await?)?, "paused")?
            }
            PipelineCommand::Resume { name } => {
                said(
                    format,
                    &parse(&client.set_paused(&name, false).await?)?,
                    "resumed",
                )?;
            }
            PipelineCommand::Reset { name } => {
                let info = parse(&client.reset_pipeline(&name).await?)?;
                said(format, &info, "has forgotten everything, and is paused")?;
            }
            PipelineCommand::History { name } => {
                history(format, &parse(&client.pipeline_history(&name).await?)?)?;
            }
            PipelineCommand::Canary { file, partitions } => {
                let toml = read(&file)?;
                let info = parse(&client.try_pipeline(&toml, &partitions).await?)
                    .with_context(|| file.display().to_string())?;
                let told: Vec<_> = partitions.iter().map(u32::to_string).collect();
                let told = told.join(", ");
                said(
                    format,
                    &info,
                    &format!("is tried on partitions {told}, revision {}", info["revision"]),
                )?;
            }
            PipelineCommand::Promote { name } => {
                let info = parse(&client.promote_pipeline(&name).await?)?;
                said(format, &info, &format!("applied, revision {}", info["revision"]))?;
            }
            PipelineCommand::Rollback { name, to } => {
                let info = parse(&client.roll_back_pipeline(&name, to).await?)?;
                said(
                    format,
                    &info,
                    &format!("is as it was, revision {}", info["revision"]),
                )?;
            }
            PipelineCommand::Shadow { file, from, wait } => {
                let toml = read(&file)?;
                let told = super::shadow::run(&client, &toml, &from, wait.into()).await;
                super::shadow::show(format, &told.with_context(|| file.display().to_string())?)?;
            }
            PipelineCommand::State {
                name,
                stage,
                partition,
                digest,
            } => {
                let of = (stage, partition);
                super::state::show(&client, format, &name, of, digest).await?;
            }
            PipelineCommand::Rewind { name, to } => {
                let info = parse(&client.rewind_pipeline(&name, &to).await?)?;
                let paused = match text(&info, "state") == "paused" {
                    true => ", and is paused",
                    false => "",
                };
                said(format, &info, &format!("begins anew at {to}{paused}"))?;
            }
            PipelineCommand::Remove { name } => {
                client.remove_pipeline(&name).await?;
                said(format, &json!({ "name": name }), "removed")?;
            }
            PipelineCommand::List => list(format, &parse(&client.pipelines().await?)?)?,
            PipelineCommand::Describe { name } => {
                let all = parse(&client.pipelines().await?)?;
                let found = all
                    .as_array()
                    .into_iter()
                    .flatten()
                    .find(|p| text(p, "name") == name);
                describe(format, found.with_context(|| format!("no pipeline `{name}`"))?)?;
            }
        }
        client.close().await;
        Ok(())
    }
}

fn parse(json: &[u8]) -> Result<Value> {
    serde_json::from_slice(json).context("the node's answer is not JSON")
}

fn read(file: &Path) -> Result<String> {
    std::fs::read_to_string(file).with_context(|| format!("cannot read `{}`", file.display()))
}

/// A line for each difference, as `diff` has them.
fn plan(format: Format, plan: &Value) -> Result<()> {
    if format == Format::Json {
        return lines([plan]);
    }
    let (name, changes) = (text(plan, "name"), plan["changes"].as_array());
    let changes: Vec<&Value> = changes.into_iter().flatten().collect();
    let paused = if plan["paused"] == true {
        "; it is paused, and stays so"
    } else {
        ""
    };
    match plan["revision"].as_u64() {
        None => say!("pipeline {name} is new"),
        Some(_) if changes.is_empty() => say!("pipeline {name}: nothing would change{paused}"),
        Some(n) => say!("pipeline {name}: revision {n} -> {}{paused}", n + 1),
    }
    for change in changes {
        let at = text(change, "at");
        match (&change["before"], &change["after"]) {
            (Value::Null, after) => say!("+ {at} = {after}"),
            (before, Value::Null) => say!("- {at} = {before}"),
            (before, after) => say!("~ {at} = {before} -> {after}"),
        }
    }
    if let Some(topic) = plan["creates"].as_str() {
        say!("+ topic {topic}");
    }
    Ok(())
}

fn said(format: Format, info: &Value, what: &str) -> Result<()> {
    match format {
        Format::Json => lines([info]),
        Format::Table => {
            say!("pipeline {} {what}", text(info, "name"));
            Ok(())
        }
    }
}

fn list(format: Format, pipelines: &Value) -> Result<()> {
    let pipelines: Vec<&Value> = pipelines.as_array().into_iter().flatten().collect();
    if format == Format::Json {
        return lines(pipelines);
    }
    // What is tried stands below what it is tried beside.
    let with_tried = |p: &&Value| {
        let tried = p.get("canary").map(|tried| {
            let mut tried = tried.clone();
            tried["name"] = json!(format!("{} ({})", text(p, "name"), share(&tried)));
            tried
        });
        std::iter::once(Value::clone(p)).chain(tried)
    };
    let rows: Vec<Vec<String>> = pipelines
        .iter()
        .flat_map(with_tried)
        .map(|p| {
            let columns = [
                "name",
                "source",
                "at",
                "state",
                "revision",
                "records_in",
                "kept",
                "dropped",
                "dead_letters",
                "lag",
            ];
            let of = |column: &&str| match (*column, &p["at"]) {
                ("lag", at) if at == "ingest" => "-".to_owned(),
                (column, _) => text(&p, column),
            };
            columns.iter().map(of).collect()
        })
        .collect();
    table(
        &[
            "PIPELINE", "SOURCE", "AT", "STATE", "REVISION", "IN", "KEPT", "DROPPED", "DEAD", "LAG",
        ],
        &rows,
    )
}

/// On which partitions something is tried.
fn share(tried: &Value) -> String {
    let partitions = tried["partitions"].as_array().into_iter().flatten();
    let partitions: Vec<_> = partitions.map(Value::to_string).collect();
    format!("tried on {}", partitions.join(", "))
}

fn history(format: Format, revisions: &Value) -> Result<()> {
    let revisions: Vec<&Value> = revisions.as_array().into_iter().flatten().collect();
    if format == Format::Json {
        return lines(revisions);
    }
    let row = |revision: &&Value| {
        let at = std::time::Duration::from_millis(revision["applied_ms"].as_u64().unwrap_or(0));
        let at = humantime::format_rfc3339_seconds(std::time::UNIX_EPOCH + at).to_string();
        let stages = revision["spec"]["stages"].as_array();
        let stages = stages
            .into_iter()
            .flatten()
            .zip(revision["digests"].as_array().into_iter().flatten());
        let stages = stages.map(|(stage, digest)| {
            let digest: String = digest.as_str().unwrap_or_default().chars().take(8).collect();
            format!("{} ({digest})", text(stage, "module"))
        });
        let stages: Vec<_> = stages.collect();
        let (number, by, why) = (
            text(revision, "revision"),
            text(revision, "by"),
            text(revision, "why"),
        );
        vec![number, at, by, stages.join(" -> "), why]
    };
    let rows: Vec<_> = revisions.iter().map(row).collect();
    table(&["REVISION", "APPLIED", "BY", "STAGES", "WHY"], &rows)
}

fn describe(format: Format, pipeline: &Value) -> Result<()> {
    if format == Format::Json {
        return lines([pipeline]);
    }
    describe_one(pipeline)?;
    match &pipeline["canary"] {
        Value::Null => Ok(()),
        tried => {
            say!("\n{}:", share(tried));
            describe_one(tried)
        }
    }
}

fn describe_one(pipeline: &Value) -> Result<()> {
    let stages: Vec<String> = pipeline["spec"]["stages"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|s| text(s, "module"))
        .collect();
    let wasm_ns = pipeline["wasm_ns"].as_u64().unwrap_or(0);
    let each = wasm_ns / pipeline["records_in"].as_u64().unwrap_or(0).max(1);
    let names = [
        "name",
        "source",
        "at",
        "state",
        "why",
        "revision",
        "records_in",
        "kept",
        "dropped",
        "emitted",
    ];
    let more = [
        "dead_letters",
        "skipped",
        "failures",
        "state_rows",
        "timers",
        "timers_fired",
        "state_bytes",
    ];
    let mut rows: Vec<(&str, String)> = names
        .iter()
        .chain(&more)
        .filter(|n| !pipeline[**n].is_null())
        .map(|n| (*n, text(pipeline, n)))
        .collect();
    if text(pipeline, "at") == "log" {
        rows.push(("lag", text(pipeline, "lag")));
        rows.push(("missed", text(pipeline, "missed")));
        let places = pipeline["places"].as_array();
        let place = |p: &Value| {
            let [topic, partition, next, end] = ["topic", "partition", "next", "end"].map(|n| text(p, n));
            format!("{topic}/{partition}: {next} of {end}")
        };
        let places: Vec<_> = places.into_iter().flatten().map(place).collect();
        rows.push(("places", places.join(", ")));
    }
    rows.push(("routed", pipeline["routed"].to_string()));
    rows.push(("outputs", pipeline["spec"]["outputs"].to_string()));
    rows.push(("stages", stages.join(" -> ")));
    rows.push(("on error", pipeline["spec"]["on_error"].to_string()));
    rows.push(("ns a record", each.to_string()));
    fields(&rows)
}

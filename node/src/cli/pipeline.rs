//! `weir pipeline`

use super::output::{fields, json, lines, or_dash, table};
use super::{Format, To};
use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::time::Duration;
use weir_api::{At, Change, Pipeline, PipelinePlace, PipelineState, Plan, Revision};
use weir_client::Client;

/// Plan, apply, list, describe, change and remove pipelines.
#[derive(Debug, Args)]
pub(crate) struct PipelineArgs {
    #[command(flatten)]
    to: To,
    #[command(subcommand)]
    command: PipelineCommand,
}

#[derive(Debug, Subcommand)]
enum PipelineCommand {
    /// Create a pipeline, or change it between two batches.
    Apply {
        /// The pipeline in TOML.
        file: PathBuf,
    },
    /// Show the changes that applying a pipeline would make, without making them.
    Plan {
        /// The pipeline in TOML.
        file: PathBuf,
    },
    /// Run a pipeline over the records of its source, beside the live pipeline; nothing is written.
    ///
    /// Both begin with empty state. Records that an in-line pipeline dropped are not in the source, and are
    /// not replayed.
    Shadow {
        /// The pipeline in TOML.
        file: PathBuf,
        /// Where to begin: `start`, `end`, an offset on all partitions, or a time like
        /// `2026-11-22T08:00:00Z`.
        #[arg(long, default_value = "start")]
        from: String,
        /// Time to go on with new records.
        #[arg(long, value_name = "TIME", default_value = "0s")]
        wait: humantime::Duration,
    },
    /// List all pipelines.
    List,
    /// Show a pipeline, its counters and its specification.
    Describe {
        /// Name of the pipeline.
        name: String,
    },
    /// Pause a pipeline. The source of an in-line pipeline refuses records meanwhile; a pipeline behind the
    /// log lags.
    Pause {
        /// Name of the pipeline.
        name: String,
    },
    /// Resume a paused or halted pipeline.
    Resume {
        /// Name of the pipeline.
        name: String,
    },
    /// Clear the state of a pipeline, and pause it.
    Reset {
        /// Name of the pipeline.
        name: String,
    },
    /// Clear the state of a pipeline behind the log, and begin anew at another place.
    Rewind {
        /// Name of the pipeline.
        name: String,
        /// New place: `start`, `end`, an offset on all partitions, or a time like `2026-11-22T08:00:00Z`.
        #[arg(long)]
        to: String,
    },
    /// Show the committed state of a pipeline's modules: values and timers.
    State {
        /// Name of the pipeline.
        name: String,
        /// Only this stage, counted from 1.
        #[arg(long)]
        stage: Option<u64>,
        /// Only this partition.
        #[arg(long)]
        partition: Option<u64>,
        /// Only a SHA-256 digest of the state.
        #[arg(long)]
        digest: bool,
    },
    /// Show the revisions of a pipeline: when, by whom, and why.
    History {
        /// Name of the pipeline.
        name: String,
    },
    /// Run a pipeline on some partitions, as a canary: the live pipeline of its name works on the others. End
    /// the canary with `promote` or `rollback`.
    Canary {
        /// The pipeline in TOML.
        file: PathBuf,
        /// Partitions: `0,3`.
        #[arg(long, value_delimiter = ',', required = true)]
        partitions: Vec<u32>,
    },
    /// Apply the canary of a pipeline to all partitions.
    Promote {
        /// Name of the pipeline.
        name: String,
    },
    /// Roll a pipeline back to an earlier revision, with the same modules; or end its canary.
    Rollback {
        /// Name of the pipeline.
        name: String,
        /// Revision to restore; the last different revision when not given.
        #[arg(long, value_name = "REVISION")]
        to: Option<u64>,
    },
    /// Remove a pipeline and its state; its topics stay.
    Remove {
        /// Name of the pipeline.
        name: String,
    },
}

impl PipelineArgs {
    pub(crate) async fn run(self) -> Result<()> {
        let client = self.to.connect().await?;
        let ask = Ask {
            client: &client,
            format: self.to.output,
        };
        match self.command {
            PipelineCommand::Plan { file } => ask.plan(&file).await?,
            PipelineCommand::Apply { file } => ask.apply(&file).await?,
            PipelineCommand::Shadow { file, from, wait } => ask.shadow(&file, &from, wait.into()).await?,
            PipelineCommand::List => ask.list().await?,
            PipelineCommand::Describe { name } => ask.describe(&name).await?,
            PipelineCommand::Pause { name } => ask.set_paused(&name, true).await?,
            PipelineCommand::Resume { name } => ask.set_paused(&name, false).await?,
            PipelineCommand::Reset { name } => ask.reset(&name).await?,
            PipelineCommand::Rewind { name, to } => ask.rewind(&name, &to).await?,
            PipelineCommand::State {
                name,
                stage,
                partition,
                digest,
            } => super::state::show(&client, ask.format, &name, (stage, partition), digest).await?,
            PipelineCommand::History { name } => ask.history(&name).await?,
            PipelineCommand::Canary { file, partitions } => ask.canary(&file, &partitions).await?,
            PipelineCommand::Promote { name } => ask.promote(&name).await?,
            PipelineCommand::Rollback { name, to } => ask.roll_back(&name, to).await?,
            PipelineCommand::Remove { name } => ask.remove(&name).await?,
        }
        client.close().await;
        Ok(())
    }
}

/// A connection, and the format of answers.
#[derive(Clone, Copy)]
struct Ask<'a> {
    client: &'a Client,
    format: Format,
}

impl Ask<'_> {
    async fn plan(self, file: &Path) -> Result<()> {
        let planned = self.client.plan_pipeline(&read(file)?).await?;
        plan(self.format, &planned)
    }

    async fn apply(self, file: &Path) -> Result<()> {
        let applied = self.client.apply_pipeline(&read(file)?).await?;
        self.done(&applied, &format!("applied, revision {}", applied.revision))
    }

    async fn shadow(self, file: &Path, from: &str, wait: Duration) -> Result<()> {
        let shadow = super::shadow::run(self.client, &read(file)?, from, wait).await;
        super::shadow::show(self.format, &shadow.with_context(|| file.display().to_string())?)
    }

    async fn list(self) -> Result<()> {
        list(self.format, &self.client.pipelines().await?)
    }

    async fn describe(self, name: &str) -> Result<()> {
        let all = self.client.pipelines().await?;
        let found = all.iter().find(|p| p.name == name);
        describe(
            self.format,
            found.with_context(|| format!("no pipeline `{name}`"))?,
        )
    }

    async fn set_paused(self, name: &str, paused: bool) -> Result<()> {
        let changed = self.client.set_paused(name, paused).await?;
        self.done(&changed, if paused { "paused" } else { "resumed" })
    }

    async fn reset(self, name: &str) -> Result<()> {
        let reset = self.client.reset_pipeline(name).await?;
        self.done(&reset, "has forgotten everything, and is paused")
    }

    async fn rewind(self, name: &str, to: &str) -> Result<()> {
        let rewound = self.client.rewind_pipeline(name, to).await?;
        let paused = match rewound.state {
            PipelineState::Paused => ", and is paused",
            PipelineState::Running | PipelineState::Halted(_) => "",
        };
        self.done(&rewound, &format!("begins anew at {to}{paused}"))
    }

    async fn history(self, name: &str) -> Result<()> {
        history(self.format, &self.client.pipeline_history(name).await?)
    }

    async fn canary(self, file: &Path, partitions: &[u32]) -> Result<()> {
        let started = self.client.try_pipeline(&read(file)?, partitions).await?;
        let numbers: Vec<_> = partitions.iter().map(u32::to_string).collect();
        let (numbers, revision) = (numbers.join(", "), started.revision);
        self.done(
            &started,
            &format!("is tried on partitions {numbers}, revision {revision}"),
        )
    }

    async fn promote(self, name: &str) -> Result<()> {
        let promoted = self.client.promote_pipeline(name).await?;
        self.done(&promoted, &format!("applied, revision {}", promoted.revision))
    }

    async fn roll_back(self, name: &str, to: Option<u64>) -> Result<()> {
        let back = self.client.roll_back_pipeline(name, to).await?;
        self.done(&back, &format!("is as it was, revision {}", back.revision))
    }

    async fn remove(self, name: &str) -> Result<()> {
        self.client.remove_pipeline(name).await?;
        match self.format {
            Format::Json => lines([Removed { name }]),
            Format::Table => {
                say!("pipeline {name} removed");
                Ok(())
            }
        }
    }

    /// Shows a pipeline after a change, or the change in words.
    fn done(self, pipeline: &Pipeline, words: &str) -> Result<()> {
        match self.format {
            Format::Json => lines([pipeline]),
            Format::Table => {
                say!("pipeline {} {words}", pipeline.name);
                Ok(())
            }
        }
    }
}

/// A removed pipeline.
#[derive(Serialize)]
struct Removed<'a> {
    name: &'a str,
}

fn read(file: &Path) -> Result<String> {
    std::fs::read_to_string(file).with_context(|| format!("cannot read `{}`", file.display()))
}

/// Shows a plan: a line for each change, as `diff` has them.
fn plan(format: Format, plan: &Plan) -> Result<()> {
    if format == Format::Json {
        return lines([plan]);
    }
    let name = &plan.name;
    let paused = match plan.paused {
        true => "; it is paused, and stays so",
        false => "",
    };
    match plan.revision {
        None => say!("pipeline {name} is new"),
        Some(_) if plan.changes.is_empty() => say!("pipeline {name}: nothing would change{paused}"),
        Some(n) => say!("pipeline {name}: revision {n} -> {}{paused}", n + 1),
    }
    for Change { at, before, after } in &plan.changes {
        match (before, after) {
            (None, None) => say!("+ {at} = null"),
            (None, Some(after)) => say!("+ {at} = {after}"),
            (Some(before), None) => say!("- {at} = {before}"),
            (Some(before), Some(after)) => say!("~ {at} = {before} -> {after}"),
        }
    }
    if let Some(topic) = &plan.creates {
        say!("+ topic {topic}");
    }
    Ok(())
}

fn list(format: Format, pipelines: &[Pipeline]) -> Result<()> {
    if format == Format::Json {
        return lines(pipelines);
    }
    let mut rows = Vec::new();
    for pipeline in pipelines {
        rows.push(row(pipeline, pipeline.name.clone()));
        // A canary stands below the pipeline that it runs beside.
        if let Some(canary) = &pipeline.canary {
            rows.push(row(canary, format!("{} ({})", pipeline.name, share(canary))));
        }
    }
    table(
        &[
            "PIPELINE", "SOURCE", "AT", "STATE", "REVISION", "IN", "KEPT", "DROPPED", "DEAD", "LAG",
        ],
        &rows,
    )
}

fn row(pipeline: &Pipeline, name: String) -> Vec<String> {
    let lag = (pipeline.at == At::Log).then_some(pipeline.lag);
    vec![
        name,
        pipeline.source.to_string(),
        pipeline.at.name().to_owned(),
        pipeline.state.name().to_owned(),
        pipeline.revision.to_string(),
        pipeline.records_in.to_string(),
        pipeline.kept.to_string(),
        pipeline.dropped.to_string(),
        pipeline.dead_letters.to_string(),
        or_dash(lag),
    ]
}

/// Names the partitions of a canary.
fn share(canary: &Pipeline) -> String {
    let partitions: Vec<_> = canary.partitions.iter().map(u32::to_string).collect();
    format!("tried on {}", partitions.join(", "))
}

fn history(format: Format, revisions: &[Revision]) -> Result<()> {
    if format == Format::Json {
        return lines(revisions);
    }
    let row = |revision: &Revision| {
        let at = Duration::from_millis(u64::try_from(revision.applied_ms).unwrap_or(0));
        let at = humantime::format_rfc3339_seconds(std::time::UNIX_EPOCH + at).to_string();
        let stages = revision.spec.stages.iter().zip(&revision.digests);
        let stages = stages.map(|(stage, digest)| {
            let digest: String = digest.chars().take(8).collect();
            format!("{} ({digest})", stage.module)
        });
        let stages: Vec<_> = stages.collect();
        vec![
            revision.revision.to_string(),
            at,
            revision.by.clone(),
            stages.join(" -> "),
            or_dash(revision.why.as_ref()),
        ]
    };
    let rows: Vec<_> = revisions.iter().map(row).collect();
    table(&["REVISION", "APPLIED", "BY", "STAGES", "WHY"], &rows)
}

fn describe(format: Format, pipeline: &Pipeline) -> Result<()> {
    if format == Format::Json {
        return lines([pipeline]);
    }
    describe_one(pipeline)?;
    if let Some(canary) = &pipeline.canary {
        say!("\n{}:", share(canary));
        describe_one(canary)?;
    }
    Ok(())
}

fn describe_one(pipeline: &Pipeline) -> Result<()> {
    let mut rows = vec![
        ("name", pipeline.name.clone()),
        ("source", pipeline.source.to_string()),
        ("at", pipeline.at.name().to_owned()),
        ("state", pipeline.state.name().to_owned()),
    ];
    rows.extend(pipeline.state.why().map(|why| ("why", why.to_owned())));
    let counters = [
        ("revision", pipeline.revision),
        ("records_in", pipeline.records_in),
        ("kept", pipeline.kept),
        ("dropped", pipeline.dropped),
        ("emitted", pipeline.emitted),
        ("dead_letters", pipeline.dead_letters),
        ("skipped", pipeline.skipped),
        ("failures", pipeline.failures),
        ("state_rows", pipeline.state_rows),
        ("timers", pipeline.timers),
        ("timers_fired", pipeline.timers_fired),
        ("state_bytes", pipeline.state_bytes),
    ];
    rows.extend(counters.map(|(name, n)| (name, n.to_string())));
    if pipeline.at == At::Log {
        let place = |p: &PipelinePlace| {
            let PipelinePlace {
                topic,
                partition,
                next,
                end,
            } = p;
            format!("{topic}/{partition}: {next} of {end}")
        };
        let places: Vec<_> = pipeline.places.iter().map(place).collect();
        rows.push(("lag", pipeline.lag.to_string()));
        rows.push(("missed", pipeline.missed.to_string()));
        rows.push(("places", places.join(", ")));
    }
    let stages = pipeline.spec.stages.iter();
    let stages: Vec<_> = stages.map(|stage| stage.module.as_str()).collect();
    let each = pipeline.wasm_ns / pipeline.records_in.max(1);
    rows.push(("routed", json(&pipeline.routed)?));
    rows.push(("outputs", json(&pipeline.spec.outputs)?));
    rows.push(("stages", stages.join(" -> ")));
    rows.push(("on error", json(&pipeline.spec.on_error)?));
    rows.push(("ns a record", each.to_string()));
    fields(&rows)
}

//! A pipeline as it is written down.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use weir_runtime::{CallLimits, Setting};
use weir_types::limits::{STAGES_MAX, STATE_BYTES_MAX};
use weir_types::{NameError, TopicName};

/// Modules chained on a topic.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// Its name: letters, digits, `.`, `_` and `-`.
    pub name: TopicName,
    /// The topic whose records pass it.
    pub source: TopicName,
    /// Where it stands: `ingest`, before a record is stored.
    #[serde(default)]
    pub at: At,
    /// Its modules, first to last.
    pub stages: Vec<Stage>,
    /// Topics for the modules' named outputs. `main` is the stream itself.
    #[serde(default)]
    pub outputs: BTreeMap<String, TopicName>,
    /// What becomes of records that a module fails on.
    #[serde(default)]
    pub on_error: OnError,
    /// Limits on each call of each module.
    #[serde(default)]
    pub limits: CallLimits,
}

/// Where a pipeline stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum At {
    /// In-line: before a record is stored.
    #[default]
    Ingest,
}

/// One module of a pipeline.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stage {
    /// `name`, `name@version` or a SHA-256 digest.
    pub module: String,
    /// The module's parameters.
    #[serde(default)]
    pub config: BTreeMap<String, Setting>,
    /// What it may import beside `log` and `metrics`.
    #[serde(default)]
    pub grants: BTreeSet<Grant>,
}

/// What a stage may be granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Grant {
    /// `weir:module/state`: it remembers.
    State,
}

/// What becomes of records that a module fails on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OnError {
    /// The policy; when none is given, `dead-letter`, and `halt` for a pipeline that remembers: a record that is set aside
    /// is missing in what comes after it.
    pub policy: Option<Policy>,
    /// Topic for dead letters; `<source>.dead` when none is given.
    pub topic: Option<TopicName>,
    /// How often a batch is tried, each time on a fresh instance, before it is halved.
    pub attempts: u32,
}

impl Default for OnError {
    fn default() -> Self {
        // Once more tells a passing fault from a lasting one; a third time has never told more.
        Self {
            policy: None,
            topic: None,
            attempts: 2,
        }
    }
}

/// Policy for failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Policy {
    /// They go to a topic of their own, with what happened in their headers.
    DeadLetter,
    /// The pipeline stops and refuses records until it is resumed.
    Halt,
    /// They are dropped, and counted.
    Skip,
}

/// Why a text is no pipeline.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum SpecError {
    #[error("{0}")]
    Toml(String),
    #[error("a pipeline has 1 to {STAGES_MAX} stages, this has {0}")]
    Stages(usize),
    #[error("`{what}` has to be {want}")]
    Range { what: &'static str, want: &'static str },
    #[error("output `main` is the stream itself and cannot be given a topic")]
    Main,
    #[error("output `{0}` leads back to the source")]
    Loop(String),
    #[error(transparent)]
    Name(#[from] NameError),
}

impl Spec {
    /// Reads and checks a pipeline in TOML.
    ///
    /// # Errors
    /// Says where and what is wrong.
    pub fn parse(text: &str) -> Result<Self, SpecError> {
        let spec: Self =
            toml::from_str(text).map_err(|e| SpecError::Toml(e.to_string().trim_end().to_owned()))?;
        spec.check()?;
        Ok(spec)
    }

    fn check(&self) -> Result<(), SpecError> {
        if !(1..=STAGES_MAX).contains(&self.stages.len()) {
            return Err(SpecError::Stages(self.stages.len()));
        }
        if self.outputs.contains_key("main") {
            return Err(SpecError::Main);
        }
        if let Some((output, _)) = self.outputs.iter().find(|(_, topic)| **topic == self.source) {
            return Err(SpecError::Loop(output.clone()));
        }
        let range = |ok, what, want| {
            if ok {
                Ok(())
            } else {
                Err(SpecError::Range { what, want })
            }
        };
        let limits = &self.limits;
        range(
            (1..=10).contains(&self.on_error.attempts),
            "on_error.attempts",
            "1 to 10",
        )?;
        range(
            (1..=60_000).contains(&limits.deadline_ms),
            "limits.deadline_ms",
            "1 to 60000",
        )?;
        let memory = (64 << 10)..=(256 << 20);
        range(
            memory.contains(&limits.memory_bytes),
            "limits.memory_bytes",
            "64 KiB to 256 MiB",
        )?;
        let output = (4 << 10)..=(64 << 20);
        range(
            output.contains(&limits.output_bytes),
            "limits.output_bytes",
            "4 KiB to 64 MiB",
        )?;
        let state = (4 << 10)..=STATE_BYTES_MAX;
        range(
            state.contains(&limits.state_bytes),
            "limits.state_bytes",
            "4 KiB to 96 MiB",
        )?;
        range(limits.log_lines <= 1_000, "limits.log_lines", "at most 1000")?;
        self.dead_letters()?;
        Ok(())
    }

    /// Whether a module of it remembers.
    pub fn is_stateful(&self) -> bool {
        self.stages.iter().any(|s| s.grants.contains(&Grant::State))
    }

    /// Bytes that what it remembers may take where its source has so many partitions.
    pub(crate) fn state_bytes(&self, partitions: usize) -> usize {
        let stages = self.stages.iter().filter(|s| s.grants.contains(&Grant::State));
        let tables = stages.count().saturating_mul(partitions);
        tables.saturating_mul(self.limits.state_bytes)
    }

    /// What becomes of records that a module fails on.
    pub fn policy(&self) -> Policy {
        let preset = match self.is_stateful() {
            true => Policy::Halt,
            false => Policy::DeadLetter,
        };
        self.on_error.policy.unwrap_or(preset)
    }

    /// Topic for dead letters.
    ///
    /// # Errors
    /// When the source's name is too long for the default.
    pub fn dead_letters(&self) -> Result<TopicName, NameError> {
        self.on_error
            .topic
            .clone()
            .map_or_else(|| format!("{}.dead", self.source).parse(), Ok)
    }
}

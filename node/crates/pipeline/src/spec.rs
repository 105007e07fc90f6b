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
    /// What time its records are from. Given, or where a stage has timers, the pipeline keeps a watermark a partition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_time: Option<EventTime>,
    /// Limits on each call of each module.
    #[serde(default)]
    pub limits: CallLimits,
}

/// What time records are from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EventTime {
    /// Field of the JSON value that says it, as a number or in RFC 3339; dots lead into objects. The record's timestamp when none
    /// is given, and where a value has no such field.
    pub field: Option<String>,
    /// What a number there counts.
    pub unit: TimeUnit,
    /// How much later than the latest a record may come and not be late: the watermark stays so far behind.
    pub lateness_ms: u32,
    /// Silence after which the watermark goes on by itself, at the speed of the node's clock; 0: it waits for records.
    pub idle_ms: u32,
    /// How far ahead of the node's time a record may be.
    pub future_ms: u64,
    /// What becomes of the time of one that is further ahead.
    pub future: Future,
}

impl Default for EventTime {
    fn default() -> Self {
        Self {
            field: None,
            unit: TimeUnit::Ms,
            lateness_ms: 0,
            idle_ms: 0,
            // Clocks that are set by hand are off by minutes, and by an hour twice a year.
            future_ms: 2 * 3_600_000,
            future: Future::Redate,
        }
    }
}

/// What a number that is a time counts, from 1970 on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TimeUnit {
    /// Seconds.
    S,
    /// Milliseconds.
    Ms,
    /// Microseconds.
    Us,
    /// Nanoseconds.
    Ns,
}

/// What becomes of a time that is too far in the future.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Future {
    /// The node's time stands for it, and the record is marked.
    Redate,
    /// It stays.
    Keep,
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
    /// `weir:module/timers`: it is called at times that it sets.
    Timers,
}

impl Stage {
    /// Whether something of it outlasts a batch.
    pub(crate) fn remembers(&self) -> bool {
        self.grants.contains(&Grant::State) || self.grants.contains(&Grant::Timers)
    }
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

    /// Whether something of it outlasts a batch: what a module remembers, or how far time has come.
    pub fn is_stateful(&self) -> bool {
        self.event_time.is_some() || self.stages.iter().any(Stage::remembers)
    }

    /// Whether it keeps a watermark.
    pub(crate) fn is_timed(&self) -> bool {
        self.event_time.is_some() || self.has_timers()
    }

    /// Whether a module of it may set timers.
    pub(crate) fn has_timers(&self) -> bool {
        self.stages.iter().any(|s| s.grants.contains(&Grant::Timers))
    }

    /// Bytes that what it remembers may take where its source has so many partitions.
    pub(crate) fn state_bytes(&self, partitions: usize) -> usize {
        let stages = self.stages.iter().filter(|s| s.remembers());
        let tables = stages.count().saturating_mul(partitions);
        tables.saturating_mul(self.limits.state_bytes)
    }

    /// What becomes of records that a module fails on.
    pub fn policy(&self) -> Policy {
        let preset = match self.stages.iter().any(Stage::remembers) {
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

//! The text of a pipeline, parsed and checked, and the row in which it is stored.

pub(crate) mod error;
pub(crate) mod event_time;
pub(crate) mod guard;
pub(crate) mod on_error;
pub(crate) mod row;
pub(crate) mod source;
pub(crate) mod stage;

use crate::spec::error::SpecError;
use crate::spec::event_time::EventTime;
use crate::spec::guard::Guard;
use crate::spec::on_error::{OnError, Policy};
use crate::spec::source::{At, Origin, Sources};
use crate::spec::stage::{Grant, Stage};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use weir_runtime::{CallLimits, Setting};
use weir_types::limits::{
    PIPELINE_TEXT_BYTES_MAX, PIPELINE_THREADS_MAX, SOURCES_MAX, STAGES_MAX, STATE_BYTES_MAX,
};
use weir_types::{NameError, TopicName};

/// A pipeline: modules that process the records of its sources in order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// Name of the pipeline: letters, digits, `.`, `_` and `-`.
    pub name: TopicName,
    /// Source topics. An in-line pipeline has exactly one, a log pipeline up to eight.
    pub source: Sources,
    /// Position: `ingest`, before a record is stored, or `log`, reading stored records.
    #[serde(default)]
    pub at: At,
    /// Log pipelines: where to begin on a partition without a stored position. Default: the start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Origin>,
    /// Log pipelines: number of threads. Default: the number of cores, and at most the number of partitions
    /// of the source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threads: Option<usize>,
    /// Modules, first to last.
    pub stages: Vec<Stage>,
    /// Topics for the modules' named outputs. In-line, `main` is the source topic itself. In a log pipeline,
    /// `main` is an output like any other, and is discarded unless a topic is given.
    #[serde(default)]
    pub outputs: BTreeMap<String, TopicName>,
    /// Policy for records that a module fails on.
    #[serde(default)]
    pub on_error: OnError,
    /// How records are dated. A pipeline with event time or timers keeps a watermark per partition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_time: Option<EventTime>,
    /// Limits on each call of each module.
    #[serde(default)]
    pub limits: CallLimits,
    /// Bounds after whose violation a revision is rolled back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guard: Option<Guard>,
}

impl Spec {
    /// Parses and checks a pipeline in TOML.
    ///
    /// # Errors
    /// [`SpecError`] with the place and the reason.
    pub fn parse(text: &str) -> Result<Self, SpecError> {
        if text.len() > PIPELINE_TEXT_BYTES_MAX {
            return Err(SpecError::TooLong(text.len()));
        }
        let spec: Self =
            toml::from_str(text).map_err(|e| SpecError::Toml(e.to_string().trim_end().to_owned()))?;
        spec.check()?;
        Ok(spec)
    }

    pub(crate) fn check(&self) -> Result<(), SpecError> {
        if !(1..=STAGES_MAX).contains(&self.stages.len()) {
            return Err(SpecError::Stages(self.stages.len()));
        }
        self.check_ends()?;
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
        let guard = self.guard.clone().unwrap_or_default();
        range(
            guard.failed_max.is_none_or(|share| (0.0..=1.0).contains(&share)),
            "guard.failed_max",
            "a share, 0 to 1",
        )?;
        range(
            guard
                .output
                .is_none_or(|[least, most]| 0.0 <= least && least <= most && most.is_finite()),
            "guard.output",
            "the fewest and the most, in that order; a large number for no bound",
        )?;
        let settings = self.stages.iter().flat_map(|stage| stage.config.values());
        let is_number = |s: &Setting| !matches!(s, Setting::Number(n) if !n.is_finite());
        range(
            { settings }.all(is_number),
            "a number in `config`",
            "neither `inf` nor `nan`",
        )?;
        self.dead_letters()?;
        Ok(())
    }

    /// Checks sources, outputs and the dead-letter topic.
    fn check_ends(&self) -> Result<(), SpecError> {
        let Sources(sources) = &self.source;
        if !(1..=SOURCES_MAX).contains(&sources.len()) {
            return Err(SpecError::Sources(sources.len()));
        }
        for (n, topic) in sources.iter().enumerate() {
            if sources.iter().skip(n + 1).any(|other| other == topic) {
                return Err(SpecError::Twice(topic.to_string()));
            }
        }
        match self.at {
            At::Ingest if sources.len() > 1 => return Err(SpecError::InlineSources),
            At::Ingest if self.outputs.contains_key("main") => return Err(SpecError::Main),
            At::Ingest if self.from.is_some() => return Err(SpecError::Inline("from")),
            At::Ingest if self.threads.is_some() => return Err(SpecError::Inline("threads")),
            At::Log if self.outputs.is_empty() => return Err(SpecError::Nowhere),
            At::Ingest | At::Log => {}
        }
        if self
            .threads
            .is_some_and(|n| !(1..=PIPELINE_THREADS_MAX).contains(&n))
        {
            return Err(SpecError::Range {
                what: "threads",
                want: "1 to 8",
            });
        }
        let mut ends = self.outputs.iter();
        if let Some((output, _)) = ends.find(|(_, topic)| self.source.contains(topic.as_str())) {
            return Err(SpecError::Loop(output.clone()));
        }
        if self.source.contains(self.dead_letters()?.as_str()) {
            Err(SpecError::Loop("on_error.topic".to_owned()))
        } else {
            Ok(())
        }
    }

    /// Returns true for a log pipeline, which reads stored records.
    pub fn is_behind_the_log(&self) -> bool {
        self.at == At::Log
    }

    /// Returns the source topic of an in-line pipeline.
    pub(crate) fn inline_source(&self) -> Option<&TopicName> {
        match self.at {
            At::Ingest => self.source.iter().next(),
            At::Log => None,
        }
    }

    /// Returns true if anything outlasts a batch: state of a module, or event time.
    pub fn is_stateful(&self) -> bool {
        self.event_time.is_some() || self.remembers()
    }

    /// Returns true if the pipeline's time is stored.
    pub(crate) fn has_time(&self) -> bool {
        self.is_timed() || self.is_behind_the_log()
    }

    /// Returns true if a module may keep state or set timers.
    pub(crate) fn remembers(&self) -> bool {
        self.stages.iter().any(Stage::remembers)
    }

    /// Returns true if the pipeline keeps a watermark.
    pub(crate) fn is_timed(&self) -> bool {
        self.event_time.is_some() || self.has_timers()
    }

    /// Returns true if a module may set timers.
    pub(crate) fn has_timers(&self) -> bool {
        self.stages.iter().any(|s| s.grants.contains(&Grant::Timers))
    }

    /// Returns the error policy, with the default applied.
    pub fn policy(&self) -> Policy {
        let preset = if self.remembers() {
            Policy::Halt
        } else {
            Policy::DeadLetter
        };
        self.on_error.policy.unwrap_or(preset)
    }

    /// Returns the topic for dead letters.
    ///
    /// # Errors
    /// When the default, `<first source>.dead`, is too long for a topic's name.
    pub fn dead_letters(&self) -> Result<TopicName, NameError> {
        self.on_error
            .topic
            .clone()
            .map_or_else(|| format!("{}.dead", self.source.first()).parse(), Ok)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAGES: &str = "stages = [{ module = 'm' }]\n";

    fn parse(head: &str) -> Result<Spec, String> {
        Spec::parse(&format!("name = 'p'\n{head}\n{STAGES}")).map_err(|e| e.to_string())
    }

    #[test]
    fn a_source_is_a_name_or_a_list_and_stays_as_it_was_written() {
        for source in ["\"t\"", "[\"t\",\"u\"]"] {
            let spec = parse(&format!(
                "source = {source}\nat = 'log'\noutputs = {{ main = 'o' }}"
            ))
            .unwrap();
            let row = serde_json::to_string(&spec).unwrap();
            assert!(row.contains(&format!("\"source\":{source}")), "{row}");
            assert_eq!(serde_json::from_str::<Spec>(&row).unwrap(), spec);
        }
    }

    #[test]
    fn numbers_that_cannot_be_stored_are_refused() {
        for wrong in [
            "guard = { output = [0.5, inf] }",
            "guard = { output = [nan, 1.0] }",
            "guard = { failed_max = nan }",
        ] {
            let refused = parse(&format!("source = 't'\n{wrong}")).unwrap_err();
            assert!(refused.contains("has to be"), "{wrong}: {refused}");
        }
        let stages = "stages = [{ module = 'm', config = { limit = inf } }]";
        let refused = Spec::parse(&format!("name = 'p'\nsource = 't'\n{stages}")).unwrap_err();
        assert!(
            refused.to_string().contains("neither `inf` nor `nan`"),
            "{refused}"
        );
    }

    #[test]
    fn places_to_begin_at_are_words_offsets_and_times() {
        let from = |from: &str| {
            let head = format!("source = 't'\nat = 'log'\noutputs = {{ main = 'o' }}\nfrom = {from}");
            let spec = parse(&head)?;
            let row = serde_json::to_string(&spec).unwrap();
            assert_eq!(serde_json::from_str::<Spec>(&row).unwrap(), spec);
            Ok::<_, String>(spec.from.unwrap())
        };
        assert_eq!(from("'start'"), Ok(Origin::Start));
        assert_eq!(from("'end'"), Ok(Origin::End));
        assert_eq!(from("17"), Ok(Origin::Offset(17)));
        assert_eq!(from("'17'"), Ok(Origin::Offset(17)));
        assert_eq!(
            from("'2023-11-14T22:13:20.5Z'"),
            Ok(Origin::Time(1_700_000_000_500))
        );
        assert_eq!(
            from("'2023-11-15T00:13:20.5+02:00'"),
            Ok(Origin::Time(1_700_000_000_500))
        );
        for wrong in ["'soon'", "''", "'1970-13-01'"] {
            assert!(
                from(wrong).unwrap_err().contains("not a position to begin at"),
                "{wrong}"
            );
        }
        assert!(from("-1").is_err());
    }

    #[test]
    fn what_does_not_fit_where_it_stands_is_refused() {
        let cases = [
            ("source = ['t', 'u']", "an in-line pipeline has a single source"),
            ("source = []", "1 to 8 sources"),
            (
                "source = ['t', 't']\nat = 'log'",
                "`t` is listed twice as a source",
            ),
            ("source = 't'\nfrom = 'end'", "`from` is for log pipelines"),
            ("source = 't'\nthreads = 2", "`threads` is for log pipelines"),
            ("source = 't'\noutputs = { main = 'u' }", "the stream itself"),
            ("source = 't'\nat = 'log'", "has no output"),
            (
                "source = 't'\nat = 'log'\noutputs = { main = 't' }",
                "`main` leads back to the source",
            ),
            (
                "source = 't'\nat = 'log'\noutputs = { main = 'u' }\non_error = { topic = 't' }",
                "`on_error.topic` leads back",
            ),
            (
                "source = 't'\nat = 'log'\noutputs = { main = 'u' }\nthreads = 9",
                "`threads` has to be 1 to 8",
            ),
        ];
        for (head, want) in cases {
            let error = parse(head).unwrap_err();
            assert!(error.contains(want), "{head}: {error}");
        }
    }
}

//! A pipeline as it is written down.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use weir_runtime::{CallLimits, Setting};
use weir_types::limits::{
    PIPELINE_TEXT_BYTES_MAX, PIPELINE_THREADS_MAX, SOURCES_MAX, STAGES_MAX, STATE_BYTES_MAX,
};
use weir_types::{NameError, TimeUnit, TopicName, format_time, parse_time};

/// Modules chained on a topic.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// Its name: letters, digits, `.`, `_` and `-`.
    pub name: TopicName,
    /// The topic whose records pass it; behind the log there may be several.
    pub source: Sources,
    /// Where it stands: `ingest`, before a record is stored, or `log`, behind it.
    #[serde(default)]
    pub at: At,
    /// Behind the log: where it begins on a partition that it has not read yet; at the start when nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Origin>,
    /// Behind the log: how many threads it works on; as many as there are cores, and no more than its source has partitions,
    /// when nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threads: Option<usize>,
    /// Its modules, first to last.
    pub stages: Vec<Stage>,
    /// Topics for the modules' named outputs. `main` is the stream itself, in-line; behind the log it is an output like any
    /// other, and goes nowhere when it has no topic.
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
    /// When it goes back by itself to what it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guard: Option<Guard>,
}

/// Bounds that a revision must keep to for a while, or the one before it comes back. One that halts leaves them, too.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Guard {
    /// Seconds after it was put in place for which it is watched.
    pub watch_s: u32,
    /// Records before which nothing is judged but that it halts.
    pub min_records: u64,
    /// Largest share of records that become dead letters or are skipped.
    pub failed_max: Option<f64>,
    /// Longest time in its modules for a record, on average, in nanoseconds.
    pub ns_max: Option<u64>,
    /// Fewest and most records that come out for each that goes in, on average, those for named outputs included.
    pub output: Option<[f64; 2]>,
}

impl Default for Guard {
    fn default() -> Self {
        Self {
            // Longer than what an operator watches after a change.
            watch_s: 600,
            // A share of one in a hundred is told from chance.
            min_records: 100,
            failed_max: None,
            ns_max: None,
            output: None,
        }
    }
}

/// What time records are from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EventTime {
    /// Field of the JSON value that says it, as a number or in RFC 3339; dots lead into objects, and a path that begins with `/` is a
    /// JSON Pointer. The record's timestamp when none is given.
    pub field: Option<String>,
    /// What a number there counts; when it is not said, milliseconds, and a number that is hardly one of them is no time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit: Option<TimeUnit>,
    /// What becomes of a record whose field says no time.
    #[serde(skip_serializing_if = "OnBadTime::is_preset")]
    pub on_bad_time: OnBadTime,
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
            unit: None,
            on_bad_time: OnBadTime::DeadLetter,
            lateness_ms: 0,
            idle_ms: 0,
            // Clocks that are set by hand are off by minutes, and by an hour twice a year.
            future_ms: 2 * 3_600_000,
            future: Future::Redate,
        }
    }
}

/// What becomes of a record whose field says no time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnBadTime {
    /// It is a dead letter; no module sees it.
    #[default]
    DeadLetter,
    /// It is from when the pipeline works on it.
    Now,
    /// It is from the time that its timestamp says.
    Record,
}

impl OnBadTime {
    pub(crate) fn is_preset(&self) -> bool {
        *self == Self::default()
    }
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
    /// Behind the log: it reads what is stored.
    Log,
}

/// Topics that a pipeline reads. Written down as a name, or as a list of names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "OneOrMany", into = "OneOrMany")]
pub struct Sources(Vec<TopicName>);

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(TopicName),
    Many(Vec<TopicName>),
}

impl From<OneOrMany> for Sources {
    fn from(topics: OneOrMany) -> Self {
        match topics {
            OneOrMany::One(topic) => Self(vec![topic]),
            OneOrMany::Many(topics) => Self(topics),
        }
    }
}

impl From<Sources> for OneOrMany {
    fn from(Sources(mut topics): Sources) -> Self {
        match topics.len() {
            1 => Self::One(topics.remove(0)),
            _ => Self::Many(topics),
        }
    }
}

impl FromIterator<TopicName> for Sources {
    fn from_iter<I: IntoIterator<Item = TopicName>>(topics: I) -> Self {
        Self(topics.into_iter().collect())
    }
}

impl Sources {
    /// Each of them; a module knows them by their places here.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &TopicName> {
        self.0.iter()
    }

    /// Whether `topic` is one.
    pub fn contains(&self, topic: &str) -> bool {
        self.0.iter().any(|name| name.as_str() == topic)
    }

    /// The first: after it, what has no name of its own is named. A pipeline has one.
    pub fn first(&self) -> &str {
        self.0.first().map_or("", TopicName::as_str)
    }
}

/// Where reading begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "WrittenOrigin", into = "WrittenOrigin")]
pub enum Origin {
    /// With the first record that is there.
    Start,
    /// With the next that comes.
    End,
    /// With this offset, on each partition.
    Offset(u64),
    /// With the first record at or after this time, in milliseconds since 1970.
    Time(i64),
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum WrittenOrigin {
    Offset(u64),
    Text(String),
}

impl std::str::FromStr for Origin {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        match text {
            "start" => Ok(Self::Start),
            "end" => Ok(Self::End),
            text => {
                let offset = text.parse().ok().map(Self::Offset);
                let ms = parse_time(text).ok();
                offset
                    .or(ms.map(Self::Time))
                    .ok_or_else(|| SpecError::Origin(text.to_owned()))
            }
        }
    }
}

impl TryFrom<WrittenOrigin> for Origin {
    type Error = SpecError;

    fn try_from(written: WrittenOrigin) -> Result<Self, SpecError> {
        match written {
            WrittenOrigin::Offset(offset) => Ok(Self::Offset(offset)),
            WrittenOrigin::Text(text) => text.parse(),
        }
    }
}

impl From<Origin> for WrittenOrigin {
    fn from(origin: Origin) -> Self {
        match origin {
            Origin::Start => Self::Text("start".to_owned()),
            Origin::End => Self::Text("end".to_owned()),
            Origin::Offset(offset) => Self::Offset(offset),
            Origin::Time(ms) => Self::Text(format_time(ms)),
        }
    }
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
    /// Topic for dead letters; `<first source>.dead` when none is given.
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
    #[error("a pipeline's text has at most {PIPELINE_TEXT_BYTES_MAX} bytes, this has {0}")]
    TooLong(usize),
    #[error("a pipeline has 1 to {STAGES_MAX} stages, this has {0}")]
    Stages(usize),
    #[error("`{what}` has to be {want}")]
    Range { what: &'static str, want: &'static str },
    #[error("output `main` is the stream itself and cannot be given a topic")]
    Main,
    #[error("`{0}` leads back to the source")]
    Loop(String),
    #[error(
        "`{0}` is no place to begin at: write \"start\", \"end\", an offset, or a time like \"2026-11-22T08:00:00Z\""
    )]
    Origin(String),
    #[error("a pipeline has 1 to {SOURCES_MAX} sources, this has {0}")]
    Sources(usize),
    #[error("an in-line pipeline has one source: with `at = \"log\"` there may be several")]
    InlineSources,
    #[error("topic `{0}` is a source twice")]
    Twice(String),
    #[error("`{0}` is for pipelines behind the log: add `at = \"log\"`")]
    Inline(&'static str),
    #[error("what it makes would go nowhere: give `main`, or an output of a module, a topic under [outputs]")]
    Nowhere,
    #[error(transparent)]
    Name(#[from] NameError),
}

impl Spec {
    /// Reads and checks a pipeline in TOML.
    ///
    /// # Errors
    /// Says where and what is wrong.
    pub fn parse(text: &str) -> Result<Self, SpecError> {
        if text.len() > PIPELINE_TEXT_BYTES_MAX {
            return Err(SpecError::TooLong(text.len()));
        }
        let spec: Self =
            toml::from_str(text).map_err(|e| SpecError::Toml(e.to_string().trim_end().to_owned()))?;
        spec.check()?;
        Ok(spec)
    }

    fn check(&self) -> Result<(), SpecError> {
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

    /// Looks at where records come from and go to.
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
        match self.source.contains(self.dead_letters()?.as_str()) {
            true => Err(SpecError::Loop("on_error.topic".to_owned())),
            false => Ok(()),
        }
    }

    /// Whether it reads what is stored.
    pub fn is_behind_the_log(&self) -> bool {
        self.at == At::Log
    }

    /// The topic in whose line it is.
    pub(crate) fn inline_source(&self) -> Option<&TopicName> {
        match self.at {
            At::Ingest => self.source.iter().next(),
            At::Log => None,
        }
    }

    /// Whether something of it outlasts a batch: what a module remembers, or how far time has come.
    pub fn is_stateful(&self) -> bool {
        self.event_time.is_some() || self.remembers()
    }

    /// Whether how far its time has come is stored.
    pub(crate) fn has_time(&self) -> bool {
        self.is_timed() || self.is_behind_the_log()
    }

    /// Whether a module of it may remember something.
    pub(crate) fn remembers(&self) -> bool {
        self.stages.iter().any(Stage::remembers)
    }

    /// Whether it keeps a watermark.
    pub(crate) fn is_timed(&self) -> bool {
        self.event_time.is_some() || self.has_timers()
    }

    /// Whether a module of it may set timers.
    pub(crate) fn has_timers(&self) -> bool {
        self.stages.iter().any(|s| s.grants.contains(&Grant::Timers))
    }

    /// What becomes of records that a module fails on.
    pub fn policy(&self) -> Policy {
        let preset = match self.remembers() {
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
                from(wrong).unwrap_err().contains("no place to begin at"),
                "{wrong}"
            );
        }
        assert!(from("-1").is_err());
    }

    #[test]
    fn what_does_not_fit_where_it_stands_is_refused() {
        let cases = [
            ("source = ['t', 'u']", "an in-line pipeline has one source"),
            ("source = []", "1 to 8 sources"),
            ("source = ['t', 't']\nat = 'log'", "`t` is a source twice"),
            (
                "source = 't'\nfrom = 'end'",
                "`from` is for pipelines behind the log",
            ),
            (
                "source = 't'\nthreads = 2",
                "`threads` is for pipelines behind the log",
            ),
            ("source = 't'\noutputs = { main = 'u' }", "the stream itself"),
            ("source = 't'\nat = 'log'", "would go nowhere"),
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

//! Views of pipelines for callers.

use crate::manage::registry::{Active, Pipelines};
use crate::partition::place::{self, Place};
use crate::spec::Spec;
use crate::spec::row::Row;
use crate::spec::source::{At, Sources};
use crate::worker::counts::State;
use crate::worker::handle::PipelineHandle;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use weir_broker::Broker;
use weir_runtime::{Digest, Instruments, Reading};

/// A pipeline at present: configuration, state and counters. Counters start at 0 with each change of the
/// pipeline.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PipelineInfo {
    /// Name of the pipeline.
    pub name: String,
    /// Source topics.
    pub source: Sources,
    /// Position: in-line or log.
    pub at: At,
    /// Current revision.
    pub revision: u64,
    /// Whether the pipeline runs.
    #[serde(flatten)]
    pub state: State,
    /// Configuration, with defaults applied.
    pub spec: Spec,
    /// Digests of the stages' modules.
    pub digests: Vec<Digest>,
    /// Records processed.
    pub records_in: u64,
    /// Records that stayed unchanged in the stream.
    pub kept: u64,
    /// Records that are in no output.
    pub dropped: u64,
    /// New records in the stream.
    pub emitted: u64,
    /// Records by named output.
    pub routed: BTreeMap<String, u64>,
    /// Records that became dead letters.
    pub dead_letters: u64,
    /// Records dropped by the `skip` policy.
    pub skipped: u64,
    /// Records whose event-time field has no valid time.
    #[serde(default)]
    pub bad_times: u64,
    /// Records whose time the watermark had passed.
    #[serde(default)]
    pub late: u64,
    /// Records that were too far ahead of the node's time and got the node's time.
    #[serde(default)]
    pub redated: u64,
    /// Failed calls of modules.
    pub failures: u64,
    /// Nanoseconds spent in modules.
    pub wasm_ns: u64,
    /// Rows of state in memory.
    pub state_rows: u64,
    /// Timers in memory.
    pub timers: u64,
    /// Bytes of state and timers in memory.
    pub state_bytes: u64,
    /// Timers that have fired.
    pub timers_fired: u64,
    /// Log pipelines: number of stored offsets that are not processed.
    pub lag: u64,
    /// Number of offsets whose records were deleted before they were read.
    pub missed: u64,
    /// Positions on the partitions with the largest lag, at most 64.
    pub places: Vec<Place>,
    /// Instruments of the modules, as `stage.name` with stages from 1.
    pub metrics: BTreeMap<String, f64>,
    /// The canary, with counters of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<Box<PipelineInfo>>,
    /// Partitions of the canary. Empty otherwise.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub partitions: BTreeSet<u32>,
}

/// Largest number of positions shown.
pub(crate) const PLACES_TOLD: usize = 64;

impl PipelineInfo {
    /// Creates the view of an idle pipeline.
    #[cfg(test)]
    pub(crate) fn idle(spec: &Spec) -> Self {
        let value = serde_json::json!({
            "name": spec.name, "source": spec.source, "at": spec.at, "revision": 1, "state": "running", "spec": spec,
            "digests": [], "records_in": 0, "kept": 0, "dropped": 0, "emitted": 0, "routed": {}, "dead_letters": 0,
            "skipped": 0, "failures": 0, "wasm_ns": 0, "state_rows": 0, "timers": 0, "state_bytes": 0,
            "timers_fired": 0, "lag": 0, "missed": 0, "places": [], "metrics": {},
        });
        serde_json::from_value(value).expect("all fields are there")
    }

    /// Returns true if records for `topic` pass this pipeline before they are stored.
    pub fn is_inline_of(&self, topic: &str) -> bool {
        self.at == At::Ingest && self.source.contains(topic)
    }

    /// Returns true if the pipeline or its canary reads from or writes to `topic`.
    pub fn uses(&self, topic: &str) -> bool {
        let dead = self.spec.dead_letters().is_ok_and(|name| name.as_str() == topic);
        let tried = self.canary.as_ref().is_some_and(|tried| tried.uses(topic));
        let is_output = self.spec.outputs.values().any(|name| name.as_str() == topic);
        self.source.contains(topic) || dead || is_output || tried
    }
}

pub(crate) fn info(broker: &Broker, active: &Active) -> PipelineInfo {
    let Active { row, handle, .. } = active;
    let mut info = info_of(broker, row, &row.spec, &row.digests, handle, &active.instruments);
    info.canary = row
        .canary
        .as_ref()
        .zip(handle.canary.as_ref())
        .map(|(canary, handle)| {
            let mut tried = info_of(broker, row, &canary.spec, &canary.digests, handle, &active.tried);
            tried.partitions.clone_from(&canary.partitions);
            Box::new(tried)
        });
    info
}

fn info_of(
    broker: &Broker,
    row: &Row,
    spec: &Spec,
    digests: &[Digest],
    handle: &PipelineHandle,
    instruments: &[Arc<Instruments>],
) -> PipelineInfo {
    let mut places = match spec.at {
        At::Ingest => Vec::new(),
        At::Log => place::places(broker, spec, &handle.ends()),
    };
    places.retain(|place| handle.has(place.partition));
    let behind = |place: &Place| place.end.get() - place.next.get();
    let lag = places.iter().map(behind).sum();
    places.sort_by_key(|place| std::cmp::Reverse(behind(place)));
    places.truncate(PLACES_TOLD);
    let counts = handle.counts();
    let load = |c: &std::sync::atomic::AtomicU64| c.load(Ordering::Relaxed);
    let mut metrics = BTreeMap::new();
    for (n, instruments) in instruments.iter().enumerate() {
        for (name, reading) in instruments.read() {
            let value = match reading {
                Reading::Counter(v) | Reading::Gauge(v) | Reading::Histogram(_, v) => v,
            };
            metrics.insert(format!("{}.{name}", n + 1), value);
        }
    }
    let mut spec = spec.clone();
    // Shown with the default applied.
    spec.on_error.policy = Some(spec.policy());
    PipelineInfo {
        name: handle.name.clone(),
        source: spec.source.clone(),
        at: spec.at,
        revision: row.revision,
        state: handle.state(),
        spec,
        digests: digests.to_vec(),
        records_in: load(&counts.records_in),
        kept: load(&counts.kept),
        dropped: load(&counts.dropped),
        emitted: load(&counts.emitted),
        routed: counts.routed.lock().clone(),
        dead_letters: load(&counts.dead_letters),
        skipped: load(&counts.skipped),
        bad_times: load(&counts.bad_times),
        late: load(&counts.late),
        redated: load(&counts.redated),
        failures: load(&counts.failures),
        wasm_ns: load(&counts.wasm_ns),
        state_rows: load(&counts.state_rows),
        timers: load(&counts.timers),
        state_bytes: load(&counts.state_bytes),
        timers_fired: load(&counts.timers_fired),
        lag,
        missed: load(&counts.missed),
        places,
        metrics,
        canary: None,
        partitions: BTreeSet::new(),
    }
}

impl Pipelines {
    /// Returns all pipelines, by name.
    pub fn pipelines(&self) -> Vec<PipelineInfo> {
        self.active().values().map(|a| info(&self.0.broker, a)).collect()
    }

    /// Returns the pipeline `name`.
    pub fn pipeline(&self, name: &str) -> Option<PipelineInfo> {
        self.active().get(name).map(|a| info(&self.0.broker, a))
    }
}

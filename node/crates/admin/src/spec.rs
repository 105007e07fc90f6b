//! Specifications of pipelines.

use serde::{Deserialize, Serialize};
use weir_api as api;
use weir_pipeline::{At, EventTime, Future, Guard, OnBadTime, OnError, Origin, Policy, Sources, Spec, Stage};
use weir_types::{TimeUnit, format_time};

pub(crate) fn spec(spec: Spec) -> api::Spec {
    let Spec {
        name,
        source,
        at: position,
        from,
        threads,
        stages,
        outputs,
        on_error: handling,
        event_time: times,
        limits,
        guard: bounds,
    } = spec;
    let outputs = outputs.into_iter();
    api::Spec {
        name: name.to_string(),
        source: sources(&source),
        at: at(position),
        from: from.map(origin),
        threads,
        stages: stages.into_iter().map(stage).collect(),
        outputs: outputs
            .map(|(output, topic)| (output, topic.to_string()))
            .collect(),
        on_error: on_error(handling),
        event_time: times.map(event_time),
        limits: api::CallLimits {
            deadline_ms: limits.deadline_ms,
            memory_bytes: limits.memory_bytes,
            output_bytes: limits.output_bytes,
            log_lines: limits.log_lines,
            state_bytes: limits.state_bytes,
        },
        guard: bounds.map(guard),
    }
}

pub(crate) fn sources(sources: &Sources) -> api::Sources {
    sources.iter().map(ToString::to_string).collect()
}

pub(crate) fn at(at: At) -> api::At {
    match at {
        At::Ingest => api::At::Ingest,
        At::Log => api::At::Log,
    }
}

fn origin(origin: Origin) -> api::Origin {
    match origin {
        Origin::Start => api::Origin::Named("start".to_owned()),
        Origin::End => api::Origin::Named("end".to_owned()),
        Origin::Offset(offset) => api::Origin::Offset(offset),
        Origin::Time(ms) => api::Origin::Named(format_time(ms)),
    }
}

fn stage(stage: Stage) -> api::Stage {
    let Stage {
        module,
        config,
        grants,
    } = stage;
    let config = config.into_iter().map(|(name, setting)| (name, json(setting)));
    api::Stage {
        module,
        config: config.collect(),
        grants: grants.iter().filter_map(grant).collect(),
    }
}

/// Returns the JSON of a setting, whose kind is the module's affair.
pub(crate) fn json(setting: impl Serialize) -> serde_json::Value {
    serde_json::to_value(setting).unwrap_or_default()
}

/// Returns a grant by its name: the type is private to its crate.
fn grant(grant: impl Serialize) -> Option<api::Grant> {
    api::Grant::deserialize(json(grant)).ok()
}

fn on_error(handling: OnError) -> api::OnError {
    let OnError {
        policy,
        topic,
        attempts,
    } = handling;
    let policy = policy.map(|policy| match policy {
        Policy::DeadLetter => api::Policy::DeadLetter,
        Policy::Halt => api::Policy::Halt,
        Policy::Skip => api::Policy::Skip,
    });
    api::OnError {
        policy,
        topic: topic.map(|name| name.to_string()),
        attempts,
    }
}

fn event_time(times: EventTime) -> api::EventTime {
    let EventTime {
        field,
        unit,
        on_bad_time,
        lateness_ms,
        idle_ms,
        future_ms,
        future,
    } = times;
    let unit = unit.map(|unit| match unit {
        TimeUnit::S => api::TimeUnit::S,
        TimeUnit::Ms => api::TimeUnit::Ms,
        TimeUnit::Us => api::TimeUnit::Us,
        TimeUnit::Ns => api::TimeUnit::Ns,
    });
    api::EventTime {
        field,
        unit,
        on_bad_time: match on_bad_time {
            OnBadTime::DeadLetter => api::OnBadTime::DeadLetter,
            OnBadTime::Now => api::OnBadTime::Now,
            OnBadTime::Record => api::OnBadTime::Record,
        },
        lateness_ms,
        idle_ms,
        future_ms,
        future: match future {
            Future::Redate => api::Future::Redate,
            Future::Keep => api::Future::Keep,
        },
    }
}

fn guard(bounds: Guard) -> api::Guard {
    let Guard {
        watch_s,
        min_records,
        failed_max,
        ns_max,
        output,
    } = bounds;
    api::Guard {
        watch_s,
        min_records,
        failed_max,
        ns_max,
        output,
    }
}

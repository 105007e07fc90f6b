//! Shadow runs.

use crate::services::Services;
use std::time::Duration;
use weir_api as api;
use weir_pipeline::{ApplyError, Example, Origin, Shadowed, Side, Told};

impl Services {
    /// Runs a pipeline in TOML over the records of its sources from `from` on, and over those that come
    /// within `wait`. Nothing is written. `progress` is called with the number of records read, and ends the
    /// run by returning false.
    ///
    /// # Errors
    /// When the text is no pipeline, or its sources cannot be read.
    ///
    /// # Cancel safety
    /// Safe: nothing is written. The run goes on until `progress` ends it.
    pub async fn shadow_pipeline(
        &self,
        toml: &str,
        from: Origin,
        wait: Duration,
        progress: impl FnMut(u64) -> bool + Send + 'static,
    ) -> Result<api::Shadow, ApplyError> {
        self.pipelines
            .shadow(toml, from, wait, progress)
            .await
            .map(shadow)
    }
}

fn shadow(shadowed: Shadowed) -> api::Shadow {
    let Shadowed {
        name,
        seconds,
        candidate,
        live,
        differences,
        examples,
        timers_differ,
    } = shadowed;
    api::Shadow {
        name,
        seconds,
        candidate: side(candidate),
        live: live.map(side),
        differences,
        examples: examples.into_iter().map(example).collect(),
        timers_differ,
    }
}

fn side(side: Side) -> api::ShadowSide {
    let Side {
        revision,
        records,
        kept,
        dropped,
        emitted,
        routed,
        dead_letters,
        skipped,
        failures,
        timers_fired,
        wasm_ns,
        halted,
    } = side;
    api::ShadowSide {
        revision,
        records,
        kept,
        dropped,
        emitted,
        routed,
        dead_letters,
        skipped,
        failures,
        timers_fired,
        wasm_ns,
        halted,
    }
}

fn example(example: Example) -> api::ShadowExample {
    let Example {
        topic,
        partition,
        offset,
        live,
        candidate,
    } = example;
    api::ShadowExample {
        topic,
        partition,
        offset: offset.get(),
        live: live.into_iter().map(record).collect(),
        candidate: candidate.into_iter().map(record).collect(),
    }
}

fn record(told: Told) -> api::ShadowRecord {
    let Told { output, key, value } = told;
    api::ShadowRecord { output, key, value }
}

//! The configuration of wasmtime, the same for compiling and for running.

use std::time::Duration;
use wasmtime::{Config, Engine};

/// Interval of epochs while a guest runs: the grain of deadlines.
pub(crate) const TICK: Duration = Duration::from_millis(5);
/// Bytes of a guest's stack: CPython needs most of a megabyte.
const GUEST_STACK_BYTES: usize = 1 << 20;

/// Makes an engine with the settings that native code is compiled for, also in a child process.
pub(crate) fn engine() -> wasmtime::Result<Engine> {
    let mut config = Config::new();
    config
        .wasm_component_model(true)
        // Saves half a microsecond per call; no guest uses the feature.
        .concurrency_support(false)
        .epoch_interruption(true)
        // The same batch gives the same bytes on every node.
        .cranelift_nan_canonicalization(true)
        .wasm_relaxed_simd(false)
        .max_wasm_stack(GUEST_STACK_BYTES);
    Engine::new(&config)
}

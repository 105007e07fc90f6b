//! How wasmtime is set up: the same for whoever compiles and whoever runs.

use std::time::Duration;
use wasmtime::{Config, Engine};

/// How often epochs pass while a guest runs: the grain of deadlines.
pub(crate) const TICK: Duration = Duration::from_millis(5);
/// Stack of a guest: CPython needs most of a megabyte.
const GUEST_STACK_BYTES: usize = 1 << 20;

/// The settings that native code is compiled for; a child process uses the same.
pub(crate) fn engine() -> wasmtime::Result<Engine> {
    let mut config = Config::new();
    config
        .wasm_component_model(true)
        // Half a microsecond a call, for a feature that no guest of ours uses.
        .concurrency_support(false)
        .epoch_interruption(true)
        // The same batch gives the same bytes on every node.
        .cranelift_nan_canonicalization(true)
        .wasm_relaxed_simd(false)
        .max_wasm_stack(GUEST_STACK_BYTES);
    Engine::new(&config)
}

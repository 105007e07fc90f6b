//! Where cargo builds the binary, the modules and the test guests.

use std::path::{Path, PathBuf};

/// The repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .map(Path::to_owned)
        .unwrap_or_default()
}

/// Where cargo builds.
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// The binary, as `cargo verify` builds it.
pub fn weir() -> PathBuf {
    target().join("debug/weir")
}

/// A ready-made module, as cargo builds it.
///
/// # Panics
/// When it was not built.
pub fn module(name: &str) -> Vec<u8> {
    built(target().join(format!(
        "wasm32-unknown-unknown/release/weir_module_{}.wasm",
        name.replace('-', "_")
    )))
}

/// A guest of `tests/guests`.
///
/// # Panics
/// When it was not built.
pub fn guest(name: &str) -> Vec<u8> {
    built(target().join(format!("guests/wasm32-unknown-unknown/release/{name}.wasm")))
}

/// The component of a test guest that was built for `wasm32-wasip2`.
///
/// # Panics
/// When it was not built.
pub fn guest_with_wasi(name: &str) -> Vec<u8> {
    built(target().join(format!("guests/wasm32-wasip2/release/{name}.wasm")))
}

fn built(path: PathBuf) -> Vec<u8> {
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}; `cargo verify` builds it", path.display()))
}

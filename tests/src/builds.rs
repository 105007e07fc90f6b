//! Paths of the binary, the modules and the test guests that cargo builds.

use std::path::{Path, PathBuf};

/// The repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .map(Path::to_owned)
        .unwrap_or_default()
}

/// Returns cargo's target directory.
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// Returns the path of the binary that `cargo verify` builds.
pub fn weir() -> PathBuf {
    target().join("debug/weir")
}

/// Returns a ready-made module.
///
/// # Panics
/// When cargo has not built the module.
pub fn module(name: &str) -> Vec<u8> {
    built(target().join(format!(
        "wasm32-unknown-unknown/release/weir_module_{}.wasm",
        name.replace('-', "_")
    )))
}

/// Returns a guest of `tests/guests`.
///
/// # Panics
/// When cargo has not built the guest.
pub fn guest(name: &str) -> Vec<u8> {
    built(target().join(format!("guests/wasm32-unknown-unknown/release/{name}.wasm")))
}

/// Returns the component of a test guest that was built for `wasm32-wasip2`.
///
/// # Panics
/// When cargo has not built the guest.
pub fn guest_with_wasi(name: &str) -> Vec<u8> {
    built(target().join(format!("guests/wasm32-wasip2/release/{name}.wasm")))
}

fn built(path: PathBuf) -> Vec<u8> {
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}; `cargo verify` builds it", path.display()))
}

//! From what `cargo build` gives to a component.

use crate::error::LoadError;
use std::borrow::Cow;
use wasmparser::{Parser, Validator};

/// Makes a component of a core module that was built with `weir-sdk` for `wasm32-unknown-unknown`: it carries its
/// world in a custom section. A component is returned as it is.
///
/// # Errors
/// When the bytes are neither.
pub fn componentize(bytes: &[u8]) -> Result<Cow<'_, [u8]>, LoadError> {
    if Parser::is_component(bytes) {
        return Ok(Cow::Borrowed(bytes));
    }
    let bad = |e: &dyn std::fmt::Display| LoadError::NotAComponent(format!("{e:#}"));
    if !Parser::is_core_wasm(bytes) {
        return Err(bad(&"it does not begin like WebAssembly"));
    }
    // The encoder takes for granted that sections end within the bytes: a file cut short made it panic.
    Validator::new().validate_all(bytes).map_err(|e| bad(&e))?;
    let encode = || {
        let encoder = wit_component::ComponentEncoder::default().module(bytes)?;
        encoder.validate(true).encode()
    };
    // What else it takes for granted is not ours to know.
    match std::panic::catch_unwind(encode) {
        Ok(component) => component.map(Cow::Owned).map_err(|e| bad(&e)),
        Err(_) => Err(bad(&"making a component of it failed: its metadata is damaged")),
    }
}

//! From the output of a compiler to a component.
//!
//! A core module names its world in a custom section, as `weir-sdk` does, or names none, as C does. A module
//! without a world gets the smallest world of the contract with all of its imports and exports.

use crate::error::LoadError;
use std::borrow::Cow;
use wasmparser::{Parser, Payload, Validator};
use wit_component::StringEncoding;
use wit_parser::{Resolve, SourceMap};

/// The contract.
const WIT: [(&str, &str); 9] = [
    ("log.wit", include_str!("../../../../../wit/log.wit")),
    ("metrics.wit", include_str!("../../../../../wit/metrics.wit")),
    ("state.wit", include_str!("../../../../../wit/state.wit")),
    ("timed.wit", include_str!("../../../../../wit/timed.wit")),
    ("timers.wit", include_str!("../../../../../wit/timers.wit")),
    ("transform.wit", include_str!("../../../../../wit/transform.wit")),
    ("types.wit", include_str!("../../../../../wit/types.wit")),
    ("upgrade.wit", include_str!("../../../../../wit/upgrade.wit")),
    ("world.wit", include_str!("../../../../../wit/world.wit")),
];

/// Names that show which world a module needs, the largest first.
const TELLING: [(&str, &str); 4] = [
    ("weir:module/upgrade@", "evolving"),
    ("weir:module/timed@", "with-timers"),
    ("weir:module/timers@", "with-timers"),
    ("weir:module/state@", "stateful"),
];

/// Makes a component of a core module built for `wasm32-unknown-unknown` or a similar target. Returns a
/// component unchanged.
///
/// # Errors
/// Fails when the bytes are neither.
pub fn componentize(bytes: &[u8]) -> Result<Cow<'_, [u8]>, LoadError> {
    if Parser::is_component(bytes) {
        return Ok(Cow::Borrowed(bytes));
    }
    let bad = |e: &dyn std::fmt::Display| LoadError::NotAComponent(format!("{e:#}"));
    if !Parser::is_core_wasm(bytes) {
        return Err(bad(&"it does not begin like WebAssembly"));
    }
    // The encoder assumes complete sections: a truncated file caused a panic.
    Validator::new().validate_all(bytes).map_err(|e| bad(&e))?;
    let bytes = with_world(bytes).map_err(|why| bad(&why))?;
    let encode = || {
        let encoder = wit_component::ComponentEncoder::default().module(&bytes)?;
        encoder.validate(true).encode()
    };
    // Other assumptions of the encoder are unknown.
    match std::panic::catch_unwind(encode) {
        Ok(component) => component.map(Cow::Owned).map_err(|e| bad(&e)),
        Err(_) => Err(bad(&"making a component of it failed: its metadata is damaged")),
    }
}
/// Adds a world to the valid `module`, if there is none.
fn with_world(module: &[u8]) -> Result<Cow<'_, [u8]>, String> {
    let mut names = Vec::new();
    for payload in Parser::new(0).parse_all(module) {
        match payload.map_err(|e| e.to_string())? {
            Payload::CustomSection(section) if section.name().starts_with("component-type") => {
                return Ok(Cow::Borrowed(module));
            }
            Payload::ImportSection(imports) => {
                for import in imports.into_imports() {
                    names.push(import.map_err(|e| e.to_string())?.module);
                }
            }
            Payload::ExportSection(exports) => {
                for export in exports {
                    names.push(export.map_err(|e| e.to_string())?.name);
                }
            }
            _ => {}
        }
    }
    if !names
        .iter()
        .any(|name| name.starts_with("weir:module/transform@"))
    {
        let why = "it says no world, and exports nothing of `weir:module/transform`: a module for Weir exports its functions";
        return Err(why.to_owned());
    }
    let needs = |telling: &str| names.iter().any(|name| name.starts_with(telling));
    let world = TELLING.iter().find(|(telling, _)| needs(telling));
    let world = world.map_or("plain", |(_, world)| *world);
    let mut sources = SourceMap::default();
    WIT.iter().for_each(|(path, text)| sources.push_str(path, *text));
    let unread = |e: &dyn std::fmt::Display| format!("the contract cannot be read: {e}");
    let parsed = sources.parse().map_err(|(_, e)| unread(&e))?;
    let mut resolve = Resolve::default();
    let package = resolve.push_group(parsed).map_err(|e| unread(&e))?;
    let world = resolve
        .select_world(&[package], Some(world))
        .map_err(|e| unread(&e))?;
    let mut whole = module.to_vec();
    wit_component::embed_component_metadata(&mut whole, &resolve, world, StringEncoding::UTF8)
        .map_err(|e| unread(&e))?;
    Ok(Cow::Owned(whole))
}

//! The one place where the contract becomes Rust: generated from `wit/`.
#![allow(unsafe_code, missing_docs, unreachable_pub, clippy::all, reason = "generated")]

wasmtime::component::bindgen!({
    path: "../../../wit",
    world: "plain",
    ownership: Borrowing { duplicate_if_necessary: true },
    imports: { default: trappable },
});

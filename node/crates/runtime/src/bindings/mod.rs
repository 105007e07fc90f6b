//! Rust bindings of the contract, generated from `wit/`.
#![allow(unsafe_code, missing_docs, unreachable_pub, clippy::all, reason = "generated")]

pub(crate) mod resources;

wasmtime::component::bindgen!({
    path: "../../../wit",
    world: "evolving",
    ownership: Borrowing { duplicate_if_necessary: true },
    imports: { default: trappable },
});

/// The virtual WASI; not part of the contract.
pub(crate) mod wasi_virtual {
    wasmtime::component::bindgen!({
        path: "wasi",
        world: "virtual",
        imports: { default: trappable },
        with: {
            "wasi:io/error.error": crate::bindings::resources::Nothing,
            "wasi:io/poll.pollable": crate::bindings::resources::Pollable,
            "wasi:io/streams.input-stream": crate::bindings::resources::InputStream,
            "wasi:io/streams.output-stream": crate::bindings::resources::OutputStream,
            "wasi:cli/terminal-input.terminal-input": crate::bindings::resources::Nothing,
            "wasi:cli/terminal-output.terminal-output": crate::bindings::resources::Nothing,
        },
    });
}

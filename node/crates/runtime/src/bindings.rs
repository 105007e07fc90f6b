//! The one place where the contract becomes Rust: generated from `wit/`.
#![allow(unsafe_code, missing_docs, unreachable_pub, clippy::all, reason = "generated")]

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
            "wasi:io/error.error": crate::host::wasi::resources::Nothing,
            "wasi:io/poll.pollable": crate::host::wasi::resources::Pollable,
            "wasi:io/streams.input-stream": crate::host::wasi::resources::InputStream,
            "wasi:io/streams.output-stream": crate::host::wasi::resources::OutputStream,
            "wasi:cli/terminal-input.terminal-input": crate::host::wasi::resources::Nothing,
            "wasi:cli/terminal-output.terminal-output": crate::host::wasi::resources::Nothing,
        },
    });
}

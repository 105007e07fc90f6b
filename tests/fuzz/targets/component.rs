#![no_main]

// An uploaded module, up to its compilation in a process of its own.
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Ok(component) = weir_runtime::componentize(data) else { return };
    let _ = weir_runtime::inspect(&component);
});

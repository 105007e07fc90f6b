#![no_main]

// What is uploaded as a module, up to the point where it would be compiled in a process of its own.
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Ok(component) = weir_runtime::componentize(data) else { return };
    let _ = weir_runtime::inspect(&component);
});

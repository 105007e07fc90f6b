#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = weir_runtime::inspect(data);
    if let Ok(component) = weir_runtime::componentize(data) {
        let _ = weir_runtime::inspect(&component);
    }
});

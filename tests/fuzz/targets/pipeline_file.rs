#![no_main]

use weir_pipeline::Spec;

// A pipeline's file. What is taken must be taken again as it is stored.
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(spec) = Spec::parse(text) else { return };
    let _ = spec.dead_letters();
    let stored = serde_json::to_string(&spec).unwrap();
    let again: Spec = serde_json::from_str(&stored).unwrap();
    assert_eq!(serde_json::to_string(&again).unwrap(), stored);
});

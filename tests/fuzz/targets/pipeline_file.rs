#![no_main]

use weir_pipeline::Spec;

// A pipeline file. An accepted file must be accepted again in its stored form.
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(spec) = Spec::parse(text) else { return };
    let _ = spec.dead_letters();
    let stored = serde_json::to_string(&spec).unwrap();
    let again: Spec = serde_json::from_str(&stored).unwrap();
    assert_eq!(serde_json::to_string(&again).unwrap(), stored);
});

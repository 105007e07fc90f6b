#![no_main]

use weir_sdk::{Json, Path};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let json = Json::new(data);
    let found = json.get("ab");
    assert_eq!(found.text(), json.at(&Path::new("ab")).text());
    if let (Some(text), Some(at)) = (found.text(), found.offset_in(data)) {
        assert_eq!(&data[at..at + text.len()], text);
    }
    let _ = (found.number(), found.string(), found.boolean(), json.get("ab.c").number(), json.fields().count());
});

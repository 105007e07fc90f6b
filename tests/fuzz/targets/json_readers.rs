#![no_main]

#[path = "../../it/modules/json_readers/agree.rs"]
mod agree;

libfuzzer_sys::fuzz_target!(|data: &[u8]| agree::agree(data));

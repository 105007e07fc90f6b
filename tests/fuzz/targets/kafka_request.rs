#![no_main]

use bytes::Bytes;

// Two bytes select the request and its version, the rest is its body. A decoded request must be the same
// after an encoding and a second decoding: a field of another version would show here.
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let [key, version, body @ ..] = data else { return };
    let (key, version) = (i16::from(*key % 75), i16::from(*version % 16));
    let Some(Ok(written)) = weir_kafka::round_trip(key, version, Bytes::copy_from_slice(body)) else { return };
    let again = weir_kafka::round_trip(key, version, Bytes::from(written.clone())).unwrap().unwrap();
    assert_eq!(again, written);
});

#![no_main]

#[path = "peak.rs"]
mod peak;

use bytes::Bytes;

// A stream of a connection: frames with their lengths, headers and bodies. The memory of a frame is bounded
// by its received bytes, whatever its length announces.
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let stream = Bytes::copy_from_slice(data);
    let (requests, held) = peak::peak(|| weir_kafka::requests(stream));
    assert!(held <= 4 * data.len() + (1 << 20), "{held} bytes held for {}", data.len());
    for (key, version, body) in requests {
        let len = body.len();
        let (_, held) = peak::peak(|| weir_kafka::round_trip(key, version, body));
        // Read, and written again.
        assert!(held <= 5 * len + (1 << 20), "request {key} version {version}: {held} bytes held for {len}");
    }
});

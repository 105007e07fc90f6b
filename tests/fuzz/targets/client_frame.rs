#![no_main]

#[path = "peak.rs"]
mod peak;

use bytes::Bytes;
use weir_peer::Frame;
use weir_peer::protocol::{Hello, Reply, Request, Welcome};

// The first byte selects the message, the rest is a frame behind its length. A decoded message must be the
// same after an encoding and a second decoding.
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((&choice, rest)) = data.split_first() else { return };
    match choice % 4 {
        0 => check::<Request>(rest),
        1 => check::<Reply>(rest),
        2 => check::<Hello>(rest),
        _ => check::<Welcome>(rest),
    }
});

fn check<T: serde::Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug>(bytes: &[u8]) {
    let frame = Bytes::copy_from_slice(bytes);
    let (frame, held) = peak::peak(|| Frame::<T>::parse(frame));
    assert!(held <= 16 * bytes.len() + (1 << 20), "{held} bytes held for {}", bytes.len());
    let Ok(frame) = frame else { return };
    let head = postcard::to_allocvec(&frame.head).unwrap();
    let again = [&(head.len() as u32).to_be_bytes()[..], &head, &frame.payload].concat();
    let again = Frame::<T>::parse(Bytes::from(again)).unwrap();
    // Through the bytes: not a number is not equal to itself.
    assert_eq!(postcard::to_allocvec(&again.head).unwrap(), head);
    assert_eq!(again.payload, frame.payload);
}

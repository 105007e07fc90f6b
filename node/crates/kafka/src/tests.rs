//! The codec compared with another implementation, and fed with malicious bytes.

use crate::api;
use crate::round_trip;
use crate::wire::{Dice, WireError};
use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::{ApiKey, RequestKind, ResponseKind};
use proptest::prelude::*;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// Counts the allocations of this thread.
struct Counting;

thread_local! {
    static HELD: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<usize> = const { Cell::new(0) };
}

#[expect(unsafe_code, reason = "SAFETY: hands everything to the system's allocator")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = HELD.try_with(|held| {
            held.set(held.get() + layout.size());
            let _ = PEAK.try_with(|peak| peak.set(peak.get().max(held.get())));
        });
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        let _ = HELD.try_with(|held| held.set(held.get().saturating_sub(layout.size())));
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Returns the result of `work` and the peak of bytes allocated during it.
fn peak<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = HELD.get();
    PEAK.set(before);
    let result = work();
    (result, PEAK.get() - before)
}

#[test]
fn every_message_of_every_version_is_what_the_other_implementation_reads_and_writes() {
    let mut compared = 0;
    for seed in 0..20 {
        for (key, version, request, response) in api::samples(&mut Dice(seed)) {
            let api_key = ApiKey::try_from(key).unwrap();
            let theirs = api_key.valid_versions();
            // The other implementation has dropped the oldest versions.
            if version < theirs.min || version > theirs.max {
                continue;
            }
            let at = format!("{api_key:?} version {version}");
            // For version 10 of OffsetCommit and OffsetFetch, the other implementation has the answers but
            // not the requests.
            if !matches!((key, version), (8 | 9, 10)) {
                let mut bytes = Bytes::from(request.clone());
                let read =
                    RequestKind::decode(api_key, &mut bytes, version).unwrap_or_else(|e| panic!("{at}: {e}"));
                assert!(
                    bytes.is_empty(),
                    "{at}: {} bytes of the request left",
                    bytes.len()
                );
                let mut written = BytesMut::new();
                read.encode(&mut written, version).unwrap();
                assert_eq!(written, request, "{at}, request");
            }
            let again = round_trip(key, version, Bytes::from(request.clone()))
                .unwrap()
                .unwrap();
            assert_eq!(again, request, "{at}, read by us");

            let mut bytes = Bytes::from(response.clone());
            let read =
                ResponseKind::decode(api_key, &mut bytes, version).unwrap_or_else(|e| panic!("{at}: {e}"));
            assert!(
                bytes.is_empty(),
                "{at}: {} bytes of the response left",
                bytes.len()
            );
            let mut written = BytesMut::new();
            read.encode(&mut written, version).unwrap();
            assert_eq!(written, response, "{at}, response");
            compared += 1;
        }
    }
    assert!(compared > 20 * 110, "{compared}");
}

/// The page of served requests lists exactly the versions of the dispatch table.
#[test]
fn the_page_of_what_is_served_is_the_table_that_answers() {
    let page = include_str!("../../../docs/kafka.md");
    let rows = page
        .lines()
        .filter(|line| line.starts_with("| ") && line.contains("–"));
    let told: Vec<String> = rows
        .map(|row| row.split(" | ").take(2).collect::<Vec<_>>().join(" | "))
        .collect();
    let row = |(key, versions): (i16, std::ops::RangeInclusive<i16>)| {
        format!(
            "| {} ({key}) | {}–{}",
            api::name(key),
            versions.start(),
            versions.end()
        )
    };
    let served: Vec<String> = api::versions().into_iter().map(row).collect();
    assert_eq!(
        told,
        served,
        "put these into node/docs/kafka.md:\n{}",
        served.join("\n")
    );
}

#[test]
fn a_count_is_not_believed() {
    let huge: [(i16, i16, &[u8]); 4] = [
        (3, 1, &[0x7f, 0xff, 0xff, 0xff]),
        (0, 3, &[0xff, 0xff, 0, 1, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff]),
        (3, 12, &[0xff, 0xff, 0xff, 0xff, 0x0f]),
        (
            11,
            0,
            &[0, 1, b'g', 0, 0, 0, 1, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff],
        ),
    ];
    for (key, version, body) in huge {
        let body = Bytes::from_static(body);
        let (result, peak) = peak(|| round_trip(key, version, body).unwrap());
        assert!(
            matches!(result, Err(WireError::Count(_) | WireError::Short)),
            "{key} {version}: {result:?}"
        );
        assert!(peak < 64 << 10, "{key} {version}: {peak}");
    }
    // Many items of a byte each that take a hundred bytes in memory.
    let mut body = vec![0x81, 0x80, 0x40];
    body.resize(1 << 20, 1);
    let (result, peak) = peak(|| round_trip(42, 2, Bytes::from(body.clone())).unwrap());
    assert!(peak <= 4 * body.len() + (1 << 20), "{result:?} {peak}");
}

#[test]
fn a_request_names_only_so_many_things() {
    let partitions = |n: i32| {
        let mut body = vec![0xff; 4];
        body.extend([0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 1, b't']);
        body.extend(n.to_be_bytes());
        body.resize(body.len() + n as usize * 16, 0);
        round_trip(1, 4, Bytes::from(body)).unwrap()
    };
    assert!(partitions(90_000).is_ok());
    assert_eq!(partitions(110_000), Err(WireError::Items));
}

fn keys() -> Vec<(i16, i16)> {
    api::versions()
        .into_iter()
        .flat_map(|(key, versions)| versions.map(move |v| (key, v)))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn bytes_that_mean_harm_cost_little(pick in any::<usize>(), seed in any::<u64>(), flips in prop::collection::vec((any::<usize>(), any::<u8>()), 0..8), cut in any::<usize>()) {
        let keys = keys();
        let (key, version) = keys[pick % keys.len()];
        let samples = api::samples(&mut Dice(seed));
        let Some((.., request, _)) = samples.into_iter().find(|(k, v, ..)| (*k, *v) == (key, version)) else {
            return Ok(());
        };
        let mut bytes = request;
        for (at, byte) in flips {
            let at = at % bytes.len().max(1);
            if let Some(slot) = bytes.get_mut(at) {
                *slot = byte;
            }
        }
        if cut % 3 == 0 {
            bytes.truncate(cut % (bytes.len() + 1));
        }
        let len = bytes.len();
        let bytes = Bytes::from(bytes);
        let (_, peak) = peak(|| round_trip(key, version, bytes));
        prop_assert!(peak <= 4 * len + (1 << 20), "{} bytes for {}", peak, len);
    }
}

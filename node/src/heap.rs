//! Memory that is free goes back to the system: a burst must not keep a gateway large for days.
//!
//! The GNU C library (`malloc/malloc.c`) raises the size from which an allocation is a mapping of its own to that of the largest that was
//! freed, 32 MiB at most. Buffers of some megabytes then lie between small objects, and their pages stay.

use std::time::Duration;
use weir_broker::Broker;

/// Allocations from here on are mappings of their own, which end when they are freed: larger than what a steady load allocates, smaller
/// than what a few slow clients make a node hold.
#[cfg(target_env = "gnu")]
const MAPPED_BYTES: i32 = 1 << 20;
/// How often it is looked whether there was a burst.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Bytes in the node's shares that make a burst of a load.
const BURST_BYTES: u64 = 8 << 20;

/// Keeps large allocations apart from small ones. Before anything is allocated that is large.
#[cfg_attr(
    target_env = "gnu",
    expect(unsafe_code, reason = "the C library's settings have no safe form")
)]
pub(crate) fn keep_large_apart() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it sets a number that the allocator reads under its own locks; other threads may allocate meanwhile.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_BYTES);
    }
}

/// Gives back what a burst of requests or answers leaves behind, once it is over.
pub(crate) async fn give_back(broker: Broker) {
    let mut was_large = false;
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let is_large = broker.ledger().most_memory_used() >= BURST_BYTES;
        if was_large && !is_large {
            let _ = tokio::task::spawn_blocking(trim).await;
        }
        was_large = is_large;
    }
}

#[cfg_attr(
    target_env = "gnu",
    expect(unsafe_code, reason = "the C library's call has no safe form")
)]
fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes the allocator's own locks, and frees nothing that is in use.
    unsafe {
        libc::malloc_trim(0);
    }
}

//! Returns free memory to the operating system: a burst must not keep a gateway's process large for days.
//!
//! The GNU C library (`malloc/malloc.c`) raises the size from which an allocation gets its own mapping to the
//! largest size freed, at most 32 MiB. Buffers of a few megabytes then lie between small objects, and their
//! pages stay.

use std::time::Duration;
use weir_broker::Broker;

/// Size in bytes from which an allocation gets its own mapping, which ends when the allocation is freed.
/// Larger than the allocations of a steady load, smaller than the buffers for a few slow clients.
#[cfg(target_env = "gnu")]
const MAPPED_BYTES: i32 = 1 << 20;
/// Interval of checks for a burst.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Bytes in the node's memory ledger that count as a burst.
const BURST_BYTES: u64 = 8 << 20;

/// Keeps large allocations apart from small allocations. Call before any large allocation.
#[cfg_attr(
    target_env = "gnu",
    expect(unsafe_code, reason = "the C library's settings have no safe form")
)]
pub(crate) fn keep_large_apart() {
    #[cfg(target_env = "gnu")]
    // SAFETY: sets a number that the allocator reads under its own locks; other threads may allocate
    // meanwhile.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_BYTES);
    }
}

/// Returns the memory of a burst of requests or answers to the system once the burst is over.
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
    // SAFETY: takes the allocator's own locks, and frees no memory in use.
    unsafe {
        libc::malloc_trim(0);
    }
}

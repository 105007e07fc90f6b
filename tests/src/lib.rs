//! The harness of the end-to-end tests: nodes as processes, sites, load, faults, and the command line.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod builds;
pub mod cli;
pub mod counting;
pub mod disk;
pub mod eventually;
pub mod http;
pub mod kafka;
pub mod load;
pub mod netns;
mod node;
pub mod records;
pub mod replica_groups;
pub mod site;

pub use builds::{guest, guest_with_wasi, module, root, target, weir};
pub use eventually::{eventually, eventually_async, within};
pub use node::Node;
pub use records::{for_ever, read_all};

use std::time::Duration;

/// Longest wait for anything: a slow machine is not a failed test.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Free disk space that nodes keep unless the test says otherwise: little, so that the tests run on a machine
/// whose disk is nearly full. With a share of the disk, each node would refuse records there.
pub const RESERVE_BYTES: &str = "16777216";

/// Rounds of a repeated test: few in CI, many by hand.
pub fn rounds(variable: &str, few: u32) -> u32 {
    std::env::var(variable)
        .ok()
        .and_then(|v| v.parse().ok())
        .unwrap_or(few)
}

/// Runs a future on a runtime of its own.
///
/// # Panics
/// When no runtime can be made.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build();
    runtime
        .unwrap_or_else(|e| panic!("no runtime: {e}"))
        .block_on(future)
}

//! End-to-end tests in one binary, so that linking happens once. Each file says what it is about.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod attacks;
mod batches;
mod chaos;
mod cluster;
mod crash;
mod decoders;
mod disk;
mod groups;
mod hostile;
mod kafka;
mod layers;
mod modules;
mod netns;
mod new;
mod openapi;
mod pages;
mod power;
mod readers;
mod releases;
mod repair;
mod rewriting;
mod state;
mod tools;
mod tour;
mod wire;

/// Rounds of a repeated test: few in CI, many by hand.
fn rounds(variable: &str, few: u32) -> u32 {
    std::env::var(variable)
        .ok()
        .and_then(|v| v.parse().ok())
        .unwrap_or(few)
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build();
    runtime
        .unwrap_or_else(|e| panic!("no runtime: {e}"))
        .block_on(future)
}

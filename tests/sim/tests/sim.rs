//! The short form of the simulation; `cargo run -p weir-sim -- --seeds 10000` is the long form.

use std::process::Command;

fn sim(args: &[&str]) {
    let status = Command::new(env!("CARGO_BIN_EXE_weir-sim")).args(args).status();
    assert!(
        status.is_ok_and(|s| s.success()),
        "weir-sim {} failed",
        args.join(" ")
    );
}

/// A single test, since each run takes all cores.
#[test]
fn sites_keep_their_promises_by_seed_and_planted_bugs_are_found() {
    // A seed gives the same run twice, to the last byte.
    sim(&["--seeds", "5", "--first", "1001", "--twice"]);
    sim(&["--bugs"]);
    let seeds = std::env::var("WEIR_SIM_SEEDS").unwrap_or_else(|_| "300".to_owned());
    sim(&["--seeds", &seeds]);
}

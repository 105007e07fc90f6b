//! Sites of several nodes: they grow, lose their leader, lose power, and nothing acknowledged is lost.
//!
//! Few rounds in CI; by hand `WEIR_SITE_KILLS=50`, `WEIR_SITE_CUTS=300`.

use std::sync::atomic::Ordering;
use std::time::Duration;
use weir_tests::load::{judged, loaded, more_than, under_load};
use weir_tests::site::Site;
use weir_tests::{block_on, rounds};

#[test]
fn killed_leaders_lose_no_acknowledged_record() {
    let dir = tempfile::tempdir().unwrap();
    let mut site = Site::of_three(dir.path(), &[]).unwrap();
    let mut load = block_on(async { loaded(&site.client().await.unwrap()).await });
    let mut pauses = Vec::new();
    for round in 0..rounds("WEIR_SITE_KILLS", 3) {
        let (victim, pause) = under_load(&site.seeds(), &mut load, |count| {
            block_on(more_than(count, 100 + u64::from(round) * 37 % 300));
            let victim = site.leader().unwrap();
            site.kill(victim).unwrap();
            let so_far = count.load(Ordering::Relaxed);
            block_on(more_than(count, so_far + 100));
            victim
        });
        pauses.push(pause);
        site.start(victim).unwrap();
        site.until_in_step().unwrap();
    }
    let wrong = judged(&site, &mut load, &[1, 2, 3]);
    assert!(wrong.is_empty(), "{wrong:?}");
    println!(
        "{} leaders killed, {} records acknowledged, none lost, none doubled; pauses {pauses:?}",
        pauses.len(),
        load.acknowledged
    );
}

#[test]
fn frozen_leader_costs_no_record() {
    let dir = tempfile::tempdir().unwrap();
    let site = Site::of_three(dir.path(), &[]).unwrap();
    let mut load = block_on(async { loaded(&site.client().await.unwrap()).await });
    let before = site.status().unwrap();
    let leader = site.leader().unwrap();
    site.node(leader).unwrap().freeze().unwrap();
    std::thread::sleep(Duration::from_millis(100));
    site.node(leader).unwrap().thaw().unwrap();
    let after = site.status().unwrap();
    assert_eq!(
        (&before["term"], &before["node"]),
        (&after["term"], &after["node"])
    );
    // Long enough for an election; the old leader must acknowledge nothing meanwhile.
    under_load(&site.seeds(), &mut load, |count| {
        block_on(more_than(count, 100));
        site.node(leader).unwrap().freeze().unwrap();
        let so_far = count.load(Ordering::Relaxed);
        block_on(more_than(count, so_far + 100));
        site.node(leader).unwrap().thaw().unwrap();
        let so_far = count.load(Ordering::Relaxed);
        block_on(more_than(count, so_far + 100));
    });
    site.until_in_step().unwrap();
    let wrong = judged(&site, &mut load, &[1, 2, 3]);
    assert!(wrong.is_empty(), "{wrong:?}");
}

/// After a transfer request, a leader appends nothing more in its term, even if no node takes over.
#[test]
fn transfer_to_a_frozen_node_ends_and_the_leader_continues() {
    let dir = tempfile::tempdir().unwrap();
    let site = Site::of_three(dir.path(), &[]).unwrap();
    let mut load = block_on(async { loaded(&site.client().await.unwrap()).await });
    let leader = site.leader().unwrap();
    let frozen = leader % 3 + 1;
    site.node(frozen).unwrap().freeze().unwrap();
    under_load(&site.seeds(), &mut load, |count| {
        block_on(more_than(count, 100));
        // The command succeeds once the transfer is requested.
        let _ = site.cli(&["cluster", "transfer", &frozen.to_string()]);
        let so_far = count.load(Ordering::Relaxed);
        block_on(more_than(count, so_far + 100));
    });
    site.node(frozen).unwrap().thaw().unwrap();
    site.until_in_step().unwrap();
    let wrong = judged(&site, &mut load, &[1, 2, 3]);
    assert!(wrong.is_empty(), "{wrong:?}");
}

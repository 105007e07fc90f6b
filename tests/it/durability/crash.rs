//! `kill -9` under load loses no acknowledged record and duplicates none. Few rounds in CI; by hand
//! `WEIR_KILL_ROUNDS=100`. `WEIR_HISTORIES=DIR` keeps the histories of clients, for `weir-check`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use weir_tests::load::{Load, litter, value_log, wait_for};
use weir_tests::records::stored;
use weir_tests::{Node, block_on, rounds};

#[test]
fn kill_loses_and_duplicates_no_acknowledged_record() {
    let dir = tempfile::tempdir().unwrap();
    let mut load = None;
    let mut total = 0;
    for round in 0..rounds("WEIR_KILL_ROUNDS", 8) {
        let node = Node::start(dir.path(), &value_log(round)).unwrap();
        block_on(async {
            let client = node.client().await.unwrap();
            if load.is_none() {
                client
                    .create_topic("t", 1, &weir_tests::for_ever())
                    .await
                    .unwrap();
                load = Some(Load::new(&client, "t").await);
            }
            let load: &mut Load = load.as_mut().unwrap();
            let wrong = load.judge(stored(&client, "t").await);
            assert!(wrong.is_empty(), "round {round}: {wrong:?}");
            let (stop, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
            let (killer_stop, killer_count) = (Arc::clone(&stop), Arc::clone(&count));
            let under_load = Arc::new(AtomicBool::new(false));
            let killing = Arc::clone(&under_load);
            let killed_client = client.clone();
            // Somewhere between two acknowledgements, another place each round.
            let killer = std::thread::spawn(move || {
                let want = 50 + u64::from(round) * 37 % 900;
                wait_for(|| killer_count.load(Ordering::Relaxed) >= want);
                killing.store(killer_count.load(Ordering::Relaxed) >= want, Ordering::Relaxed);
                node.kill().unwrap();
                killer_stop.store(true, Ordering::Relaxed);
                // The node is gone without a word; the test need not wait until the connection notices.
                killed_client.disconnect();
            });
            let litter = async {
                if round % 4 >= 2 {
                    litter(&client, round, &stop).await;
                }
            };
            tokio::join!(load.run(&client, &stop, &count), litter);
            killer.join().unwrap();
            assert!(
                under_load.load(Ordering::Relaxed),
                "round {round}: the load ended before the node was killed"
            );
            total += count.load(Ordering::Relaxed);
        });
    }
    let node = Node::start(dir.path(), &[]).unwrap();
    block_on(async {
        let client = node.client().await.unwrap();
        let wrong = load.as_mut().unwrap().judge(stored(&client, "t").await);
        assert!(wrong.is_empty(), "{wrong:?}");
    });
    println!("{total} records acknowledged, none lost, none doubled");
    assert!(total > 0);
}

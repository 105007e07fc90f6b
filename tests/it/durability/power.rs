//! Power cuts: `EXT4_IOC_SHUTDOWN` on a loop-mounted ext4 discards everything that was not synced, as a cut
//! does. The same cut must cost a lazy topic something, or the test proves nothing. Few in CI, fifty by hand
//! with `WEIR_POWER_CUTS=50`. Skipped, with a line that says so, where mounting is not permitted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use weir_checkers::Violation;
use weir_tests::disk::Disk;
use weir_tests::load::{Load, litter, more_than, value_log, wait_for};
use weir_tests::records::stored;
use weir_tests::{Node, block_on, rounds};

#[test]
fn power_cuts_lose_records_of_lazy_topics_only() {
    let dir = tempfile::tempdir().unwrap();
    let Some(disk) = Disk::make(dir.path(), 512) else {
        println!("SKIPPED: loop mounts are not permitted here, so no power can be cut");
        return;
    };
    let data = disk.mount.join("data");
    let cuts = rounds("WEIR_POWER_CUTS", 4);
    let (mut sync_total, mut lazy_total, mut lazy_lost) = (0, 0, 0);
    for round in 0..cuts {
        // Topics of each round: losses of the lazy topic must not confuse the next round.
        let (sync_topic, lazy_topic): (&'static str, &'static str) =
            (format!("sync{round}").leak(), format!("lazy{round}").leak());
        let env = [
            &[("WEIR_DISK_RESERVE_BYTES", "1048576")][..],
            &value_log(round / 2),
        ]
        .concat();
        let node = Node::start_at(dir.path(), &data, &env).unwrap();
        let (mut sync, mut lazy) = block_on(async {
            let client = node.client().await.unwrap();
            client
                .create_topic(sync_topic, 1, &weir_tests::for_ever())
                .await
                .unwrap();
            client
                .create_topic(
                    lazy_topic,
                    1,
                    &[
                        ("durability".into(), "lazy".into()),
                        ("retention.ms".into(), "-1".into()),
                    ],
                )
                .await
                .unwrap();
            (
                Load::new(&client, sync_topic).await,
                Load::new(&client, lazy_topic).await,
            )
        });
        // In sequence, so that syncs of the first topic do not save the lazy topic, which is cut under load.
        block_on(async {
            let client = node.client().await.unwrap();
            let (stop, count) = (AtomicBool::new(false), AtomicU64::new(0));
            let enough = async {
                more_than(&count, 300 + u64::from(round) * 113 % 1_500).await;
                stop.store(true, Ordering::Relaxed);
            };
            tokio::join!(sync.run(&client, &stop, &count), enough);
        });
        let both = round % 2 == 1;
        let stop = Arc::new(AtomicBool::new(false));
        let (cutter_stop, count) = (Arc::clone(&stop), Arc::new(AtomicU64::new(0)));
        let cutter_count = Arc::clone(&count);
        block_on(async {
            let client = node.client().await.unwrap();
            let disk_ref = &disk;
            let cut_client = client.clone();
            std::thread::scope(|scope| {
                scope.spawn(move || {
                    let want = 200 + u64::from(round) * 71 % 700;
                    wait_for(|| cutter_count.load(Ordering::Relaxed) >= want);
                    node.freeze().unwrap();
                    assert!(disk_ref.cut(), "the ioctl is refused");
                    node.kill().unwrap();
                    cutter_stop.store(true, Ordering::Relaxed);
                    cut_client.disconnect();
                });
                tokio::task::block_in_place(|| {
                    tokio::runtime::Handle::current().block_on(async {
                        // In half of the rounds the synced topic is under load too when the power goes.
                        let quiet = AtomicU64::new(0);
                        if both {
                            tokio::join!(
                                lazy.run(&client, &stop, &count),
                                sync.run(&client, &stop, &quiet),
                                litter(&client, round, &stop),
                            );
                        } else {
                            lazy.run(&client, &stop, &count).await;
                        }
                    });
                });
            });
        });
        disk.detach();
        assert!(disk.attach(), "the file system does not mount after the cut");
        let node = Node::start_at(dir.path(), &data, &env).unwrap();
        block_on(async {
            let client = node.client().await.unwrap();
            let wrong = sync.judge(stored(&client, sync_topic).await);
            assert!(wrong.is_empty(), "round {round}: {wrong:?}");
            let wrong = lazy.judge(stored(&client, lazy_topic).await);
            let (lost, wrong): (Vec<_>, Vec<_>) = wrong
                .into_iter()
                .partition(|v| matches!(v, Violation::LostWrite { .. }));
            assert!(wrong.is_empty(), "round {round}: {wrong:?}");
            sync_total += sync.acknowledged;
            lazy_total += lazy.acknowledged;
            lazy_lost += lost.len();
        });
        node.stop().unwrap();
    }
    println!("{cuts} cuts: 0 of {sync_total} synced records lost, {lazy_lost} of {lazy_total} lazy ones");
    assert!(lazy_lost > 0, "a lazy topic lost nothing: the cuts do not cut");
}

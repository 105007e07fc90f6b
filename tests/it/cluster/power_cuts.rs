//! Power cuts of all nodes at once: no acknowledged record is lost. By hand `WEIR_SITE_CUTS=300`.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use weir_client::{Client, KnownNodes};
use weir_tests::disk::Disk;
use weir_tests::load::{judged, loaded, more_than};
use weir_tests::records::stored;
use weir_tests::site::Site;
use weir_tests::{block_on, rounds};

#[test]
fn power_cuts_of_all_nodes_lose_no_acknowledged_record() {
    let dir = tempfile::tempdir().unwrap();
    let mut disks = Vec::new();
    for number in 1..=3 {
        let dir = dir.path().join(number.to_string());
        std::fs::create_dir_all(&dir).unwrap();
        let Some(disk) = Disk::make(&dir, 256) else {
            println!("SKIPPED: loop mounts are not permitted here, so no power can be cut");
            return;
        };
        disks.push(disk);
    }
    let dirs: Vec<_> = disks.iter().map(|d| d.mount.clone()).collect();
    let env = [("WEIR_DISK_RESERVE_BYTES", "1048576")];
    let mut site = Site::found_at(&dirs[0], &env).unwrap();
    site.grow(&dirs[1]).unwrap();
    site.grow(&dirs[2]).unwrap();
    site.until_voters(3).unwrap();
    let mut load = block_on(async { loaded(&site.client().await.unwrap()).await });
    let cuts = rounds("WEIR_SITE_CUTS", 3);
    let mut back = Vec::new();
    for round in 0..cuts {
        let (stop, count) = (AtomicBool::new(false), AtomicU64::new(0));
        let seeds = site.seeds();
        std::thread::scope(|scope| {
            let (stop, count, load) = (&stop, &count, &mut load);
            let running = scope.spawn(move || {
                block_on(async {
                    let client = Client::connect_any(&seeds, &KnownNodes::forgetful(), "load")
                        .await
                        .unwrap();
                    let ended = async {
                        while !stop.load(Ordering::Relaxed) {
                            tokio::time::sleep(Duration::from_millis(2)).await;
                        }
                        // Nobody is left to ask.
                        client.disconnect();
                    };
                    tokio::join!(load.run(&client, stop, count), ended);
                })
            });
            block_on(more_than(count, 100 + u64::from(round) * 71 % 500));
            for number in 1..=3 {
                site.node(number).unwrap().freeze().unwrap();
            }
            for (number, disk) in disks.iter().enumerate() {
                assert!(disk.cut(), "the ioctl is refused");
                site.kill(number + 1).unwrap();
            }
            stop.store(true, Ordering::Relaxed);
            running.join().unwrap();
        });
        for disk in &disks {
            disk.detach();
            assert!(disk.attach(), "the file system does not mount after the cut");
        }
        let begun = Instant::now();
        for number in 1..=3 {
            site.start(number).unwrap();
        }
        site.status().unwrap();
        back.push(begun.elapsed());
        let records = block_on(async { stored(&site.client().await.unwrap(), "t").await });
        let wrong = load.judge(records);
        assert!(wrong.is_empty(), "round {round}: {wrong:?}\n{}", site.said());
    }
    site.until_in_step().unwrap();
    let wrong = judged(&site, &mut load, &[1, 2, 3]);
    assert!(wrong.is_empty(), "{wrong:?}");
    println!(
        "{cuts} power cuts of all nodes: 0 of {} records lost; back after {back:?}",
        load.acknowledged
    );
    for number in 1..=3 {
        site.stop(number).unwrap();
    }
}

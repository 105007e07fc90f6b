//! A node with a full disk in a site of three.

use std::path::Path;
use std::sync::atomic::Ordering;
use weir_tests::block_on;
use weir_tests::disk::Disk;
use weir_tests::load::{judged, loaded, more_than, under_load};
use weir_tests::site::Site;

/// Fills the disk to its last byte.
fn fill(path: &Path) {
    let mut file = std::fs::File::create(path).unwrap();
    std::io::copy(&mut std::io::repeat(1), &mut file).unwrap_err();
}

#[test]
fn node_with_a_full_disk_reports_lags_and_catches_up() {
    let dir = tempfile::tempdir().unwrap();
    let Some(disk) = Disk::make(dir.path(), 256) else {
        println!("SKIPPED: loop mounts are not permitted here, so no disk can be filled");
        return;
    };
    let env = [("WEIR_DISK_RESERVE_BYTES", "16777216")];
    let mut site = Site::found(dir.path(), &env).unwrap();
    let second = dir.path().join("second");
    site.grow(&second).unwrap();
    let third = site.grow(&disk.mount).unwrap();
    site.until_voters(3).unwrap();
    site.until_in_step().unwrap();
    let mut load = block_on(async { loaded(&site.client().await.unwrap()).await });
    let filler = disk.mount.join("filler");
    fill(&filler);
    under_load(&site.seeds(), &mut load, |count| {
        block_on(more_than(count, 100));
        site.until("the leader knows why a node lags", |s| {
            let members = s["members"].as_array().unwrap();
            let full = members.iter().find(|m| m["id"] == third).unwrap();
            full["lag"].as_u64() > Some(0)
                && full["refuses"]
                    .as_str()
                    .is_some_and(|w| w.contains("disk is nearly full"))
        })
        .unwrap();
        let table = site.cli(&["cluster", "status"]).unwrap();
        assert!(table.contains("takes nothing: disk is nearly full"), "{table}");
        assert!(table.contains("no further loss: 1 of 3 lost"), "{table}");
        assert!(
            site.node(third)
                .unwrap()
                .said()
                .contains("this node falls behind")
        );
        let so_far = count.load(Ordering::Relaxed);
        block_on(more_than(count, so_far + 100));
    });
    std::fs::remove_file(&filler).unwrap();
    site.until_in_step().unwrap();
    let table = site.cli(&["cluster", "status"]).unwrap();
    assert!(table.contains("the loss of 1 of 3"), "{table}");
    let wrong = judged(&site, &mut load, &[1, 2, 3]);
    assert!(wrong.is_empty(), "{wrong:?}");
    for number in 1..=3 {
        site.stop(number).unwrap();
    }
    disk.detach();
}

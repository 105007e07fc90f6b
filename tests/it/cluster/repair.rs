//! Sites that lost data: a damaged batch, a log, most of their nodes.

use std::path::Path;
use std::sync::atomic::Ordering;
use weir_tests::load::{judged, loaded, more_than, under_load};
use weir_tests::site::Site;
use weir_tests::{block_on, eventually};

#[test]
fn damaged_batch_is_read_from_another_replica_and_repaired() {
    let dir = tempfile::tempdir().unwrap();
    // Batches lie in files of their own, where a test can find them.
    let files = [
        ("WEIR_VALUE_LOG_FROM_BYTES", "1"),
        ("WEIR_VALUE_FILE_BYTES", "65536"),
    ];
    let mut site = Site::of_three(dir.path(), &files).unwrap();
    let mut load = block_on(async { loaded(&site.client().await.unwrap()).await });
    under_load(&site.seeds(), &mut load, |count| {
        block_on(more_than(count, 2_000))
    });
    site.until_in_step().unwrap();
    let damage = |node: usize| {
        let mut flipped = 0;
        for file in std::fs::read_dir(dir.path().join(format!("{node}/data/values"))).unwrap() {
            let path = file.unwrap().path();
            let mut bytes = std::fs::read(&path).unwrap();
            let at = bytes.len() / 2;
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 0x10;
                std::fs::write(&path, bytes).unwrap();
                flipped += 1;
            }
        }
        assert!(flipped > 0);
    };
    let scrub = |site: &Site, node: usize| -> (usize, bool) {
        let output = site
            .node(node)
            .unwrap()
            .cli(&["scrub", "-o", "json"], "")
            .unwrap();
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        (
            report["mended"].as_array().unwrap().len(),
            output.status.success(),
        )
    };
    // A reader at the leader notices nothing.
    site.stop(1).unwrap();
    damage(1);
    site.start(1).unwrap();
    site.until_in_step().unwrap();
    let wrong = judged(&site, &mut load, &[1]);
    assert!(wrong.is_empty(), "{wrong:?}");
    let said = std::fs::read_to_string(dir.path().join("1/node.log")).unwrap();
    assert!(said.contains("replaced by another replica's copy"), "{said}");
    assert_eq!(scrub(&site, 1), (0, true));
    // A scrub finds the damage on a follower.
    site.stop(2).unwrap();
    damage(2);
    site.start(2).unwrap();
    site.until_in_step().unwrap();
    let (mended, all) = scrub(&site, 2);
    assert!(mended > 0 && all, "{mended}");
    assert_eq!(scrub(&site, 2), (0, true));
    let wrong = judged(&site, &mut load, &[1, 2, 3]);
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn replica_with_lost_data_rejoins_under_a_new_id() {
    let dir = tempfile::tempdir().unwrap();
    let mut site = Site::of_three(dir.path(), &[]).unwrap();
    let mut load = block_on(async { loaded(&site.client().await.unwrap()).await });
    let data = dir.path().join("3/data");
    let lose: [fn(&Path); 3] = [
        |data| std::fs::remove_dir_all(data.join("db")).unwrap(),
        // Without the watermarks, the promised state is unknown.
        |data| {
            std::fs::remove_file(data.join("watermark.a")).unwrap();
            std::fs::remove_file(data.join("watermark.b")).unwrap();
        },
        // A database that does not open.
        |data| {
            for file in std::fs::read_dir(data.join("db")).unwrap() {
                let path = file.unwrap().path();
                if path.is_file() {
                    std::fs::write(path, b"not what it was").unwrap();
                }
            }
        },
    ];
    under_load(&site.seeds(), &mut load, |count| {
        for (round, lose) in lose.iter().enumerate() {
            let (old, new) = (round as u64 + 3, round as u64 + 4);
            let so_far = count.load(Ordering::Relaxed);
            block_on(more_than(count, so_far + 200));
            site.stop(3).unwrap();
            lose(&data);
            if round == 1 {
                // The scrub opens the log, which is whole again afterwards: the node must still know of the
                // loss.
                let scrub = ["scrub", "--data", data.to_str().unwrap()];
                let scrubbed = site.node(1).unwrap().cli(&scrub, "").unwrap();
                assert!(scrubbed.status.success() || !scrubbed.stderr.is_empty());
            }
            site.start(3).unwrap();
            let numbers = |s: &serde_json::Value| -> Vec<(u64, bool)> {
                let members = s["members"].as_array().unwrap().iter();
                members
                    .map(|m| (m["id"].as_u64().unwrap(), m["role"] != "learner"))
                    .collect()
            };
            site.until("another of its number votes", |s| {
                numbers(s) == [(1, true), (2, true), (new, true)]
            })
            .unwrap();
            let said = std::fs::read_to_string(dir.path().join("3/node.log")).unwrap();
            assert!(said.contains("must not vote as if it had not"), "{said}");
            assert!(said.contains(&format!("was={old}")), "{said}");
            // The rest of the old log is removed in the end.
            eventually("the old log is removed", || !data.join("set-aside").exists());
        }
    });
    site.until_in_step().unwrap();
    let wrong = judged(&site, &mut load, &[1, 2, 6]);
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn removed_replica_with_lost_data_names_the_remedy() {
    let dir = tempfile::tempdir().unwrap();
    let mut site = Site::of_three(dir.path(), &[]).unwrap();
    site.transfer(1).unwrap();
    site.stop(3).unwrap();
    site.cli(&["cluster", "remove", "3"]).unwrap();
    std::fs::remove_dir_all(dir.path().join("3/data/db")).unwrap();
    for _ in 0..2 {
        let refused = format!("{:#}", site.start(3).unwrap_err());
        assert!(refused.contains("join again with a token"), "{refused}");
    }
}

#[test]
fn recover_lets_the_last_node_continue_alone() {
    let dir = tempfile::tempdir().unwrap();
    let mut site = Site::found(dir.path(), &[]).unwrap();
    site.grow(&dir.path().join("2")).unwrap();
    site.until_voters(2).unwrap();
    let mut load = block_on(async { loaded(&site.client().await.unwrap()).await });
    under_load(&site.seeds(), &mut load, |count| block_on(more_than(count, 300)));
    let data = dir.path().join("1/data");
    let alone = ["cluster", "recover", "--data", data.to_str().unwrap()];
    let recover = || {
        std::process::Command::new(weir_tests::weir())
            .args(alone)
            .output()
            .unwrap()
    };
    let running = String::from_utf8_lossy(&recover().stderr).into_owned();
    assert!(running.contains("in use"), "{running}");
    site.kill(2).unwrap();
    site.stop(1).unwrap();
    let done = recover();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    site.start(1).unwrap();
    site.until_voters(1).unwrap();
    under_load(&site.seeds()[..1], &mut load, |count| {
        block_on(more_than(count, 300))
    });
    // The other node returns, and finds that the site has continued alone.
    let refused = format!("{:#}", site.start(2).unwrap_err());
    assert!(refused.contains("no member of its site any more"), "{refused}");
    assert_eq!(site.leader().unwrap(), 1);
    assert_eq!(site.grow(&dir.path().join("3")).unwrap(), 3);
    site.until_voters(2).unwrap();
    site.until_in_step().unwrap();
    let wrong = judged(&site, &mut load, &[1, 3]);
    assert!(wrong.is_empty(), "{wrong:?}");
}

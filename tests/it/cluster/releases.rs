//! Directories and messages of an earlier release are understood; the nodes of a site are upgraded in turn,
//! and a downgrade after the last is refused with a reason.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::Ordering;
use weir_client::{BatchBuilder, Codec, Offset};
use weir_tests::load::{judged, loaded, more_than, under_load};
use weir_tests::site::Site;
use weir_tests::{Node, block_on, eventually, read_all, root};
use weir_types::limits::{BATCH_BYTES_MAX, RAFT_LOG_BYTES_MAX};

/// The directory of a node of release 0.1.0 (dc54948) that was killed: topics, records of two producers, a
/// consumer group, two modules and a pipeline.
fn unpack(dir: &Path) {
    let archive = root().join("tests/fixtures/release-0.1.0.tar.gz");
    let tar = Command::new("tar")
        .arg("-xzf")
        .arg(archive)
        .arg("-C")
        .arg(dir)
        .status();
    assert!(tar.unwrap().success());
}

fn site_json(data: &Path) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(data.join("site.json")).unwrap()).unwrap()
}

#[test]
fn directory_of_release_0_1_0_opens_complete() {
    let dir = tempfile::tempdir().unwrap();
    unpack(dir.path());
    let data = dir.path().join("data");
    for _ in 0..2 {
        let node = Node::start(dir.path(), &[]).unwrap();
        block_on(async {
            let client = node.client().await.unwrap();
            let count = |topic: &'static str, partition| {
                let client = client.clone();
                async move {
                    read_all(&client, topic, partition, 4 << 20)
                        .await
                        .unwrap()
                        .0
                        .len()
                }
            };
            assert_eq!(count("machines", 0).await + count("machines", 1).await, 3);
            assert_eq!(
                (count("alerts", 0).await, count("machines.dead", 0).await),
                (1, 1)
            );
            let (keyed, _) = read_all(&client, "keyed", 0, 4 << 20).await.unwrap();
            let last = keyed.last().unwrap();
            assert_eq!(
                (last.0, &last.1.value.as_ref().unwrap()[..]),
                (219, &b"idempotent 19"[..])
            );
        });
        let said = |args: &[&str]| String::from_utf8(node.cli(args, "").unwrap().stdout).unwrap();
        let keyed = said(&["topic", "describe", "keyed"]);
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert!(
            keyed.lines().any(|line| words(line) == ["priority", "7"]),
            "{keyed}"
        );
        assert!(said(&["module", "list"]).contains("deadband"));
        assert!(said(&["pipeline", "list"]).contains("running"));
        node.kill().unwrap();
    }
    // The directory is at this release's level now, and tells the earlier release.
    let node = Node::start(dir.path(), &[]).unwrap();
    eventually("the directory is at level 2", || site_json(&data)["level"] == 2);
    node.stop().unwrap();
    let stored = site_json(&data);
    assert_eq!((&stored["number"], &stored["level"]), (&1.into(), &2.into()));
    assert_eq!(stored["node"], "this directory needs Weir 0.2.0 or later");
    // As a later release would tell this release.
    let mut later = stored;
    later["level"] = 3.into();
    later["node"] = "this directory needs Weir 7.0 or later".into();
    std::fs::write(data.join("site.json"), serde_json::to_vec(&later).unwrap()).unwrap();
    let refused = Node::start(dir.path(), &[]).err().unwrap().to_string();
    assert!(
        refused.contains("is at level 3") && refused.contains("needs Weir 7.0 or later"),
        "{refused}"
    );
}

/// The binary of release 0.1.0, which the long form builds.
fn earlier() -> Option<PathBuf> {
    let found = std::env::var_os("WEIR_EARLIER").map(PathBuf::from);
    if found.is_none() {
        eprintln!(
            "skipped: a site of two releases (WEIR_EARLIER names the earlier one's binary; `cargo xtask earlier` builds it)"
        );
    }
    found
}

/// Sends more than a group keeps of its log: a node that was away needs a snapshot.
async fn more_than_is_kept(site: &Site) {
    let client = site.client().await.unwrap();
    let mut producer = client.producer().await.unwrap();
    let values: Vec<u8> = (0..BATCH_BYTES_MAX as u32 - 4_096)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let mut builder = BatchBuilder::new(Codec::None);
    builder.push(0, None, Some(&values), weir_types::Headers::NONE);
    let batch = builder.build(Offset::ZERO, None).unwrap();
    for _ in 0..RAFT_LOG_BYTES_MAX / BATCH_BYTES_MAX + 20 {
        producer
            .send("large", 0, &batch)
            .await
            .unwrap()
            .done()
            .await
            .unwrap();
    }
}

#[test]
fn rolling_upgrade_loses_no_record() {
    let Some(earlier) = earlier() else { return };
    let dir = tempfile::tempdir().unwrap();
    let mut site = Site::of_three_of(&earlier, dir.path()).unwrap();
    let client = block_on(site.client()).unwrap();
    let mut load = block_on(loaded(&client));
    site.cli(&["topic", "create", "large", "--config", "retention.ms=-1"])
        .unwrap();
    let by_record =
        |site: &Site, topic: &str| site.cli(&["topic", "create", topic, "--config", "retention.by=record"]);
    under_load(&site.seeds(), &mut load, |count| {
        let more = || block_on(more_than(count, count.load(Ordering::Relaxed) + 100));
        more();
        site.transfer(1).unwrap();
        // An old leader sends a new follower a snapshot.
        site.stop(3).unwrap();
        block_on(more_than_is_kept(&site));
        site.replace(3, None);
        site.start(3).unwrap();
        site.until_in_step().unwrap();
        more();
        // A new leader sends a snapshot to an old follower.
        site.transfer(3).unwrap();
        site.stop(2).unwrap();
        block_on(more_than_is_kept(&site));
        site.start(2).unwrap();
        site.until_in_step().unwrap();
        more();
        // A downgrade is possible while any node is old.
        site.transfer(1).unwrap();
        site.stop(3).unwrap();
        site.replace(3, Some(&earlier));
        site.start(3).unwrap();
        site.until_in_step().unwrap();
        more();
        for number in [3, 2] {
            site.stop(number).unwrap();
            site.replace(number, None);
            site.start(number).unwrap();
            site.until_in_step().unwrap();
            site.transfer(number).unwrap();
            more();
            let refused = by_record(&site, "early").unwrap_err().to_string();
            assert!(refused.contains("needs Weir 0.2.0"), "{refused}");
        }
        site.stop(1).unwrap();
        site.replace(1, None);
        site.start(1).unwrap();
        eventually("the site has the new level", || by_record(&site, "late"));
        more();
    });
    site.until_in_step().unwrap();
    assert_eq!(judged(&site, &mut load, &[1, 2, 3]), []);
    // There is no way back.
    site.stop(2).unwrap();
    site.replace(2, Some(&earlier));
    let refused = site.start(2).unwrap_err().to_string();
    assert!(refused.contains("needs Weir 0.2.0 or later"), "{refused}");
}

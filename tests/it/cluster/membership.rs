//! Nodes that join, leave and move to another address.

use std::path::Path;
use std::sync::atomic::Ordering;
use weir_tests::load::{judged, loaded, more_than, under_load};
use weir_tests::site::Site;
use weir_tests::{Node, block_on, cli};

#[test]
fn site_grows_to_three_under_load() {
    let dir = tempfile::tempdir().unwrap();
    let mut site = Site::found(dir.path(), &[]).unwrap();
    let (mut load, client) = block_on(async {
        let client = site.client().await.unwrap();
        (loaded(&client).await, client)
    });
    drop(client);
    let pause = under_load(&site.seeds(), &mut load, |count| {
        block_on(more_than(count, 200));
        site.grow(&dir.path().join("2")).unwrap();
        site.grow(&dir.path().join("3")).unwrap();
        site.until_voters(3).unwrap();
        let so_far = count.load(Ordering::Relaxed);
        block_on(more_than(count, so_far + 200));
    })
    .1;
    site.until_in_step().unwrap();
    let wrong = judged(&site, &mut load, &[1, 2, 3]);
    assert!(wrong.is_empty(), "{wrong:?}");
    println!(
        "{} records acknowledged while a site of one grew to three; longest pause {pause:?}",
        load.acknowledged
    );
}

#[test]
fn membership_changes_that_need_a_silent_node_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut site = Site::of_three(dir.path(), &[]).unwrap();
    site.transfer(1).unwrap();
    site.kill(3).unwrap();
    let silent = |s: &serde_json::Value| s["members"][2]["heard_ms_ago"].as_u64() > Some(3_000);
    site.until("node 3 is silent", silent).unwrap();
    let refused = site.cli(&["cluster", "remove", "2"]).unwrap_err().to_string();
    assert!(refused.contains("node 3 is silent"), "{refused}");
    let refused = site.cli(&["cluster", "transfer", "3"]).unwrap_err().to_string();
    assert!(refused.contains("node 3 does not answer"), "{refused}");
    site.cli(&["cluster", "remove", "3"]).unwrap();
    // Two are left, and both answer.
    block_on(async {
        let client = site.client().await.unwrap();
        client.create_topic("t", 1, &[]).await.unwrap();
    });
}

/// Starts a node in `dir`/`name` that joins by `token`.
fn join(site: &Site, dir: &Path, name: &str, token: &str) -> anyhow::Result<Node> {
    let addr = site.seeds()[0].to_string();
    let dir = dir.join(name);
    std::fs::create_dir_all(&dir).unwrap();
    Node::start_with(&dir, &["--join", &addr, "--token", token.trim()], &[])
}

#[test]
fn tokens_admit_a_single_node_within_their_time() {
    let dir = tempfile::tempdir().unwrap();
    let site = Site::found(dir.path(), &[]).unwrap();
    let refused = |name: &str, token: &str| {
        let refused = join(&site, dir.path(), name, token).err().unwrap();
        format!("{refused:#}")
    };
    assert!(refused("a", "weir-12").contains("that is no token"));
    let never = refused("a", &format!("weir-{}", "0".repeat(32)));
    assert!(never.contains("unknown token"), "{never}");
    let token = site.cli(&["cluster", "invite", "--valid", "1h"]).unwrap();
    let _second = join(&site, dir.path(), "b", &token).unwrap();
    assert!(refused("c", &token).contains("it was used"));
    let short = site.cli(&["cluster", "invite", "--valid", "0s"]).unwrap();
    assert!(refused("c", &short).contains("expired"));
    site.until_voters(2).unwrap();
    let table = site.cli(&["cluster", "status"]).unwrap();
    assert!(
        table.contains("with two there is no majority without the other"),
        "{table}"
    );
}

#[test]
fn node_with_a_site_of_its_own_does_not_join() {
    let dir = tempfile::tempdir().unwrap();
    let site = Site::found(dir.path(), &[]).unwrap();
    let own = dir.path().join("own");
    std::fs::create_dir_all(&own).unwrap();
    Node::start_with(&own, &[], &[]).unwrap().stop().unwrap();
    let token = site.cli(&["cluster", "invite"]).unwrap();
    let kept = join(&site, dir.path(), "own", &token).unwrap();
    let status = cli::json(&kept, &["cluster", "status"]);
    assert_eq!(status["members"].as_array().unwrap().len(), 1);
}

#[test]
fn number_of_a_drained_node_is_not_given_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut site = Site::found(dir.path(), &[]).unwrap();
    let token = site.cli(&["cluster", "invite"]).unwrap();
    let second = join(&site, dir.path(), "b", &token).unwrap();
    site.until_voters(2).unwrap();
    site.cli(&["cluster", "drain", "2"]).unwrap();
    second.stop().unwrap();
    site.until_voters(1).unwrap();
    let again = site.cli(&["cluster", "remove", "1"]).unwrap_err();
    assert!(
        format!("{again:#}").contains("nobody to hand over to"),
        "{again:#}"
    );
    let token = site.cli(&["cluster", "invite"]).unwrap();
    let third = join(&site, dir.path(), "d", &token).unwrap();
    site.until_voters(2).unwrap();
    let members = site.status().unwrap()["members"].clone();
    let members = members.as_array().unwrap().iter();
    let ids: Vec<u64> = members.map(|m| m["id"].as_u64().unwrap()).collect();
    assert_eq!(ids, [1, 3]);
    drop(third);
    site.stop(1).unwrap();
}

#[test]
fn node_is_found_at_its_new_address() {
    let dir = tempfile::tempdir().unwrap();
    let mut site = Site::of_three(dir.path(), &[]).unwrap();
    site.transfer(1).unwrap();
    site.kill(2).unwrap();
    site.start_elsewhere(2).unwrap();
    let at = site.seeds()[1].to_string();
    let moved = |s: &serde_json::Value| {
        let members = s["members"].as_array().cloned().unwrap_or_default();
        members
            .iter()
            .any(|m| m["id"] == 2 && m["quic"] == at.as_str() && m["lag"] == 0)
    };
    site.until("the new address", moved).unwrap();
    // The node serves at its new address.
    site.transfer(2).unwrap();
    block_on(async {
        let client = site.client().await.unwrap();
        client.create_topic("t", 1, &[]).await.unwrap();
    });
}

//! Nodes that join, leave and move to another address.

use std::sync::atomic::Ordering;
use weir_tests::load::{judged, loaded, more_than, under_load};
use weir_tests::site::Site;
use weir_tests::{Node, block_on};

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

#[test]
fn tokens_let_one_node_in_and_a_node_that_leaves_is_out() {
    let dir = tempfile::tempdir().unwrap();
    let mut site = Site::found(dir.path(), &[]).unwrap();
    let addr = site.seeds()[0].to_string();
    let join = |name: &str, token: &str| {
        let dir = dir.path().join(name);
        std::fs::create_dir_all(&dir).unwrap();
        Node::start_with(&dir, &["--join", &addr, "--token", token], &[])
    };
    let refused = |name: &str, token: &str| format!("{:#}", join(name, token).err().unwrap());
    assert!(refused("a", "weir-12").contains("that is no token"));
    let never = format!("weir-{}", "0".repeat(32));
    assert!(
        refused("a", &never).contains("not known here"),
        "{}",
        refused("a", &never)
    );
    let token = site.cli(&["cluster", "invite", "--valid", "1h"]).unwrap();
    let second = join("b", token.trim()).unwrap();
    assert!(refused("c", token.trim()).contains("it was used"));
    let short = site.cli(&["cluster", "invite", "--valid", "0s"]).unwrap();
    assert!(refused("c", short.trim()).contains("expired"));
    site.until_voters(2).unwrap();
    let table = site.cli(&["cluster", "status"]).unwrap();
    assert!(
        table.contains("with two there is no majority without the other"),
        "{table}"
    );
    // A directory with records of its own does not join.
    let own = dir.path().join("own");
    std::fs::create_dir_all(&own).unwrap();
    Node::start_with(&own, &[], &[]).unwrap().stop().unwrap();
    let token = site.cli(&["cluster", "invite"]).unwrap();
    let kept = Node::start_with(&own, &["--join", &addr, "--token", token.trim()], &[]).unwrap();
    // The node has a site of its own, and keeps that site.
    let status = kept.cli(&["cluster", "status", "-o", "json"], "").unwrap();
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!(status["members"].as_array().unwrap().len(), 1);
    // The second leaves; the site goes on alone, and its number is not given again.
    site.cli(&["cluster", "drain", "2"]).unwrap();
    second.stop().unwrap();
    site.until_voters(1).unwrap();
    let again = site.cli(&["cluster", "remove", "1"]).unwrap_err();
    assert!(
        format!("{again:#}").contains("nobody to hand over to"),
        "{again:#}"
    );
    let token = site.cli(&["cluster", "invite"]).unwrap();
    let third = join("d", token.trim()).unwrap();
    site.until_voters(2).unwrap();
    let members = site.status().unwrap()["members"].clone();
    let ids: Vec<u64> = members
        .as_array()
        .unwrap()
        .iter()
        .map(|m| m["id"].as_u64().unwrap())
        .collect();
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

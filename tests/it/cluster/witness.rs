//! Witnesses: voters without records, for sites of two.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use weir_tests::load::{judged, loaded, more_than, under_load};
use weir_tests::site::Site;
use weir_tests::{Node, block_on, cli};

/// Makes a site of the nodes 1 and 3, with the witness 2.
fn site_with_witness(dir: &Path) -> Site {
    let mut site = Site::found(dir, &[]).unwrap();
    assert_eq!(site.grow_witness(&dir.join("w")).unwrap(), 2);
    // Beside a single node, a witness has no vote.
    assert_eq!(role(&site, 2), "learner");
    assert_eq!(site.grow(&dir.join("3")).unwrap(), 3);
    site.until_voters(3).unwrap();
    assert_eq!(role(&site, 2), "witness");
    site
}

fn role(site: &Site, node: usize) -> String {
    let members = site.status().unwrap()["members"].clone();
    let mut members = members.as_array().unwrap().iter();
    let member = members.find(|m| m["id"] == node as u64).cloned();
    member.unwrap()["role"].as_str().unwrap().to_owned()
}

#[test]
fn witness_without_a_site_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let alone = Node::start_with(dir.path(), &["--witness"], &[]).err().unwrap();
    assert!(format!("{alone:#}").contains("--join HOST:PORT"), "{alone:#}");
}

#[test]
fn site_with_a_witness_survives_the_loss_of_either_node() {
    let dir = tempfile::tempdir().unwrap();
    let mut site = site_with_witness(dir.path());
    let mut load = block_on(async { loaded(&site.client().await.unwrap()).await });
    let ((), pause) = under_load(&site.seeds(), &mut load, |count| {
        let more = || block_on(more_than(count, count.load(Ordering::Relaxed) + 200));
        more();
        for _ in 0..2 {
            let leader = site.leader().unwrap();
            assert_ne!(leader, 2);
            site.kill(leader).unwrap();
            more();
            let table = site.cli(&["cluster", "status"]).unwrap();
            assert!(table.contains("a witness has no copy"), "{table}");
            site.start(leader).unwrap();
            site.until_in_step().unwrap();
        }
        // The witness is not needed while both are there.
        site.kill(2).unwrap();
        more();
        site.start(2).unwrap();
        site.until_in_step().unwrap();
    });
    println!("longest pause of a site with a witness, its leader killed twice: {pause:?}");
    site.transfer(1).unwrap();
    // Records that are committed without node 3: only node 1 may lead.
    site.stop(3).unwrap();
    under_load(&site.seeds(), &mut load, |count| block_on(more_than(count, 500)));
    site.kill(1).unwrap();
    site.start(3).unwrap();
    let begun = Instant::now();
    // Several elections.
    while begun.elapsed() < Duration::from_secs(3) {
        let said = cli::json(site.node(3).unwrap(), &["cluster", "status"]);
        assert_eq!(said["serving"], false, "{said}");
    }
    site.start(1).unwrap();
    site.until_in_step().unwrap();
    let wrong = judged(&site, &mut load, &[1, 3]);
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn witness_stores_no_records_and_stays_a_witness() {
    let dir = tempfile::tempdir().unwrap();
    let mut site = site_with_witness(dir.path());
    site.until_in_step().unwrap();
    let disk = |site: &Site, node: usize| -> u64 {
        let status = cli::json(site.node(node).unwrap(), &["status"]);
        status["written_bytes"].as_u64().unwrap()
    };
    site.transfer(1).unwrap();
    let before = [1, 2, 3].map(|node| disk(&site, node));
    // Knuth's multiplicative hash: the text must not compress to nothing.
    let line = |i: u32| {
        (0..10_000)
            .map(|n: u32| format!("{:08x}", (n + i).wrapping_mul(2_654_435_769)))
            .collect::<String>()
    };
    let records: Vec<String> = (0..25).map(line).collect();
    site.cli(&["topic", "create", "large"]).unwrap();
    let sent = site
        .node(1)
        .unwrap()
        .cli(&["produce", "large"], &records.join("\n"))
        .unwrap();
    assert!(sent.status.success(), "{}", String::from_utf8_lossy(&sent.stderr));
    site.until_in_step().unwrap();
    let written = [1, 2, 3].map(|node| disk(&site, node) - before[node - 1]);
    assert!(written[0] > 1_000_000 && written[2] > 1_000_000, "{written:?}");
    assert!(written[1] < written[0] / 20, "{written:?}");
    let refused = site.cli(&["cluster", "transfer", "2"]).unwrap_err().to_string();
    assert!(refused.contains("no records to serve"), "{refused}");
    site.cli(&["cluster", "drain", "3"]).unwrap();
    assert_eq!(role(&site, 2), "learner");
    assert!(site.cli(&["cluster", "drain", "1"]).is_err());
    // A witness stays a witness, whatever the command.
    let scrubbed = site.node(2).unwrap().cli(&["scrub"], "").unwrap();
    assert!(scrubbed.status.success());
    assert!(
        disk(&site, 2) - before[1] < written[0] / 10,
        "it has been given records"
    );
    site.stop(2).unwrap();
    let data = dir.path().join("w/data");
    for command in [&["cluster", "recover"][..], &["scrub"]] {
        let args = [command, &["--data", data.to_str().unwrap()]].concat();
        let refused = site.node(1).unwrap().cli(&args, "").unwrap();
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success() && said.contains("witness"), "{said}");
    }
    site.start(2).unwrap();
    let members = site.status().unwrap()["members"].clone();
    assert_eq!(members[1]["witness"], true, "{members}");
}

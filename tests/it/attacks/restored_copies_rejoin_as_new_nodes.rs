//! A directory that was restored from a copy is sound but lacks acknowledged records: the other nodes notice,
//! and the node rejoins under a new id. Two processes cannot run the same node.

use super::readable_records_survive_metadata_damage::copy;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;
use weir_tests::records::batch;
use weir_tests::site::Site;
use weir_tests::{block_on, eventually, read_all, weir};
use weir_types::Codec;

/// Sends `many` records, each after the acknowledgement of the last.
fn produce(site: &Site, many: usize) {
    block_on(async {
        let client = site.client().await.unwrap();
        let mut producer = client.producer().await.unwrap();
        for n in 0..many {
            let one = batch(Codec::None, [format!("{n}").into_bytes()]);
            let sent = producer.send("t", 0, &one).await.unwrap();
            sent.done().await.unwrap();
        }
    });
}

/// Until somebody leads, and has so many records.
fn until_stored(site: &Site, many: usize) {
    let count = || {
        block_on(async {
            let read = async {
                let client = site.client().await.ok()?;
                Some(read_all(&client, "t", 0, 1 << 20).await.ok()?.0.len())
            };
            let read = tokio::time::timeout(Duration::from_secs(5), read);
            read.await.ok().flatten()
        })
    };
    eventually(&format!("{many} records are stored"), || match count() {
        have if have == Some(many) => Ok(()),
        have => Err(format!("{have:?}: {}", site.said())),
    });
}

fn until_ids(site: &Site, wanted: &[u64]) {
    let has = |status: &Value| {
        let members = status["members"].as_array().unwrap().iter();
        members
            .map(|m| m["id"].as_u64().unwrap())
            .eq(wanted.iter().copied())
    };
    site.until("these nodes are members", has).unwrap();
}

fn process(data: &Path, quic: &str) -> Command {
    let mut process = Command::new(weir());
    process.args([
        "serve",
        "--http",
        "127.0.0.1:0",
        "--kafka",
        "off",
        "--quic",
        quic,
        "--data",
    ]);
    process.arg(data);
    process
}

/// Starts the node of `data`, and waits until the node asks to join and no leader answers.
fn asks_in_vain(data: &Path, site: &Site) -> Child {
    let said = data.with_file_name("said");
    let file = fs::File::create(&said).unwrap();
    let addr = site.seeds()[1].to_string();
    let asking = process(data, &addr).stderr(file).spawn().unwrap();
    eventually("the node keeps asking to join", || {
        let told = fs::read_to_string(&said).unwrap();
        let asks = told.contains("this node goes on asking");
        if asks { Ok(()) } else { Err(told) }
    });
    asking
}

fn place(data: &Path) -> Value {
    serde_json::from_slice(&fs::read(data.join("site.json")).unwrap()).unwrap()
}

struct Old {
    _dir: tempfile::TempDir,
    site: Site,
    /// The directory of the second node, and its copy from before half of the records.
    data: PathBuf,
    copy: PathBuf,
}

/// A site of three with 100 records, of which a copy of the second node's directory has half. The second is
/// down.
fn with_copy() -> Old {
    let dir = tempfile::tempdir().unwrap();
    let mut site = Site::of_three(dir.path(), &[]).unwrap();
    site.cli(&["topic", "create", "t"]).unwrap();
    site.transfer(1).unwrap();
    produce(&site, 50);
    site.until_in_step().unwrap();
    let (data, copied) = (dir.path().join("2/data"), dir.path().join("copy"));
    site.stop(2).unwrap();
    copy(&data, &copied);
    site.start(2).unwrap();
    produce(&site, 50);
    site.until_in_step().unwrap();
    site.kill(2).unwrap();
    let copy = copied;
    Old {
        _dir: dir,
        site,
        data,
        copy,
    }
}

/// Restores the copy, and checks that its node rejoins under a new id and that the site survives the loss of
/// its leader.
fn comes_in_anew(old: &mut Old) {
    let Old {
        site,
        data,
        copy: copied,
        ..
    } = old;
    fs::remove_dir_all(&*data).unwrap();
    copy(copied, data);
    site.start(2).unwrap();
    until_ids(site, &[1, 3, 4]);
    site.until_voters(3).unwrap();
    site.until_in_step().unwrap();
    // The restored node has all acknowledged records: the site continues without its first node.
    site.kill(1).unwrap();
    until_stored(site, 100);
    produce(site, 1);
    // Without the third node, the first node gets the records from the restored node.
    site.start(1).unwrap();
    site.until_in_step().unwrap();
    site.kill(3).unwrap();
    until_stored(site, 101);
}

#[test]
fn copy_from_before_a_start_rejoins_under_a_new_id() {
    comes_in_anew(&mut with_copy());
}

#[test]
fn copy_with_a_current_start_counter_is_known_by_its_missing_records() {
    let mut old = with_copy();
    let newest = place(&old.data)["started"].clone();
    let mut place = place(&old.copy);
    place["started"] = newest;
    fs::write(old.copy.join("site.json"), place.to_string()).unwrap();
    comes_in_anew(&mut old);
}

#[test]
fn copy_does_not_vote_without_its_missing_records() {
    let Old {
        _dir,
        mut site,
        data,
        copy: copied,
    } = with_copy();
    // The new records are on nodes 1 and 2; then node 1 goes, and node 2 is restored from its copy.
    site.start(2).unwrap();
    site.until_in_step().unwrap();
    site.kill(3).unwrap();
    produce(&site, 20);
    site.kill(2).unwrap();
    site.kill(1).unwrap();
    fs::remove_dir_all(&data).unwrap();
    copy(&copied, &data);
    site.start(3).unwrap();
    // No leader can admit the node.
    let mut second = asks_in_vain(&data, &site);
    site.start(1).unwrap();
    until_ids(&site, &[1, 3, 4]);
    until_stored(&site, 120);
    second.kill().unwrap();
    second.wait().unwrap();
}

#[test]
fn second_process_of_a_node_is_refused() {
    let Old {
        _dir,
        mut site,
        copy: copied,
        ..
    } = with_copy();
    site.start(2).unwrap();
    site.until_in_step().unwrap();
    let output = process(&copied, "127.0.0.1:0").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !output.status.success() && said.contains("runs already, at 127.0.0.1:"),
        "{said}"
    );
    // The directory of a node of a site does not become a site of its own.
    fs::remove_file(copied.join("site.json")).unwrap();
    let output = process(&copied, "127.0.0.1:0").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !output.status.success() && said.contains("of a node of a site of 3"),
        "{said}"
    );
    site.until_in_step().unwrap();
    produce(&site, 1);
    until_stored(&site, 101);
}

#[test]
fn rejoined_and_removed_nodes_are_told_so() {
    let mut old = with_copy();
    comes_in_anew(&mut old);
    // The very same copy, once more: its node is another by now.
    let Old {
        site,
        data,
        copy: copied,
        ..
    } = &mut old;
    site.start(3).unwrap();
    site.until_in_step().unwrap();
    site.stop(2).unwrap();
    fs::remove_dir_all(&*data).unwrap();
    copy(copied, data);
    site.start(2).unwrap();
    until_ids(site, &[1, 3, 5]);
    site.until_voters(3).unwrap();
    site.cli(&["cluster", "drain", "5"]).unwrap();
    eventually("node 2 knows that it was removed", || {
        let said = site.node(2).unwrap().said();
        let knows = said.contains("was taken out of its site");
        if knows { Ok(()) } else { Err(said) }
    });
    site.stop(2).unwrap();
    let refused = format!("{:#}", site.start(2).unwrap_err());
    assert!(refused.contains("no member of its site any more"), "{refused}");
    let nobody = format!("{:#}", site.cli(&["cluster", "drain", "9"]).unwrap_err());
    assert!(nobody.contains("there is no node 9"), "{nobody}");
}

#[test]
fn copy_from_before_the_last_start_is_known_without_a_leader() {
    let Old {
        _dir,
        mut site,
        data,
        copy: copied,
    } = with_copy();
    // Node 3 knows the last start of node 2, and none of the records that follow.
    site.start(2).unwrap();
    site.until_in_step().unwrap();
    site.stop(2).unwrap();
    fs::remove_dir_all(&copied).unwrap();
    copy(&data, &copied);
    site.start(2).unwrap();
    site.until_in_step().unwrap();
    let count = || place(&data.with_file_name("../3/data"))["others_started"]["2"]["count"].clone();
    eventually("node 3 knows the last start of node 2", || {
        let known = count();
        if known == place(&data)["started"] {
            Ok(())
        } else {
            Err(known)
        }
    });
    site.stop(3).unwrap();
    produce(&site, 20);
    site.kill(1).unwrap();
    site.kill(2).unwrap();
    fs::remove_dir_all(&data).unwrap();
    copy(&copied, &data);
    site.start(3).unwrap();
    let mut second = asks_in_vain(&data, &site);
    site.start(1).unwrap();
    until_stored(&site, 120);
    second.kill().unwrap();
    second.wait().unwrap();
}

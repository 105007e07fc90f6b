//! A node whose files are missing does not start empty: the message names the missing files and the remedy,
//! and a repair brings the readable rest back.

use super::readable_records_survive_metadata_damage::text;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use weir_tests::{Node, weir};

/// A node with so many records in topic `t`, killed.
fn killed(dir: &Path, records: usize, env: &[(&str, &str)]) {
    let node = Node::start_with(dir, &[], env).unwrap();
    text(&node.cli(&["topic", "create", "t"], "").unwrap());
    let lines: String = (0..records).map(|n| format!("{n}\n")).collect();
    text(&node.cli(&["produce", "t"], &lines).unwrap());
    node.kill().unwrap();
}

fn without(data: &Path, names: &[&str]) {
    for name in names {
        let path = data.join(name);
        match path.is_dir() {
            true => fs::remove_dir_all(path).unwrap(),
            false => fs::remove_file(path).unwrap(),
        }
    }
}

fn scrub(data: &Path, repair: &[&str]) -> Output {
    let mut scrub = Command::new(weir());
    scrub.arg("scrub").args(repair).arg("--data").arg(data);
    scrub.output().unwrap()
}

/// Returns the message of a node that does not start.
fn does_not_start(dir: &Path) -> String {
    Node::start(dir, &[]).map(drop).unwrap_err().to_string()
}

#[test]
fn log_without_journals_and_watermarks_stops_startup() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    killed(dir.path(), 100, &[]);
    without(&data, &["db/0.jnl", "watermark.a", "watermark.b"]);
    for _ in 0..2 {
        let said = does_not_start(dir.path());
        assert!(
            said.contains("how far each partition went is not known"),
            "{said}"
        );
    }
    let repaired = scrub(&data, &["--repair"]);
    let said = String::from_utf8_lossy(&repaired.stderr).into_owned();
    assert!(
        repaired.status.success() && said.contains("may be given out"),
        "{said}"
    );
    let node = Node::start(dir.path(), &[]).unwrap();
    text(&node.cli(&["produce", "t"], "after\n").unwrap());
}

#[test]
fn missing_log_stops_startup() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    killed(dir.path(), 1, &[]);
    without(
        &data,
        &["db", "values", "rows.copy", "watermark.a", "watermark.b"],
    );
    for _ in 0..2 {
        let said = does_not_start(dir.path());
        assert!(
            said.contains("not mounted") && said.contains("site.json"),
            "{said}"
        );
    }
    // The remedy of the message.
    without(&data, &["site.json"]);
    let node = Node::start(dir.path(), &[]).unwrap();
    text(&node.cli(&["topic", "create", "t"], "").unwrap());
}

#[test]
fn single_node_is_identified_by_its_log() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    killed(dir.path(), 3, &[]);
    fs::write(data.join("site.json"), "").unwrap();
    let said = does_not_start(dir.path());
    assert!(
        said.contains("site.json") && said.contains("or remove it"),
        "{said}"
    );
    without(&data, &["site.json"]);
    let node = Node::start(dir.path(), &[]).unwrap();
    let read = node.cli(&["consume", "t", "--count", "3"], "").unwrap();
    assert_eq!(text(&read), "0\n1\n2\n");
}

#[test]
fn empty_identity_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    killed(dir.path(), 1, &[]);
    for name in ["identity.key", "identity.crt"] {
        let kept = fs::read(data.join(name)).unwrap();
        fs::write(data.join(name), "").unwrap();
        let said = does_not_start(dir.path());
        assert!(
            said.contains("identity.crt") && said.contains("put them back"),
            "{said}"
        );
        fs::write(data.join(name), kept).unwrap();
    }
    drop(Node::start(dir.path(), &[]).unwrap());
}

#[test]
fn repair_recovers_tables_without_their_list() {
    const RECORDS: usize = 60_000;
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let small = [
        ("WEIR_MEMTABLE_BYTES", "1048576"),
        ("WEIR_JOURNAL_BYTES", "67108864"),
    ];
    let node = Node::start_with(dir.path(), &[], &small).unwrap();
    text(&node.cli(&["topic", "create", "t"], "").unwrap());
    // Enough for tables, and something behind them in the journal.
    for round in 0..6 {
        let lines: String = (0..RECORDS / 6)
            .map(|n| format!("{round} {n} {}\n", n * 7_919 % 104_729))
            .collect();
        text(&node.cli(&["produce", "t"], &lines).unwrap());
    }
    node.kill().unwrap();
    let keyspaces = fs::read_dir(data.join("db/keyspaces"))
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let used: Vec<_> = keyspaces
        .filter(|keyspace| fs::read_dir(keyspace.join("tables")).unwrap().next().is_some())
        .collect();
    assert!(used.iter().any(|keyspace| keyspace.ends_with("2")), "{used:?}");
    without(&data, &["db/keyspaces/2/current"]);
    let said = does_not_start(dir.path());
    assert!(said.contains("keyspaces/2/current` is not there"), "{said}");
    text(&scrub(&data, &["--repair"]));
    let node = Node::start_with(dir.path(), &[], &small).unwrap();
    let read = ["consume", "t", "--count", &RECORDS.to_string()];
    assert_eq!(text(&node.cli(&read, "").unwrap()).lines().count(), RECORDS);
    let described = text(&node.cli(&["topic", "describe", "t", "-o", "json"], "").unwrap());
    assert!(described.contains("\"lost\":0,\"gaps\":[]"), "{described}");
}

#[test]
fn damage_found_at_run_time_is_shown() {
    let dir = tempfile::tempdir().unwrap();
    let files = [
        ("WEIR_VALUE_LOG_FROM_BYTES", "1"),
        ("WEIR_VALUE_FILE_BYTES", "65536"),
    ];
    let node = Node::start_with(dir.path(), &[], &files).unwrap();
    text(&node.cli(&["topic", "create", "t"], "").unwrap());
    let lines: String = (0..30_000)
        .map(|n| format!("{n} {}\n", n * 7_919 % 104_729))
        .collect();
    text(&node.cli(&["produce", "t"], &lines).unwrap());
    let status = |node: &Node| -> serde_json::Value {
        let shown = node.cli(&["status", "-o", "json"], "").unwrap();
        serde_json::from_slice(&shown.stdout).unwrap()
    };
    assert_eq!(status(&node)["damaged"].as_array().unwrap().len(), 0);
    let mut values: Vec<_> = fs::read_dir(dir.path().join("data/values"))
        .unwrap()
        .map(|file| file.unwrap().path())
        .collect();
    values.sort();
    let mut bytes = fs::read(&values[0]).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 0x10;
    fs::write(&values[0], bytes).unwrap();
    // The node's own readers find the damage.
    let _ = node.cli(&["scrub"], "").unwrap();
    let found = status(&node)["damaged"].clone();
    let range = &found[0];
    assert_eq!(
        (range["topic"].as_str(), range["index"].as_u64()),
        (Some("t"), Some(0)),
        "{found}"
    );
    let (start, end) = (range["start"].as_u64().unwrap(), range["end"].as_u64().unwrap());
    let described = text(&node.cli(&["topic", "describe", "t"], "").unwrap());
    assert!(
        start < end && described.contains(&format!("[{start}, {end}) lost")),
        "{described}"
    );
    let shown = text(&node.cli(&["status"], "").unwrap());
    assert!(shown.contains(&format!("0 of `t` [{start}, {end})")), "{shown}");
}

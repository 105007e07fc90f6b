//! Damaged metadata of the store cost no readable record: `weir scrub --repair` rebuilds the database,
//! reports the recovered records by topic, and the node continues with its topics and groups.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use weir_tests::{Node, weir};

const SMALL: usize = 200;
const LARGE: usize = 60;

pub(super) fn text(output: &Output) -> String {
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub(super) fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(copied.success());
}

fn read(node: &Node, topic: &str, count: usize) -> Vec<String> {
    let read = ["consume", topic, "--count", &count.to_string(), "-o", "json"];
    let lines = text(&node.cli(&read, "").unwrap());
    let value = |line: &str| {
        let record: serde_json::Value = serde_json::from_str(line).unwrap();
        record["value"].as_str().unwrap().to_owned()
    };
    lines.lines().map(value).collect()
}

type Damage = fn(&Path);

/// Kinds of damage.
const DAMAGES: [(&str, Damage); 7] = [
    ("the version of the format", |data| {
        fs::write(data.join("db/version"), b"nonsense").unwrap()
    }),
    ("the names of the keyspaces", |data| {
        fs::remove_dir_all(data.join("db/keyspaces/0")).unwrap()
    }),
    ("which tables count", |data| {
        fs::write(data.join("db/keyspaces/3/current"), [0; 25]).unwrap()
    }),
    ("the list of tables", |data| {
        for entry in fs::read_dir(data.join("db/keyspaces/2")).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                fs::write(path, b"").unwrap();
            }
        }
    }),
    ("all tables' files but their names", |data| {
        for entry in fs::read_dir(data.join("db/keyspaces/3")).unwrap() {
            let path = entry.unwrap().path();
            if path
                .file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with('v'))
            {
                fs::write(path, b"").unwrap();
            }
        }
    }),
    ("a keyspace", |data| {
        fs::remove_dir_all(data.join("db/keyspaces/2")).unwrap()
    }),
    ("a sector of the journal", |data| {
        let path = data.join("db/0.jnl");
        let mut bytes = fs::read(&path).unwrap();
        // The first frames: the rows of the topics.
        bytes[512..1_024].fill(0xff);
        fs::write(path, bytes).unwrap();
    }),
];

#[test]
fn repair_restores_topics_groups_and_records() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), &[]).unwrap();
    text(
        &node
            .cli(&["topic", "create", "small", "--partitions", "2"], "")
            .unwrap(),
    );
    text(&node.cli(&["topic", "create", "large"], "").unwrap());
    let small: Vec<String> = (0..SMALL).map(|n| format!("small {n}")).collect();
    text(
        &node
            .cli(&["produce", "small"], &(small.join("\n") + "\n"))
            .unwrap(),
    );
    let large: Vec<String> = (0..LARGE).map(|n| format!("{n} {}", "x".repeat(9_000))).collect();
    text(
        &node
            .cli(&["produce", "large"], &(large.join("\n") + "\n"))
            .unwrap(),
    );
    let ten = ["consume", "large", "--group", "g", "--count", "10"];
    text(&node.cli(&ten, "").unwrap());
    node.stop().unwrap();

    for (n, (what, damage)) in DAMAGES.into_iter().enumerate() {
        let home = dir.path().join(n.to_string());
        fs::create_dir(&home).unwrap();
        let data = home.join("data");
        copy(&dir.path().join("data"), &data);
        damage(&data);
        let mut scrub = Command::new(weir());
        scrub
            .args(["scrub", "--repair", "-o", "json", "--data"])
            .arg(&data);
        let scrubbed = scrub.output().unwrap();
        let said = String::from_utf8_lossy(&scrubbed.stderr).into_owned();
        let report: serde_json::Value =
            serde_json::from_slice(&scrubbed.stdout).unwrap_or_else(|e| panic!("{what}: {e}: {said}"));
        // Damage that the store tolerates needs no repair.
        if let Some(repaired) = report["repaired"].as_array() {
            let back = |topic: &str| -> u64 {
                let of = repaired.iter().filter(|p| p["topic"] == topic);
                of.map(|p| p["records"].as_u64().unwrap()).sum()
            };
            assert_eq!(
                (back("small"), back("large")),
                (SMALL as u64, LARGE as u64),
                "{what}: {report}"
            );
            assert!(
                repaired.iter().all(|p| p["lost"].as_array().unwrap().is_empty()),
                "{what}: {report}"
            );
        } else {
            assert!(
                report["damaged"].as_array().unwrap().is_empty(),
                "{what}: {report}"
            );
        }
        let node = Node::start(&home, &[]).unwrap_or_else(|e| panic!("{what}: {e}"));
        let mut found = read(&node, "small", SMALL);
        found.sort_by_key(|v| v[6..].parse::<usize>().unwrap());
        assert_eq!(found, small, "{what}");
        assert_eq!(read(&node, "large", LARGE), large, "{what}");
        // The group continues at its committed offset.
        let next = text(
            &node
                .cli(&["consume", "large", "--group", "g", "--count", "1"], "")
                .unwrap(),
        );
        assert!(
            next.starts_with("10 "),
            "{what}: {}",
            next.get(..20).unwrap_or(&next)
        );
        text(&node.cli(&["produce", "small"], "more\n").unwrap());
        assert_eq!(read(&node, "small", SMALL + 1).len(), SMALL + 1, "{what}");
        node.stop().unwrap();
    }
}

#[test]
fn node_without_its_database_does_not_start_empty() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), &[]).unwrap();
    text(&node.cli(&["topic", "create", "t"], "").unwrap());
    text(&node.cli(&["produce", "t"], "one\n").unwrap());
    node.stop().unwrap();
    let data = dir.path().join("data");
    fs::rename(data.join("db"), data.join("elsewhere")).unwrap();
    let Err(refused) = Node::start(dir.path(), &[]) else {
        panic!("it began anew without its database")
    };
    let refused = refused.to_string();
    assert!(
        refused.contains("`db` is not there") && refused.contains("--repair"),
        "{refused}"
    );
    fs::rename(data.join("elsewhere"), data.join("db")).unwrap();
    let node = Node::start(dir.path(), &[]).unwrap();
    assert_eq!(read(&node, "t", 1), ["one"]);
}

#[test]
fn node_refuses_to_start_until_a_repair_that_reports_losses() {
    let dir = tempfile::tempdir().unwrap();
    // Small, so that tables, blobs, values and journals all have some.
    let env = [
        ("WEIR_MEMTABLE_BYTES", "1048576"),
        ("WEIR_VALUE_FILE_BYTES", "2097152"),
    ];
    let node = Node::start(dir.path(), &env).unwrap();
    text(&node.cli(&["topic", "create", "small"], "").unwrap());
    text(&node.cli(&["topic", "create", "large"], "").unwrap());
    for round in 0..20 {
        let lines: Vec<String> = (0..100)
            .map(|n| format!("{} {}", round * 100 + n, "s".repeat(300)))
            .collect();
        text(
            &node
                .cli(&["produce", "small"], &(lines.join("\n") + "\n"))
                .unwrap(),
        );
        let lines: Vec<String> = (0..30)
            .map(|n| format!("{} {}", round * 30 + n, "l".repeat(9_000)))
            .collect();
        text(
            &node
                .cli(&["produce", "large"], &(lines.join("\n") + "\n"))
                .unwrap(),
        );
    }
    node.kill().unwrap();
    let damages: [(&str, Damage); 4] = [
        ("the version", |data| {
            fs::remove_file(data.join("db/version")).unwrap()
        }),
        ("a keyspace's state", |data| {
            fs::remove_file(data.join("db/keyspaces/2/current")).unwrap()
        }),
        ("the rows", |data| {
            fs::remove_dir_all(data.join("db/keyspaces/3")).unwrap()
        }),
        ("the journals", |data| {
            for entry in fs::read_dir(data.join("db")).unwrap() {
                let path = entry.unwrap().path();
                if path.extension().is_some_and(|e| e == "jnl") {
                    fs::remove_file(path).unwrap();
                }
            }
        }),
    ];
    for (n, (what, damage)) in damages.into_iter().enumerate() {
        let home = dir.path().join(n.to_string());
        fs::create_dir(&home).unwrap();
        let data = home.join("data");
        copy(&dir.path().join("data"), &data);
        damage(&data);
        // A scrub without `--repair` gives nothing up.
        let mut scrub = Command::new(weir());
        scrub.args(["scrub", "-o", "json", "--data"]).arg(&data);
        let looked = scrub.output().unwrap();
        assert!(
            !looked.status.success(),
            "{what}: {}",
            String::from_utf8_lossy(&looked.stdout)
        );
        for _ in 0..2 {
            let Err(refused) = Node::start(&home, &env) else {
                panic!("{what}: it came up with the damage")
            };
            assert!(refused.to_string().contains("--repair"), "{what}: {refused}");
        }
        let mut repair = Command::new(weir());
        repair
            .args(["scrub", "--repair", "-o", "json", "--data"])
            .arg(&data);
        let report: serde_json::Value = serde_json::from_slice(&repair.output().unwrap().stdout).unwrap();
        let node = Node::start(&home, &env).unwrap_or_else(|e| panic!("{what}: {e}"));
        for (topic, all) in [("small", 2_000u64), ("large", 600)] {
            let of = report["repaired"].as_array().unwrap().iter();
            let of: Vec<_> = of.filter(|p| p["topic"] == topic).collect();
            let back: u64 = of.iter().map(|p| p["records"].as_u64().unwrap()).sum();
            let lost = of.iter().any(|p| !p["lost"].as_array().unwrap().is_empty());
            assert!(
                back == all || lost,
                "{what}: {back} of {all} of {topic}, and nothing lost: {report}"
            );
            if what != "the journals" {
                assert_eq!(back, all, "{what}: {topic}: {report}");
            }
            // No offset is given out twice.
            let more = text(&node.cli(&["produce", topic, "-o", "json"], "more\n").unwrap());
            assert!(!more.is_empty());
            let end = node.cli(&["topic", "describe", topic, "-o", "json"], "").unwrap();
            let end: serde_json::Value = serde_json::from_slice(&end.stdout).unwrap();
            let end = end["partitions"][0]["committed_end"].as_u64().unwrap();
            assert!(end > all, "{what}: {topic} ends at {end}");
        }
        node.stop().unwrap();
    }
}

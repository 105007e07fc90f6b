//! What people ask of the command line about groups and dead letters.

use serde_json::Value;
use std::process::Output;
use weir_tests::Node;

fn text(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn json(output: &Output) -> Vec<Value> {
    let lines = text(output);
    lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn refused(output: &Output) -> String {
    assert!(!output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn groups_are_listed_set_back_and_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), &[]).unwrap();
    let run = |args: &[&str]| node.cli(args, "").unwrap();
    text(&run(&["topic", "create", "t"]));
    let lines: String = (0..10).map(|n| format!("{n}\n")).collect();
    text(&node.cli(&["produce", "t"], &lines).unwrap());
    assert_eq!(text(&run(&["group", "list"])).lines().count(), 1, "a heading");
    assert_eq!(
        text(&run(&["consume", "t", "--group", "g", "--count", "4"])),
        "0\n1\n2\n3\n"
    );
    let listed = json(&run(&["group", "list", "-o", "json"]));
    assert_eq!(
        (listed[0]["name"].as_str(), listed[0]["state"].as_str()),
        (Some("g"), Some("Empty"))
    );
    let described = |name: &str| json(&run(&["group", "describe", name, "-o", "json"])).remove(0);
    let place = described("g")["offsets"][0].clone();
    assert_eq!(
        (
            place["offset"].as_u64(),
            place["end"].as_u64(),
            place["lag"].as_u64()
        ),
        (Some(4), Some(10), Some(6))
    );
    assert!(text(&run(&["group", "describe", "g"])).contains("lag       6"));

    let reset = |args: &[&str]| run(&[&["group", "reset-offsets", "g", "--topic", "t"], args].concat());
    // Only looked at.
    text(&reset(&["--to-place", "end"]));
    assert_eq!(described("g")["offsets"][0]["offset"], 4);
    text(&reset(&["--to-place", "end", "--execute"]));
    assert_eq!(text(&run(&["consume", "t", "--group", "g"])), "");
    text(&reset(&["--to-place", "8", "--execute"]));
    assert_eq!(text(&run(&["consume", "t", "--group", "g"])), "8\n9\n");
    text(&reset(&["--to-place", "1970-01-01T00:00:00Z", "--execute"]));
    assert_eq!(described("g")["offsets"][0]["offset"], 0);
    for (args, why) in [
        (&["--to-place", "11"][..], "from 0 to 10"),
        (&["--to-place", "yesterday"], "start, end, or an offset"),
        (&["--to-place", "end", "--partition", "3"], "has 1 partitions"),
    ] {
        let said = refused(&reset(args));
        assert!(said.contains(why), "{said}");
    }
    text(&run(&["group", "delete", "g"]));
    for args in [["group", "describe", "g"], ["group", "delete", "g"]] {
        let said = refused(&run(&args));
        assert!(said.contains("there is no group `g`"), "{said}");
    }
}

#[test]
fn dead_letters_are_shown_and_replayed_once_as_they_were() {
    const PIPELINE: &str =
        "name = 'p'\nsource = 't'\n[[stages]]\nmodule = 'threshold'\nconfig = { field = 'v', limit = 5 }\n";
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), &[]).unwrap();
    let run = |args: &[&str]| node.cli(args, "").unwrap();
    text(&run(&["topic", "create", "t", "--partitions", "3"]));
    let wasm = dir.path().join("threshold.wasm");
    std::fs::write(&wasm, weir_tests::module("threshold")).unwrap();
    text(&run(&[
        "module",
        "push",
        wasm.to_str().unwrap(),
        "--name",
        "threshold",
        "--version",
        "1",
    ]));
    let file = dir.path().join("p.toml");
    std::fs::write(&file, PIPELINE).unwrap();
    text(&run(&["pipeline", "apply", file.to_str().unwrap()]));
    let lines =
        "{\"id\":\"a\",\"v\":9}\n{\"id\":\"a\",\"w\":1}\n{\"id\":\"b\",\"w\":2}\n{\"id\":\"c\",\"w\":3}\n";
    text(
        &node
            .cli(&["produce", "t", "--format", "json", "--key-field", "id"], lines)
            .unwrap(),
    );

    let listed = || json(&run(&["deadletter", "list", "-o", "json"])).remove(0);
    let list = listed();
    assert_eq!(
        (list["topic"].as_str(), list["letters"].as_u64()),
        (Some("t.dead"), Some(3)),
        "{list}"
    );
    assert_eq!(
        (&list["pipelines"][0], &list["not_replayed"]),
        (&"p".into(), &3.into())
    );
    let shown = json(&run(&["deadletter", "show", "t.dead", "-o", "json"]));
    assert_eq!(shown.len(), 3);
    assert_eq!(shown[0]["why"]["weir.module.name"], "threshold@1", "{}", shown[0]);
    assert_eq!(shown[0]["why"]["weir.source.topic"], "t");
    assert!(text(&run(&["deadletter", "show", "t.dead", "--count", "1"])).contains("no number"));

    // Nobody refuses them any more.
    text(&run(&["pipeline", "remove", "p"]));
    text(&run(&["deadletter", "replay", "t.dead", "--count", "1"]));
    text(&run(&["deadletter", "replay", "t.dead"]));
    text(&run(&["deadletter", "replay", "t.dead"]));
    assert_eq!(listed()["not_replayed"], 0);
    let mut all = json(&run(&["consume", "t", "-o", "json"]));
    all.sort_by_key(|record| record["value"].to_string());
    let was = |record: &Value| {
        (
            record["key"].as_str().unwrap().to_owned(),
            record["value"].as_str().unwrap().to_owned(),
        )
    };
    let want: Vec<(String, String)> = lines
        .lines()
        .map(|line| (line[7..8].to_owned(), line.to_owned()))
        .collect();
    let mut got: Vec<_> = all.iter().map(was).collect();
    got.sort();
    assert_eq!(got, want);
    assert!(
        all.iter()
            .all(|record| record["headers"].as_array().unwrap().is_empty()),
        "{all:?}"
    );
    // And again, somewhere else, if that is asked for.
    text(&run(&["topic", "create", "again"]));
    text(&run(&[
        "deadletter",
        "replay",
        "t.dead",
        "--again",
        "--into",
        "again",
    ]));
    assert_eq!(json(&run(&["consume", "again", "-o", "json"])).len(), 3);
    let said = refused(&run(&["deadletter", "replay", "t.dead", "--into", "t.dead"]));
    assert!(said.contains("the topic that they lie in"), "{said}");
}

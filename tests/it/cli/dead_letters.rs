//! Dead letters on the command line.

use serde_json::Value;
use weir_tests::Node;
use weir_tests::cli::{objects, refusal, text};

#[test]
fn dead_letters_are_shown_and_replayed_once() {
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

    let listed = || objects(&run(&["deadletter", "list", "-o", "json"])).remove(0);
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
    let shown = objects(&run(&["deadletter", "show", "t.dead", "-o", "json"]));
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
    let mut all = objects(&run(&["consume", "t", "-o", "json"]));
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
    assert_eq!(objects(&run(&["consume", "again", "-o", "json"])).len(), 3);
    let said = refusal(&run(&["deadletter", "replay", "t.dead", "--into", "t.dead"]));
    assert!(said.contains("the topic that they lie in"), "{said}");
}

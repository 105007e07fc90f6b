//! A label of a module keeps its digest: the same bytes under another label do not move the first label, and
//! other bytes do not get the label.

use serde_json::Value;
use weir_tests::{Node, module};

const PIPELINE: &str = "\
name = \"hot\"
source = \"t\"
[[stages]]
module = \"m1@1\"
config = { field = \"t\", limit = 1 }
";

#[test]
fn second_label_of_a_module_keeps_the_first() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), &[]).unwrap();
    let file = |name: &str| {
        let path = dir.path().join(format!("{name}.wasm"));
        std::fs::write(&path, module(name)).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (threshold, route) = (file("threshold"), file("route"));
    let pipeline = dir.path().join("hot.toml");
    std::fs::write(&pipeline, PIPELINE).unwrap();
    let pipeline = pipeline.to_str().unwrap();
    let run = |node: &Node, args: &[&str]| {
        let done = node.cli(args, "").unwrap();
        let said = format!(
            "{}{}",
            String::from_utf8_lossy(&done.stdout),
            String::from_utf8_lossy(&done.stderr)
        );
        (done.status.success(), said)
    };
    let push = |node: &Node, file: &str, name: &str, version: &str| {
        run(
            node,
            &["module", "push", file, "--name", name, "--version", version],
        )
    };
    let labels = |node: &Node| {
        let (_, said) = run(node, &["module", "list", "-o", "json"]);
        let rows = said
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap());
        let text = |row: &Value, field: &str| row[field].as_str().unwrap().to_owned();
        rows.map(|row| format!("{}@{}", text(&row, "name"), text(&row, "version")))
            .collect::<Vec<_>>()
    };
    assert!(run(&node, &["topic", "create", "t"]).0);
    assert!(push(&node, &threshold, "m1", "1").0);
    let (applied, said) = run(&node, &["pipeline", "apply", pipeline]);
    assert!(applied, "{said}");
    let (pushed, said) = push(&node, &threshold, "m2", "7");
    assert!(pushed && said.contains("m2"), "{said}");
    assert_eq!(labels(&node), ["m1@1", "m2@7"]);
    // Other bytes get neither.
    for (name, version) in [("m1", "1"), ("m2", "7")] {
        let (pushed, said) = push(&node, &route, name, version);
        assert!(!pushed && said.contains("exists with other bytes"), "{said}");
    }
    let (applied, said) = run(&node, &["pipeline", "apply", pipeline]);
    assert!(applied, "{said}");
    node.stop().unwrap();
    let node = Node::start(dir.path(), &[]).unwrap();
    assert_eq!(labels(&node), ["m1@1", "m2@7"]);
    // A label that a pipeline uses stays; another label of the same bytes may go.
    let (removed, said) = run(&node, &["module", "remove", "m1@1"]);
    assert!(!removed && said.contains("used by pipeline"), "{said}");
    let (removed, said) = run(&node, &["module", "remove", "m2@7"]);
    assert!(removed && said.contains("m2@7"), "{said}");
    let (removed, said) = run(&node, &["module", "remove", "m1"]);
    assert!(!removed && said.contains("used by pipeline"), "{said}");
    assert!(push(&node, &threshold, "m2", "7").0);
    assert!(run(&node, &["pipeline", "remove", "hot"]).0);
    // The first goes, the bytes stay for the other.
    assert!(run(&node, &["module", "remove", "m1@1"]).0);
    assert_eq!(labels(&node), ["m2@7"]);
    assert!(!run(&node, &["pipeline", "apply", pipeline]).0);
    std::fs::write(pipeline, PIPELINE.replace("m1@1", "m2")).unwrap();
    let (applied, said) = run(&node, &["pipeline", "apply", pipeline]);
    assert!(applied, "{said}");
    // So many labels, and no more.
    for n in 0..15 {
        assert!(push(&node, &threshold, "many", &n.to_string()).0);
    }
    let (pushed, said) = push(&node, &threshold, "many", "15");
    assert!(!pushed && said.contains("16 names and versions"), "{said}");
}

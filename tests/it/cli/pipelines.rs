//! Pipelines on the command line.

use weir_tests::Node;
use weir_tests::cli::{objects, text};

#[test]
fn pipeline_is_applied_paused_and_resumed_across_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), &[]).unwrap();
    let module = dir.path().join("weir_module_threshold.wasm");
    std::fs::write(&module, weir_tests::module("threshold")).unwrap();
    let file = dir.path().join("p.toml");
    let spec = "name = \"p\"\nsource = \"t\"\n[outputs]\nalerts = \"alerts\"\n[[stages]]\nmodule = \"threshold\"\n\
                config = { field = \"t\", limit = 10, then = \"alerts\", else = \"keep\" }\n";
    std::fs::write(&file, spec).unwrap();
    let (module, file) = (module.to_str().unwrap(), file.to_str().unwrap());
    let run = |node: &Node, args: &[&str], input: &str| node.cli(args, input).unwrap();
    for topic in ["t", "alerts"] {
        run(&node, &["topic", "create", topic], "");
    }
    let early = run(&node, &["pipeline", "apply", file], "");
    assert!(String::from_utf8_lossy(&early.stderr).contains("no module `threshold`"));
    assert!(run(&node, &["module", "push", module], "").status.success());
    assert!(run(&node, &["pipeline", "apply", file], "").status.success());
    let records = "{\"t\":5}\n{\"t\":50}\nrubbish\n{\"t\":7}\n";
    assert!(run(&node, &["produce", "t"], records).status.success());
    assert_eq!(text(&run(&node, &["consume", "t"], "")), "{\"t\":5}\n{\"t\":7}\n");
    assert_eq!(text(&run(&node, &["consume", "alerts"], "")), "{\"t\":50}\n");
    let dead = objects(&run(&node, &["consume", "t.dead", "-o", "json"], ""));
    let header = |name: &str| {
        let headers = dead[0]["headers"].as_array().unwrap();
        headers
            .iter()
            .find(|h| h["name"] == name)
            .map(|h| h["value"].as_str().unwrap().to_owned())
            .unwrap()
    };
    assert_eq!(dead[0]["value"], "rubbish");
    assert_eq!(
        (header("weir.source.topic"), header("weir.source.partition")),
        ("t".to_owned(), "0".to_owned())
    );
    assert_eq!(header("weir.source.offset").parse::<u64>().unwrap(), 2);
    assert_eq!(
        (header("weir.error").as_str(), header("weir.attempts").as_str()),
        ("no number at `t`", "1")
    );
    let modules = objects(&run(&node, &["module", "list", "-o", "json"], ""));
    assert_eq!(header("weir.module"), modules[0]["digest"].as_str().unwrap());
    assert_eq!(header("weir.module.name"), "threshold@0.1.0");

    assert!(run(&node, &["pipeline", "pause", "p"], "").status.success());
    let refused = run(&node, &["produce", "t"], "{\"t\":1}\n");
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("paused"));
    node.stop().unwrap();
    let node = Node::start(dir.path(), &[]).unwrap();
    let listed = objects(&run(&node, &["pipeline", "list", "-o", "json"], ""));
    assert_eq!(
        (listed[0]["state"].as_str(), listed[0]["revision"].as_u64()),
        (Some("paused"), Some(1))
    );
    assert!(run(&node, &["pipeline", "resume", "p"], "").status.success());
    assert!(run(&node, &["produce", "t"], "{\"t\":99}\n").status.success());
    assert_eq!(
        text(&run(&node, &["consume", "alerts"], "")),
        "{\"t\":50}\n{\"t\":99}\n"
    );
    let used = run(&node, &["module", "remove", "threshold"], "");
    assert!(String::from_utf8_lossy(&used.stderr).contains("used by pipeline `p`"));
    assert!(run(&node, &["pipeline", "remove", "p"], "").status.success());
    assert!(
        run(&node, &["module", "remove", "threshold"], "")
            .status
            .success()
    );
}

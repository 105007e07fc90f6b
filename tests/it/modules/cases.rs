//! The cases of the ready-made modules, run as components: native behaviour holds in the sandbox.

use serde_json::json;
use std::sync::Arc;
use weir_testkit::Faults;
use weir_testkit::case::{Case, difference};
use weir_tests::{Node, block_on};

#[test]
fn module_cases_hold_in_the_sandbox_at_any_batch_size() {
    let mut cases = 0;
    for entry in std::fs::read_dir(weir_tests::root().join("modules")).unwrap() {
        let dir = entry.unwrap().path();
        let name = dir.file_name().unwrap().to_str().unwrap();
        let module = weir_testkit::load(&weir_tests::module(name)).unwrap();
        for entry in std::fs::read_dir(dir.join("cases")).unwrap() {
            let path = entry.unwrap().path();
            let case = Case::read(&path).unwrap();
            if let Some(words) = case.output["error"].as_str() {
                let refused = case.run(&module, 1, Arc::new(())).unwrap_err().to_string();
                assert!(refused.contains(words), "{}: {refused}", path.display());
                cases += 1;
                continue;
            }
            for batch in [1_000, 1] {
                for faults in [Faults::Kills, Faults::Traps] {
                    let ran = case.run_with(faults, &module, batch, Arc::new(())).unwrap();
                    let wrong = difference(&case.output, &ran.output);
                    assert_eq!(wrong, None, "{}, {faults:?}", path.display());
                }
                let ran = case.run(&module, batch, Arc::new(())).unwrap();
                let wrong = difference(&case.output, &ran.output);
                assert_eq!(wrong, None, "{} in batches of {batch}", path.display());
            }
            cases += 1;
        }
    }
    assert!(cases >= 20, "only {cases} cases were found");
}

/// The pipeline file of each README can be applied as printed.
#[test]
fn module_readmes_can_be_followed_as_typed() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), &[]).unwrap();
    block_on(async {
        let client = node.client().await.unwrap();
        for entry in std::fs::read_dir(weir_tests::root().join("modules")).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            client
                .push_module(name, "0.1.0", &weir_tests::module(name))
                .await
                .unwrap();
            let readme = std::fs::read_to_string(path.join("README.md")).unwrap();
            let typed = readme
                .split("```toml\n")
                .nth(1)
                .and_then(|r| r.split("```").next());
            let typed = typed.unwrap_or_else(|| panic!("{name}: no TOML in its README"));
            // Of most, any topic can be the source.
            let source = match typed.contains("source = ") {
                true => String::new(),
                false => format!("source = \"of.{name}\""),
            };
            let text = format!("name = \"{name}\"\n{source}\n{typed}");
            let table: toml::Table = text.parse().unwrap();
            assert_eq!(table["stages"][0]["module"].as_str(), Some(name));
            let outputs = table.get("outputs").and_then(toml::Value::as_table);
            let outputs = outputs
                .into_iter()
                .flatten()
                .filter_map(|(_, topic)| topic.as_str());
            let sources = match &table["source"] {
                toml::Value::Array(sources) => sources.iter().collect(),
                source => vec![source],
            };
            for topic in outputs.chain(sources.into_iter().filter_map(toml::Value::as_str)) {
                let _ = client.create_topic(topic, 1, &[]).await;
            }
            let applied = client.apply_pipeline(&text).await;
            applied.unwrap_or_else(|e| panic!("{name}: {e}"));
        }
    });
    node.stop().unwrap();
}

/// A module that counts in its memory alone passes as long as its instance lives, and on a node not much
/// longer.
#[test]
fn cases_notice_memory_outside_the_state() {
    let dir = tempfile::tempdir().unwrap();
    let case = r#"{ "config": { "mode": "amnesia" },
        "input": [ { "value": "a" }, { "value": "b" }, { "value": "c" }, { "advance": { "event": 5 } }, { "value": "d" }, { "value": "e" } ],
        "output": { "main": [ { "key": null, "value": "b" }, { "key": null, "value": "d" } ] } }"#;
    std::fs::write(dir.path().join("case.json"), case).unwrap();
    std::fs::write(dir.path().join("module.wasm"), weir_tests::guest("hostile")).unwrap();
    let output = std::process::Command::new(weir_tests::weir())
        .args(["module", "test", "module.wasm", "case.json"])
        .current_dir(dir.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(!output.status.success(), "{said}");
    assert!(
        said.contains("when the node is killed between two entries"),
        "{said}"
    );
    assert!(said.contains("belongs into its state"), "{said}");
}

#[test]
fn differences_are_explained() {
    let (one, two) = (
        json!({ "main": [1, 2] }),
        json!({ "main": [1, 3], "dead": ["x"] }),
    );
    let nothing = json!({});
    let words = |a, b| difference(a, b).unwrap_or_default();
    assert_eq!(difference(&one, &one), None);
    assert_eq!(words(&one, &two), "main[1] is not\n    2 but\n    3");
    assert_eq!(words(&nothing, &two), "main[0] is one too many:\n    1");
    assert_eq!(words(&one, &nothing), "main[0] is missing:\n    1");
    for (case, why) in [
        (json!({}), "has no list `input`"),
        (
            json!({ "input": [{ "advance": { "moon": 1 } }] }),
            "item 0 of `input`: no clock `moon`",
        ),
        (
            json!({ "input": [{ "valeu": 1 }] }),
            "item 0 of `input`: no field `valeu`",
        ),
        (
            json!({ "config": { "a": null }, "input": [] }),
            "parameter `a` in `config` is null",
        ),
    ] {
        let told = Case::parse(&case).unwrap_err().to_string();
        assert!(told.starts_with(why), "{told}");
    }
}

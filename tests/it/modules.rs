//! The cases of the ready-made modules, run as components: what holds natively holds in the sandbox.

use serde_json::json;
use std::sync::Arc;
use weir_testkit::case::{Case, difference};

#[test]
fn every_case_holds_in_the_sandbox_at_any_batch_size() {
    let mut cases = 0;
    for entry in std::fs::read_dir(weir_tests::root().join("modules")).unwrap() {
        let dir = entry.unwrap().path();
        let name = dir.file_name().unwrap().to_str().unwrap();
        let module = weir_testkit::load(&weir_tests::module(name)).unwrap();
        for entry in std::fs::read_dir(dir.join("cases")).unwrap() {
            let path = entry.unwrap().path();
            let case = Case::read(&path).unwrap();
            for batch in [1_000, 1] {
                let ran = case.run(&module, batch, Arc::new(())).unwrap();
                let wrong = difference(&case.output, &ran.output);
                assert_eq!(wrong, None, "{} in batches of {batch}", path.display());
            }
            cases += 1;
        }
    }
    assert!(cases >= 20, "only {cases} cases were found");
}

#[test]
fn a_difference_is_told_in_words() {
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

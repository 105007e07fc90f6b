//! Consumer groups on the command line.

use weir_tests::Node;
use weir_tests::cli::{objects, refusal, text};

#[test]
fn group_commands_list_reset_and_delete() {
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
    let listed = objects(&run(&["group", "list", "-o", "json"]));
    assert_eq!(
        (listed[0]["name"].as_str(), listed[0]["state"].as_str()),
        (Some("g"), Some("Empty"))
    );
    let described = |name: &str| objects(&run(&["group", "describe", name, "-o", "json"])).remove(0);
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
        let said = refusal(&reset(args));
        assert!(said.contains(why), "{said}");
    }
    text(&run(&["group", "delete", "g"]));
    for args in [["group", "describe", "g"], ["group", "delete", "g"]] {
        let said = refusal(&run(&args));
        assert!(said.contains("there is no group `g`"), "{said}");
    }
}

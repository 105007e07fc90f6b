//! Error messages and exit codes of the command line.

use weir_tests::Node;

#[test]
fn errors_name_the_remedy_and_exit_codes_tell_usage_from_failure() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), &[]).unwrap();
    let case = |args: &[&str], code: i32, words: &str| {
        let output = node.cli(args, "x\n").unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
        assert!(said.contains(words), "{args:?} does not say `{words}`: {said}");
    };
    case(&["produce", "nowhere"], 1, "weir topic list");
    case(&["topic", "create", "a b"], 1, "use 1 to 249 letters");
    case(
        &["topic", "create", "t", "--config", "retention=1"],
        1,
        "retention.ms",
    );
    case(
        &["topic", "create", "t", "--config", "durability=maybe"],
        1,
        "sync or lazy",
    );
    case(&["topic", "create", "t", "--config", "nonsense"], 2, "key=value");
    case(&["topic", "create"], 2, "Usage");
    case(&["frobnicate"], 2, "Usage");
    case(&["serve"], 2, "--data DIR");
    case(&["scrub", "--repair"], 2, "--data DIR");
    case(&["produce", "t", "--key-field", "k"], 2, "--format json");
    case(&["pipeline", "apply", "/nowhere.toml"], 1, "/nowhere.toml");
    case(&["pipeline", "pause", "nothing"], 1, "no pipeline `nothing`");
    for args in [
        &["--node", "127.0.0.1:1", "topic", "list"],
        &["topic", "list", "--node", "127.0.0.1:1"],
    ] {
        case(args, 1, "is `weir serve` running there?");
    }
    let file = dir.path().join("bad.toml");
    std::fs::write(&file, "name = \"p\"\nsource = \"t\"\nstages = []\nonerror = 1\n").unwrap();
    case(
        &["pipeline", "apply", file.to_str().unwrap()],
        1,
        "unknown field `onerror`",
    );
    let second = std::process::Command::new(weir_tests::weir())
        .arg("serve")
        .arg("--data")
        .arg(dir.path().join("data"))
        .output();
    let said = String::from_utf8_lossy(&second.unwrap().stderr).into_owned();
    assert!(said.contains("in use by another process"), "{said}");
}

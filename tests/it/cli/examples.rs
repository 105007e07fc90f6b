//! The examples of the repository, run as their READMEs say.

use weir_tests::Node;
use weir_tests::cli::text;

#[test]
fn three_gateways_example_loses_no_record() {
    let path = format!(
        "{}:{}",
        weir_tests::weir().parent().unwrap().display(),
        std::env::var("PATH").unwrap_or_default()
    );
    let output = std::process::Command::new("bash")
        .arg(weir_tests::root().join("examples/three-gateways/run.sh"))
        .env("PATH", path)
        .env("WEIR_DISK_RESERVE_BYTES", weir_tests::RESERVE_BYTES)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{error}");
    assert!(
        said.contains("10000 of 10000") && error.contains("killed gateway 1"),
        "{said}\n{error}"
    );
}

#[test]
fn demo_accounts_for_every_reading() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), &[]).unwrap();
    let output = std::process::Command::new(weir_tests::target().join("debug/machine-temperature"))
        .args(["--node", &node.quic.to_string(), "--modules"])
        .arg(weir_tests::target().join("wasm32-unknown-unknown/release"))
        .arg("--example")
        .arg(weir_tests::root().join("examples/machine-temperature"))
        .output()
        .unwrap();
    let (said, failed) = (
        text(&output),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    );
    assert!(output.status.success(), "{said}{failed}");
    let count = |name: &str| -> u64 {
        let line = said
            .lines()
            .find(|l| l.starts_with(name))
            .unwrap_or_else(|| panic!("no `{name}` in\n{said}"));
        line[name.len()..]
            .split_whitespace()
            .find_map(|w| w.parse().ok())
            .unwrap()
    };
    assert_eq!(count("readings in"), 22_695);
    assert_eq!(
        count("kept") + count("dropped") + count("routed to `alerts`") + count("dead letters"),
        22_695
    );
    assert!(count("  inside labelled windows") > count("  outside"));
}

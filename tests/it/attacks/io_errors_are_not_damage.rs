//! A file that may not be opened, or that there is no descriptor for, is named, and is not damaged: nothing
//! is repaired, set aside or begun anew, and with the obstacle gone everything is there.

use std::fs::{self, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use weir_tests::{Node, weir};

const VALUES: usize = 300;

/// `weir` for whom rights of files count, also if root runs the test; none where that cannot be had.
fn without_rights() -> Option<Command> {
    let mut setpriv = Command::new("setpriv");
    setpriv.args(["--bounding-set", "-dac_override,-dac_read_search"]);
    let mut probe = Command::new("setpriv");
    probe.args(["--bounding-set", "-dac_override,-dac_read_search", "true"]);
    if probe.output().is_ok_and(|o| o.status.success()) {
        return Some(setpriv);
    }
    eprintln!("SKIPPED: rights of files: `setpriv` cannot drop root's");
    None
}

fn files_below(dir: &Path) -> Vec<PathBuf> {
    let (mut left, mut files) = (vec![dir.to_owned()], Vec::new());
    while let Some(at) = left.pop() {
        for entry in fs::read_dir(at).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => left.push(path),
                false => files.push(path),
            }
        }
    }
    files.sort();
    files
}

/// Returns the contents of all files of a directory except locks.
fn contents(data: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let files = files_below(data).into_iter();
    let files = files.filter(|path| !path.ends_with("lock"));
    files
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect()
}

/// A directory with records in tables, journals and files of the value log.
fn filled(dir: &Path) -> PathBuf {
    let node = Node::start(dir, &[]).unwrap();
    assert!(node.cli(&["topic", "create", "t"], "").unwrap().status.success());
    for _ in 0..3 {
        let lines = format!("{}\n", "x".repeat(2_000)).repeat(VALUES / 3);
        assert!(node.cli(&["produce", "t"], &lines).unwrap().status.success());
    }
    node.stop().unwrap();
    dir.join("data")
}

fn scrub(mut command: Command, data: &Path) -> Output {
    command.args(["scrub", "--repair", "--data"]).arg(data);
    command.output().unwrap()
}

#[test]
fn unreadable_file_is_named_and_nothing_repaired() {
    if without_rights().is_none() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let data = filled(dir.path());
    let before = contents(&data);
    let mut tried = 0;
    for (path, _) in before.iter().filter(|(path, _)| path.exists()) {
        let of = path.strip_prefix(&data).unwrap();
        if !(of.starts_with("db") || of.starts_with("values") || of.starts_with("watermark.a")) {
            continue;
        }
        let rights = fs::metadata(path).unwrap().permissions();
        fs::set_permissions(path, Permissions::from_mode(0o000)).unwrap();
        let mut command = without_rights().unwrap();
        command.arg(weir());
        let refused = Node::start_by(command, dir.path()).err().map(|e| e.to_string());
        let mut command = without_rights().unwrap();
        command.arg(weir());
        let scrubbed = scrub(command, &data);
        let (said, shown) = (
            String::from_utf8_lossy(&scrubbed.stderr),
            path.display().to_string(),
        );
        // At its start, a node removes the leftovers of a compaction, readable or not.
        let left = fs::set_permissions(path, rights);
        if refused.is_none() && left.is_err_and(|e| e.kind() == ErrorKind::NotFound) {
            continue;
        }
        tried += 1;
        // A node may do without a file for a while, such as a value that nobody has asked for yet.
        if let Some(refused) = refused {
            assert!(refused.contains(&shown), "{shown}: {refused}");
            assert!(refused.contains("ermission denied"), "{shown}: {refused}");
            assert!(!refused.contains("--repair"), "{shown}: {refused}");
        }
        assert!(
            !scrubbed.status.success() && said.contains(&shown),
            "{shown}: {said}"
        );
        let after: Vec<_> = contents(&data);
        assert!(
            !after
                .iter()
                .any(|(path, _)| path.components().any(|c| c.as_os_str() == "quarantine")),
            "{shown} was set aside"
        );
    }
    assert!(tried > 3, "{before:?}");
    let node = Node::start(dir.path(), &[]).unwrap();
    let read = node
        .cli(
            &["consume", "t", "--count", &VALUES.to_string(), "-o", "json"],
            "",
        )
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&read.stdout).lines().count(), VALUES);
}

#[test]
fn lack_of_descriptors_is_not_damage() {
    let dir = tempfile::tempdir().unwrap();
    let data = filled(dir.path());
    let before = contents(&data);
    let mut refusals = 0;
    for files in [6, 9, 12, 15, 18, 24] {
        let mut command = Command::new("prlimit");
        command.arg(format!("--nofile={files}:{files}")).arg(weir());
        let Err(refused) = Node::start_by(command, dir.path()) else {
            continue;
        };
        let refused = refused.to_string();
        refusals += 1;
        assert!(!refused.contains("--repair"), "{files}: {refused}");
        let mut command = Command::new("prlimit");
        command.arg(format!("--nofile={files}:{files}")).arg(weir());
        let scrubbed = scrub(command, &data);
        let said = String::from_utf8_lossy(&scrubbed.stderr);
        assert!(!said.contains("--repair"), "{files}: {said}");
    }
    assert!(refusals > 0, "no limit was too low");
    let quarantined = contents(&data)
        .iter()
        .any(|(path, _)| path.to_string_lossy().contains("quarantine"));
    assert!(!quarantined, "{before:?}");
    let node = Node::start(dir.path(), &[]).unwrap();
    let read = node
        .cli(
            &["consume", "t", "--count", &VALUES.to_string(), "-o", "json"],
            "",
        )
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&read.stdout).lines().count(), VALUES);
}

//! The directory of a node is closed to others, and a file that somebody else could have put there is not
//! trusted.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use weir_tests::Node;

fn refused(dir: &Path) -> String {
    match Node::start(dir, &[]) {
        Ok(_) => panic!("it started"),
        Err(e) => e.to_string(),
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// All files and directories below `dir`.
fn all(dir: &Path) -> Vec<std::path::PathBuf> {
    let mut found = vec![dir.to_owned()];
    let mut at = 0;
    while let Some(path) = found.get(at).cloned() {
        at += 1;
        if path.is_dir() {
            found.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
    found
}

#[test]
fn data_directory_is_closed_to_other_users() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let node = Node::start(dir.path(), &[]).unwrap();
    node.cli(&["topic", "create", "t"], "").unwrap();
    node.cli(&["produce", "t"], "secret\n").unwrap();
    node.stop().unwrap();
    for path in all(&data) {
        assert_eq!(mode(&path) & 0o077, 0, "{}: {:o}", path.display(), mode(&path));
    }
    // An open directory of an earlier release is closed.
    fs::set_permissions(&data, Permissions::from_mode(0o755)).unwrap();
    Node::start(dir.path(), &[]).unwrap().stop().unwrap();
    assert_eq!(mode(&data), 0o700);
}

#[test]
fn foreign_files_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    Node::start(dir.path(), &[]).unwrap().stop().unwrap();

    // A place for a file that the node writes leads to another.
    let (precious, trap) = (dir.path().join("precious"), data.join("site.json.new"));
    fs::write(&precious, "mine").unwrap();
    symlink(&precious, &trap).unwrap();
    let said = refused(dir.path());
    assert!(
        said.contains("site.json.new") && said.contains("is a link"),
        "{said}"
    );
    assert_eq!(fs::read(&precious).unwrap(), b"mine");
    fs::remove_file(&trap).unwrap();

    // Something that others may write to, however deep.
    let deep = data.join("cache");
    fs::set_permissions(&deep, Permissions::from_mode(0o777)).unwrap();
    let said = refused(dir.path());
    assert!(
        said.contains("cache") && said.contains("written to by others"),
        "{said}"
    );
    fs::set_permissions(&deep, Permissions::from_mode(0o700)).unwrap();

    // The directory itself is a link.
    let elsewhere = dir.path().join("elsewhere");
    fs::rename(&data, &elsewhere).unwrap();
    symlink(&elsewhere, &data).unwrap();
    let said = refused(dir.path());
    assert!(said.contains("is a link"), "{said}");
    fs::remove_file(&data).unwrap();
    fs::rename(&elsewhere, &data).unwrap();

    // Somebody else's file, or directory.
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: files of somebody else, which only root can make");
        return;
    }
    let nobody = rustix::fs::Uid::from_raw(65_534);
    for path in [data.join("cache/key"), data.clone()] {
        rustix::fs::chown(&path, Some(nobody), None).unwrap();
        let said = refused(dir.path());
        assert!(said.contains("belongs to user 65534"), "{said}");
        rustix::fs::chown(&path, Some(rustix::process::geteuid()), None).unwrap();
    }
    Node::start(dir.path(), &[]).unwrap().stop().unwrap();
}

#[test]
fn incomplete_identity_and_known_keys_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let node = Node::start(dir.path(), &[]).unwrap();
    // The command line of these tests keeps its keys beside the node.
    let known = dir.path().join("known_nodes");
    let status = |args: &[&str]| {
        let mut all = vec!["status"];
        all.extend(args);
        std::process::Command::new(weir_tests::weir())
            .args(all)
            .env("WEIR_NODE", node.quic.to_string())
            .env("WEIR_KNOWN_NODES", &known)
            .output()
            .unwrap()
    };
    let other = "ab".repeat(32);
    let said = status(&["--key", &other]);
    assert!(
        !said.status.success() && String::from_utf8_lossy(&said.stderr).contains(&other),
        "{said:?}"
    );
    assert!(status(&[]).status.success());
    assert_eq!(mode(&known), 0o600);
    let whole = fs::read(&known).unwrap();
    fs::write(&known, [&whole[..], b"\xff"].concat()).unwrap();
    let said = status(&[]);
    assert!(
        !said.status.success() && String::from_utf8_lossy(&said.stderr).contains("known_nodes"),
        "{said:?}"
    );
    node.stop().unwrap();

    let (cert, aside) = (data.join("identity.crt"), dir.path().join("aside"));
    let key = fs::read(data.join("identity.key")).unwrap();
    fs::rename(&cert, &aside).unwrap();
    let said = refused(dir.path());
    assert!(said.contains("identity.crt"), "{said}");
    assert_eq!(fs::read(data.join("identity.key")).unwrap(), key);
    fs::rename(&aside, &cert).unwrap();
    Node::start(dir.path(), &[]).unwrap().stop().unwrap();
}

#[test]
fn client_without_a_home_keeps_no_key() {
    let dir = tempfile::tempdir().unwrap();
    let said = std::process::Command::new(weir_tests::weir())
        .arg("status")
        .env_clear()
        .current_dir(dir.path())
        .output()
        .unwrap();
    assert!(
        String::from_utf8_lossy(&said.stderr).contains("set HOME"),
        "{said:?}"
    );
    assert!(fs::read_dir(dir.path()).unwrap().next().is_none());
}

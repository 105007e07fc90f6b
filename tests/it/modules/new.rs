//! `weir module new`: the new project builds, passes and runs as its README says.

use serde_json::{Value, json};
use std::ffi::OsString;
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use weir_tests::{Node, block_on, read_all, weir};

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}\n{told}");
    told.into_owned()
}

#[test]
fn new_rust_module_builds_passes_its_case_and_runs() {
    let dir = tempfile::tempdir().unwrap();
    run(Command::new(weir())
        .args(["module", "new", "rate-limit"])
        .current_dir(dir.path()));
    let project = dir.path().join("rate-limit");
    let target = weir_tests::target().join("new");
    let cargo = |args: &[&str]| {
        let mut command = Command::new("cargo");
        command
            .args(args)
            .current_dir(&project)
            .env("CARGO_TARGET_DIR", &target);
        run(&mut command)
    };
    assert!(cargo(&["test"]).contains("tests::cases ... ok"));
    cargo(&["build", "--release", "--target", "wasm32-unknown-unknown"]);
    let file = target.join("wasm32-unknown-unknown/release/rate_limit.wasm");
    let file = file.to_str().unwrap();
    let told = run(Command::new(weir())
        .args(["module", "test", file, "cases"])
        .current_dir(&project));
    assert!(
        told.contains("1 cases, 0 failed; every output and dead letters seen"),
        "{told}"
    );
    runs_in_a_node(&project, Path::new(file));
}

/// Pushes the module of a project, applies its pipeline, and checks the output.
fn runs_in_a_node(project: &Path, file: &Path) {
    let of_node = tempfile::tempdir().unwrap();
    let node = Node::start(of_node.path(), &[]).unwrap();
    let cli = |args: &[&str], input: &str| {
        let output = node.cli(args, input).unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{args:?}: {told}");
    };
    let named = ["--name", "rate-limit", "--version", "0.1.0"];
    cli(
        &[&["module", "push", file.to_str().unwrap()][..], &named].concat(),
        "",
    );
    cli(&["topic", "create", "readings"], "");
    let pipeline = project.join("pipeline.toml");
    cli(&["pipeline", "apply", pipeline.to_str().unwrap()], "");
    cli(
        &["produce", "readings"],
        "{\"temperature\":55}\n{\"other\":{\"temperature\":66}}\n{\"temperature\":40}\n{\"a\":[1,\"}\\\"\"],\"temperature\":66}\n",
    );
    block_on(async {
        let client = node.client().await.unwrap();
        let values = async |topic: &str| -> Vec<Value> {
            let (records, _) = read_all(&client, topic, 0, 1 << 20).await.unwrap();
            let value = |(_, r): &(u64, weir_types::Record)| {
                serde_json::from_slice(r.value.as_deref().unwrap()).unwrap()
            };
            records.iter().map(value).collect()
        };
        assert_eq!(
            values("readings").await,
            [
                json!({"temperature": 55, "count": 1}),
                json!({"temperature": 66, "count": 2})
            ]
        );
        assert_eq!(
            values("readings.dead").await,
            [json!({"other": {"temperature": 66}})]
        );
    });
    node.stop().unwrap();
}

/// Returns the search path of a project's commands: `weir`, and the tools of its requirements, which are
/// fetched once. `None` where the tools are not available.
fn tools(requirements: Option<&Path>) -> Option<OsString> {
    static ONE: Mutex<()> = Mutex::new(());
    let works = |command: &mut Command| command.output().is_ok_and(|output| output.status.success());
    let mut path = vec![weir().parent().unwrap().to_owned()];
    if let Some(requirements) = requirements {
        let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let place = weir_tests::target().join("python");
        let made =
            place.join("bin/pip").exists() || works(Command::new("python3").args(["-m", "venv"]).arg(&place));
        let mut pip = Command::new(place.join("bin/pip"));
        pip.args(["install", "--quiet", "--requirement"])
            .arg(requirements);
        if !made || !works(&mut pip) {
            return None;
        }
        path.push(place.join("bin"));
    } else if !works(Command::new("npm").arg("ping")) {
        return None;
    }
    path.extend(std::env::split_paths(
        &std::env::var_os("PATH").unwrap_or_default(),
    ));
    std::env::join_paths(path).ok()
}

/// Returns the commands of the first block of a README up to the push, without their comments.
fn commands(readme: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(readme).unwrap();
    let block = text.split("```").nth(1).unwrap();
    let lines = block.lines().map(|l| l.split('#').next().unwrap().trim());
    lines
        .filter(|l| !l.is_empty())
        .take_while(|l| !l.starts_with("weir module push"))
        .map(str::to_owned)
        .collect()
}

/// Makes a project, follows its README, and runs the module on a node.
fn follow(lang: &str) {
    let dir = tempfile::tempdir().unwrap();
    run(Command::new(weir())
        .args(["module", "new", "rate-limit", "--lang", lang])
        .current_dir(dir.path()));
    let project = dir.path().join("rate-limit");
    let requirements = project.join("requirements.txt");
    let Some(path) = tools(requirements.exists().then_some(requirements.as_path())) else {
        println!("SKIPPED: what makes modules of {lang} cannot be had here");
        return;
    };
    let mut told = String::new();
    // The tools of `requirements.txt` are installed by now.
    let commands = commands(&project.join("README.md"));
    for command in commands.iter().filter(|c| !c.starts_with("pip install")) {
        let mut shell = Command::new("sh");
        shell
            .args(["-c", command])
            .current_dir(&project)
            .env("PATH", &path);
        told = run(&mut shell);
    }
    assert!(
        told.contains("1 cases, 0 failed; every output and dead letters seen"),
        "{told}"
    );
    runs_in_a_node(&project, &project.join("rate-limit.wasm"));
    does_as_all_do(&project, &commands, &path);
}

/// Builds another module with the same commands, the same in each language, and compares its behaviour.
fn does_as_all_do(project: &Path, commands: &[String], path: &OsString) {
    let of_all = Path::new(env!("CARGO_MANIFEST_DIR")).join("languages");
    for entry in of_all.read_dir().unwrap() {
        let entry = entry.unwrap();
        if project.join(entry.file_name()).is_file() {
            std::fs::copy(entry.path(), project.join(entry.file_name())).unwrap();
        }
    }
    for case in project.join("cases").read_dir().unwrap() {
        std::fs::remove_file(case.unwrap().path()).unwrap();
    }
    let command = |text: &str| {
        let mut shell = Command::new("sh");
        shell.args(["-c", text]).current_dir(project).env("PATH", path);
        shell
    };
    for case in of_all.join("cases").read_dir().unwrap() {
        let case = case.unwrap();
        // Only languages with exceptions can do this.
        if !(case.file_name() == "caught.json" && project.join("module.c").exists()) {
            std::fs::copy(case.path(), project.join("cases").join(case.file_name())).unwrap();
        }
    }
    let mut told = String::new();
    for text in commands.iter().filter(|c| !c.contains("install")) {
        told = run(&mut command(text));
    }
    assert!(told.contains(", 0 failed"), "{told}");
    if project.join("module.c").exists() {
        return;
    }
    // An exception is reported for the record at hand, whatever loops surround the throw.
    let case = r#"{ "input": [{ "key": "v", "value": "" }, { "key": "?", "value": "" }, { "key": "v", "value": "" }] }"#;
    std::fs::write(project.join("thrown.json"), case).unwrap();
    let output = command("weir module test rate-limit.wasm thrown.json")
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(
        told.contains("cannot process record 1: ") && told.contains("told of the record"),
        "{told}"
    );
}

#[test]
fn new_c_module_builds_passes_its_case_and_runs() {
    follow("c");
}

#[test]
fn new_javascript_module_builds_passes_its_case_and_runs() {
    follow("js");
}

#[test]
fn new_python_module_builds_passes_its_case_and_runs() {
    follow("python");
}

#[test]
fn new_refuses_invalid_and_taken_names() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("taken")).unwrap();
    for (name, words) in [
        ("taken", "`taken` is there already"),
        ("../up", "no name for a module"),
        ("9x", "no name for a module"),
        ("", "no name for a module"),
    ] {
        let mut command = Command::new(weir());
        let output = command
            .args(["module", "new", name])
            .current_dir(dir.path())
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && told.contains(words), "{name}: {told}");
    }
    assert_eq!(
        Path::new(dir.path()).read_dir().unwrap().count(),
        1,
        "nothing is made"
    );
}

//! Pages that follow from the code: settings, metrics, the pipeline file, and modules that a page shows.

use super::{Block, GENERATED, pages, root};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write as _};
use std::net::TcpStream;
use std::process::Command;
use weir_pipeline::Spec;
use weir_tests::{Node, weir};

#[test]
fn settings_and_metrics_are_current() {
    let output = Command::new(weir())
        .args(["serve", "--print-config"])
        .output()
        .unwrap();
    let settings = String::from_utf8(output.stdout).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), &[]).unwrap();
    let metrics = table_of_metrics(&get(&node, "/metrics"));
    node.stop().unwrap();
    holds(
        "node/docs/settings.md",
        &format!("```toml\n{}\n```\n", settings.trim_end()),
    );
    holds("node/docs/metrics.md", &metrics);
}

/// Compares the generated part of a page; with `WEIR_PAGES=write`, writes that part.
fn holds(page: &str, want: &str) {
    let path = root().join(page);
    let text = fs::read_to_string(&path).unwrap();
    let (before, rest) = text.split_once(GENERATED.0).unwrap();
    let (is, after) = rest.split_once(GENERATED.1).unwrap();
    if is == want {
        return;
    }
    assert_eq!(
        std::env::var("WEIR_PAGES").as_deref(),
        Ok("write"),
        "{page} is not current: `WEIR_PAGES=write cargo test -p weir-tests --test it -- pages::generated` writes the page.\n{is}\nis not\n{want}"
    );
    let (begin, end) = GENERATED;
    fs::write(path, format!("{before}{begin}{want}{end}{after}")).unwrap();
}

fn table_of_metrics(text: &str) -> String {
    let mut table = "| metric | type | meaning |\n| --- | --- | --- |\n".to_owned();
    let field = |line: &str, start: &str| -> Option<(String, String)> {
        let (name, rest) = line.strip_prefix(start)?.split_once(' ')?;
        Some((name.to_owned(), rest.to_owned()))
    };
    let types: BTreeMap<String, String> = text.lines().filter_map(|l| field(l, "# TYPE ")).collect();
    for (name, help) in text.lines().filter_map(|line| field(line, "# HELP ")) {
        let _ = writeln!(table, "| `{name}` | {} | {help} |", types[&name]);
    }
    assert!(table.lines().count() > 40, "{text}");
    table
}

fn get(node: &Node, path: &str) -> String {
    let mut stream = TcpStream::connect(node.http).unwrap();
    stream.set_read_timeout(Some(weir_tests::DEADLINE)).unwrap();
    write!(stream, "GET {path} HTTP/1.0\r\nhost: localhost\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// The tables of the page about the pipeline file against the code: the same keys, and defaults that change nothing.
#[test]
fn the_pipeline_file_page_has_every_key_and_its_default() {
    let page = fs::read_to_string(root().join("node/docs/pipeline-file.md")).unwrap();
    let base = "name = \"p\"\nsource = \"t\"\n";
    let stage = "[[stages]]\nmodule = \"m\"\n";
    for section in page.split("\n## ").skip(1) {
        let rows: Vec<Vec<&str>> = section
            .lines()
            .filter(|line| line.starts_with("| `"))
            .map(|line| line.split('|').map(str::trim).collect())
            .collect();
        let Some(name) = section.lines().next().map(|name| name.trim_matches('`')) else {
            continue;
        };
        if rows.is_empty() {
            continue;
        }
        let with = |line: &str| match name {
            "Top level" => format!("{base}{line}\n{stage}"),
            "stages" => format!("{base}{stage}{line}\n"),
            table => format!("{base}{stage}[{table}]\n{line}\n"),
        };
        let told: BTreeSet<&str> = rows.iter().map(|row| row[1].trim_matches('`')).collect();
        let error = Spec::parse(&with("no-such-key = 1")).unwrap_err().to_string();
        let (_, expected) = error
            .split_once("expected ")
            .unwrap_or_else(|| panic!("{name}: {error}"));
        let known: BTreeSet<&str> = expected.split('`').skip(1).step_by(2).collect();
        assert_eq!(told, known, "the keys of {name}");
        let plain = Spec::parse(&with("")).unwrap();
        for row in rows {
            let (key, default) = (row[1].trim_matches('`'), row[2]);
            let value = default.strip_prefix('`').and_then(|rest| rest.strip_suffix('`'));
            if let Some(value) = value.filter(|value| !value.contains('`')) {
                let spec = Spec::parse(&with(&format!("{key} = {value}")));
                assert_eq!(spec.unwrap(), plain, "the default of {name}.{key}");
            }
        }
    }
}

#[test]
fn every_module_is_compiled_and_every_pipeline_parses() {
    let pages = pages();
    let blocks: Vec<(String, Block<'_>)> = pages
        .iter()
        .flat_map(|page| page.blocks().into_iter().map(|block| (page.name(), block)))
        .collect();
    let is_saved = |text: &str| {
        let mut saved = blocks.iter().filter(|(_, block)| block.file.is_some());
        saved.any(|(_, block)| block.text == text)
    };
    for (name, block) in blocks.iter().filter(|(_, block)| block.language == "rust") {
        assert!(
            is_saved(&block.text),
            "{name}:{}: nothing compiles this",
            block.line
        );
    }
    for (name, block) in blocks.iter().filter(|(_, block)| block.language == "toml") {
        if let Some(pipeline) = completed(&block.text) {
            let error = Spec::parse(&pipeline).err().map(|e| e.to_string());
            assert_eq!(error, None, "{name}:{}", block.line);
        }
    }
}

/// Returns the pipeline of which the text is a part; none when the text is of something else.
fn completed(text: &str) -> Option<String> {
    let has = |start: &str| text.lines().any(|line| line.starts_with(start));
    let name = if has("name =") { "" } else { "name = \"p\"\n" };
    let source = if has("source =") { "" } else { "source = \"t\"\n" };
    has("[[stages]]").then(|| format!("{name}{source}{text}"))
}

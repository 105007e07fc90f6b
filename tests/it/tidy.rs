//! The shape of the source: plain words in comments, small files, and arrows inside the crates that run one
//! way.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use weir_tests::root;

/// Most lines of a file.
const LINES_MAX: usize = 800;
/// Files that are larger than [`LINES_MAX`], with the number of lines that they may have.
const LARGE_FILES: [(&str, usize); 0] = [];

/// Most uses per 1,000 words of comments of "what", "it", and "one" or "ones", and most percent of doc comments that
/// open with a question word. Comments of fjall, quinn, restate and s2 stay below these figures.
const WORDS_MAX: Figures = Figures([4.0, 9.0, 3.0, 2.0]);

/// Crates whose files import from the file that defines a name, and never through their own `lib.rs`.
const IMPORT_FROM_DEFINITION: [&str; 9] = [
    "broker", "http", "kafka", "log", "peer", "pipeline", "quic", "replica", "runtime",
];

/// Rooms of each crate, from the top floor to the bottom: a room knows rooms of lower floors only.
const ROOMS: [(&str, &[&[&str]]); 9] = [
    (
        "log",
        &[
            &["open", "salvage"],
            &["log", "recovery"],
            &["write"],
            &["read"],
            &["shared", "options"],
            &["positions", "store", "error"],
            &["format", "host"],
        ],
    ),
    (
        "replica",
        &[
            &["testing", "peers"],
            &["group"],
            &["raft"],
            &["wire"],
            &["starts", "transport", "error"],
            &["types"],
        ],
    ),
    (
        "runtime",
        &[
            &["engine", "instance"],
            &["module"],
            &["inspect"],
            &["ticker", "host"],
            &["state", "compile"],
            &["error"],
            &["bindings", "digest", "moment", "limits", "words"],
        ],
    ),
    (
        "broker",
        &[
            &["run"],
            &["forward", "cluster"],
            &["rpc"],
            &["records", "topics", "consumers", "pipeline"],
            &["core"],
            &["hook"],
            &["propose"],
            &["coordinator", "placement", "local"],
            &["error"],
            &["state"],
            &["access", "topic"],
        ],
    ),
    (
        "pipeline",
        &[
            &["site"],
            &["manage"],
            &["worker"],
            &["partition", "module_store"],
            &["stages", "error"],
            &["spec"],
            &["priority", "json"],
        ],
    ),
    (
        "quic",
        &[&["serve"], &["session"], &["api"], &["answer"], &["error"]],
    ),
    (
        "http",
        &[
            &["api", "guard"],
            &["openapi"],
            &["connections", "error", "leader"],
        ],
    ),
    (
        "kafka",
        &[
            &["connection", "client"],
            &["skim"],
            &["api"],
            &["configs"],
            &["node"],
            &["error"],
            &["wire"],
        ],
    ),
    (
        "peer",
        &[&["endpoint"], &["frame", "identity"], &["error", "protocol"]],
    ),
];

#[test]
fn comments_keep_to_plain_words() {
    let mut faults = Vec::new();
    for (folder, files) in folders() {
        let figures = Figures::of(&files);
        println!("{folder}: {:?}", figures.0);
        let names = ["what", "it", "one", "opening question words"];
        for ((name, figure), most) in names.into_iter().zip(figures.0).zip(WORDS_MAX.0) {
            if figure > most {
                faults.push(format!("{folder}: \"{name}\" {figure}, over {most}"));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// Paths of other projects' sources begin with `src/`, and are not checked.
#[test]
fn comments_name_paths_that_exist() {
    let bases = [root(), root().join("node"), root().join("node/crates")];
    let starts: Vec<String> = bases
        .iter()
        .flat_map(|base| fs::read_dir(base).unwrap())
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.path().is_dir() && entry.file_name() != "src")
        .map(|entry| format!("{}/", entry.file_name().to_string_lossy()))
        .collect();
    let mut faults = Vec::new();
    for path in folders().into_values().flatten() {
        for line in read(&path).lines() {
            for span in comment(line).1.split('`').skip(1).step_by(2) {
                let is_path = span.ends_with(".rs") || span.ends_with(".md") || span.contains("/src/");
                if !is_path || span.contains([' ', '{', '*']) {
                    continue;
                }
                let is_ours = starts.iter().any(|start| span.starts_with(start.as_str()));
                if is_ours && !bases.iter().any(|base| base.join(span).exists()) {
                    faults.push(format!("{}: there is no `{span}`", name(&path)));
                }
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn files_are_small() {
    let mut faults = Vec::new();
    let mut largest = (0, String::new());
    for path in folders().into_values().flatten() {
        let lines = read(&path).lines().count();
        let name = name(&path);
        let known = LARGE_FILES.iter().find(|(file, _)| *file == name);
        let max = known.map_or(LINES_MAX, |(_, lines)| *lines);
        if lines > max {
            faults.push(format!("{name} has {lines} lines, over {max}"));
        }
        if known.is_some() && lines <= LINES_MAX {
            faults.push(format!("{name} has {lines} lines: it is an exception no more"));
        }
        largest = largest.max((lines, name));
    }
    println!("largest file: {} with {} lines", largest.1, largest.0);
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn files_import_from_the_file_that_defines() {
    let mut faults = Vec::new();
    for name in IMPORT_FROM_DEFINITION {
        let files = Crate::read(&root().join("node/crates").join(name));
        let through = files.imports_through_lib();
        println!("{name}: {} imports through lib.rs", through.len());
        faults.extend(through.into_iter().map(|found| format!("{name}: {found}")));
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn rooms_know_lower_rooms_only() {
    let mut faults = Vec::new();
    for (name, floors) in ROOMS {
        faults.extend(rooms(name, floors));
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn no_circles_between_the_files_of_a_crate() {
    let mut faults = Vec::new();
    for dir in crates() {
        let crate_name = name(&dir);
        let circles = Crate::read(&dir).circles();
        let files = circles.iter().map(Vec::len).sum::<usize>();
        println!("{crate_name}: {files} files in circles");
        if files > 0 {
            faults.push(format!("{crate_name}: files in circles: {circles:?}"));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn use_trees_are_read_as_paths() {
    let module = ["a".to_owned(), "b".to_owned()];
    let code = "use crate::{x::{Y, z::*}, w as v}; fn f(_: super::Q) { self::r::s() }";
    let found: Vec<String> = paths(&module, code).iter().map(|path| path.join("::")).collect();
    assert_eq!(found, ["x::Y", "x::z", "w", "a::Q", "a::b::r::s"]);
    assert_eq!(
        words_of(" Not `what` it says: one's"),
        ["Not", "X", "it", "says", "one's"]
    );
}

/// Word figures of comments, in the order of [`WORDS_MAX`], with one decimal.
#[derive(Clone, Copy)]
struct Figures([f64; 4]);

impl Figures {
    fn of(files: &[PathBuf]) -> Self {
        const QUESTIONS: [&str; 7] = ["What", "Whether", "Who", "Where", "How", "Which", "Whose"];
        let (mut words, mut docs, mut counts, mut openings) = (0_usize, 0_usize, [0_usize; 3], 0_usize);
        for file in files {
            let text = read(file);
            let mut before = "";
            for line in text.lines() {
                let (kind, comment) = comment(line);
                let all = words_of(comment);
                words += all.len();
                for word in &all {
                    match word.to_ascii_lowercase().as_str() {
                        "what" => counts[0] += 1,
                        "it" => counts[1] += 1,
                        "one" | "ones" | "one's" => counts[2] += 1,
                        _ => {}
                    }
                }
                if kind != before && matches!(kind, "///" | "//!") {
                    docs += 1;
                    let opens = |first: &String| QUESTIONS.contains(&first.as_str());
                    openings += usize::from(all.first().is_some_and(opens));
                }
                before = kind;
            }
        }
        let share = |count: usize, of: usize, scale: f64| {
            (count as f64 * scale * 10.0 / of.max(1) as f64).round() / 10.0
        };
        let [what, it, one] = counts.map(|count| share(count, words, 1_000.0));
        Self([what, it, one, share(openings, docs, 100.0)])
    }
}

/// Returns kind and text of a line that is a comment; of any other, nothing.
fn comment(line: &str) -> (&'static str, &str) {
    let line = line.trim_start();
    for kind in ["///", "//!", "//"] {
        if let Some(text) = line.strip_prefix(kind) {
            return (kind, text);
        }
    }
    ("", "")
}

/// Returns the words of a comment; code between backticks counts as a single word.
fn words_of(comment: &str) -> Vec<String> {
    let prose: Vec<&str> = comment.split('`').collect();
    let code_is_closed = prose.len() % 2 == 1;
    let plain: String = prose
        .iter()
        .enumerate()
        .map(
            |(n, part)| match n % 2 == 1 && (code_is_closed || n + 1 < prose.len()) {
                true => "X",
                false => part,
            },
        )
        .collect();
    let words = plain.split(|c: char| !(c.is_ascii_alphabetic() || c == '\''));
    words.filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// A crate as its source files, by module path.
struct Crate {
    modules: BTreeMap<Vec<String>, String>,
}

impl Crate {
    /// Reads the crate in `dir` without its tests.
    fn read(dir: &Path) -> Self {
        let src = dir.join("src");
        let mut modules = BTreeMap::new();
        for file in rust_files(&src) {
            let inside = file.strip_prefix(&src).unwrap().with_extension("");
            let mut path: Vec<String> = inside
                .iter()
                .map(|part| part.to_string_lossy().into_owned())
                .collect();
            if path
                .last()
                .is_some_and(|last| ["mod", "lib", "main"].contains(&last.as_str()))
            {
                path.pop();
            }
            if !path.iter().any(|part| part.starts_with("tests")) {
                modules.insert(path, code(&read(&file)));
            }
        }
        Self { modules }
    }

    /// Returns the module that defines the item at `path`: the longest prefix that is a file.
    fn module_of(&self, path: &[String]) -> Option<&Vec<String>> {
        let prefixes = (1..=path.len()).rev().map(|n| &path[..n]);
        prefixes
            .filter_map(|prefix| self.modules.get_key_value(prefix))
            .map(|(path, _)| path)
            .next()
    }

    /// Returns the files that each file imports from. A folder's `mod.rs` names its children: that is not an
    /// import.
    fn arrows(&self) -> BTreeMap<&Vec<String>, BTreeSet<&Vec<String>>> {
        let arrows = |(path, code): (_, &String)| {
            let path: &Vec<String> = path;
            let targets = paths(path, code);
            let targets = targets.iter().filter_map(|target| self.module_of(target));
            (path, targets.filter(|target| !target.starts_with(path)).collect())
        };
        self.modules.iter().map(arrows).collect()
    }

    /// Returns the circles of files that import from each other, directly or through others.
    fn circles(&self) -> Vec<Vec<String>> {
        let arrows = self.arrows();
        let reachable = |from: &Vec<String>| {
            let (mut seen, mut left) = (BTreeSet::new(), vec![from]);
            while let Some(at) = left.pop() {
                for next in arrows.get(at).into_iter().flatten() {
                    if seen.insert(*next) {
                        left.push(next);
                    }
                }
            }
            seen
        };
        let reach: BTreeMap<_, _> = arrows.keys().map(|from| (*from, reachable(from))).collect();
        let mut circles = BTreeSet::new();
        for (from, reached) in &reach {
            let circle = reached.iter().filter(|to| reach[**to].contains(*from));
            let circle: Vec<String> = circle.map(|path| path.join("/")).collect();
            if circle.len() > 1 {
                circles.insert(circle);
            }
        }
        circles.into_iter().collect()
    }

    /// Returns the imports of names that `lib.rs` only re-exports from a module.
    fn imports_through_lib(&self) -> Vec<String> {
        let lib = &self.modules[&Vec::new()];
        let mut exported = BTreeSet::new();
        for statement in lib.split(';') {
            let Some((_, tree)) = statement.split_once(" use ") else {
                continue;
            };
            let mut found = Vec::new();
            tree_paths(&mut tokens(tree).as_slice(), Vec::new(), &mut found);
            exported.extend(found.into_iter().filter_map(|path| path.last().cloned()));
        }
        let mut through = Vec::new();
        for (module, code) in self.modules.iter().filter(|(module, _)| !module.is_empty()) {
            for path in paths(module, code) {
                if let Some(name) = path.first()
                    && exported.contains(name)
                    && !self.modules.contains_key(&path[..1])
                {
                    through.push(format!("{} imports `{name}` through lib.rs", module.join("/")));
                }
            }
        }
        through
    }
}

/// Checks the arrows between the rooms of a crate: `order` names its floors from top to bottom, each with its
/// rooms.
fn rooms(name: &str, order: &[&[&str]]) -> Vec<String> {
    let files = Crate::read(&root().join("node/crates").join(name));
    let floor = |room: &str| order.iter().position(|floor| floor.contains(&room));
    let mut faults = Vec::new();
    let mut drawn = BTreeMap::<(&str, &str), Vec<String>>::new();
    let present: BTreeSet<&str> = files
        .modules
        .keys()
        .filter_map(|path| Some(path.first()?.as_str()))
        .collect();
    for room in &present {
        if floor(room).is_none() {
            faults.push(format!("{name}: room `{room}` has no floor"));
        }
    }
    for room in order.iter().flat_map(|floor| floor.iter()) {
        if !present.contains(room) {
            faults.push(format!("{name}: there is no room `{room}`"));
        }
    }
    let arrows = files.arrows();
    for (from, targets) in arrows.iter().filter(|(from, _)| !from.is_empty()) {
        for to in targets.iter().filter(|to| to[0] != from[0]) {
            let names = format!("{} -> {}", from.join("/"), to.join("/"));
            drawn.entry((&from[0], &to[0])).or_default().push(names);
        }
    }
    for ((from, to), names) in &drawn {
        if floor(from) >= floor(to) {
            faults.push(format!(
                "{name}: `{from}` must not know `{to}`: {}",
                names.join(", ")
            ));
        }
    }
    println!(
        "{name}: {} rooms, {} arrows between them",
        present.len(),
        drawn.len()
    );
    faults
}

/// Returns the code of a file without its comments and without the tests at its end.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]").next().unwrap_or_default();
    let lines = text
        .lines()
        .map(|line| line.split("//").next().unwrap_or_default());
    lines.collect::<Vec<_>>().join("\n")
}

/// Returns identifiers, `::` and other signs.
fn tokens(code: &str) -> Vec<&str> {
    let mut tokens = Vec::new();
    let mut rest = code;
    while let Some(first) = rest.chars().next() {
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        let length = match first {
            c if is_word(c) => rest.find(|c| !is_word(c)).unwrap_or(rest.len()),
            ':' if rest.starts_with("::") => 2,
            c => c.len_utf8(),
        };
        let (token, after) = rest.split_at(length);
        if !first.is_whitespace() {
            tokens.push(token);
        }
        rest = after;
    }
    tokens
}

/// Returns all paths from the crate's root that the code of `module` names by `crate`, `self` or `super`.
fn paths(module: &[String], code: &str) -> Vec<Vec<String>> {
    let tokens = tokens(code);
    let (mut left, mut found) = (tokens.as_slice(), Vec::new());
    while let [first, after @ ..] = left {
        left = after;
        let mut start = match *first {
            "crate" => Vec::new(),
            "self" => module.to_vec(),
            "super" => module[..module.len().saturating_sub(1)].to_vec(),
            _ => continue,
        };
        while let ["::", "super", after @ ..] = left {
            start.pop();
            left = after;
        }
        if let ["::", after @ ..] = left {
            left = after;
            tree_paths(&mut left, start, &mut found);
        }
    }
    found
}

/// Reads a path or a use tree, and adds all paths in it, each behind `start`.
fn tree_paths(left: &mut &[&str], mut start: Vec<String>, found: &mut Vec<Vec<String>>) {
    while let [first, after @ ..] = *left {
        match *first {
            "{" => {
                *left = after;
                while let [next, after @ ..] = *left {
                    match *next {
                        "}" | "," => {
                            *left = after;
                            if *next == "}" {
                                return;
                            }
                        }
                        _ => tree_paths(left, start.clone(), found),
                    }
                }
                return;
            }
            word if word.starts_with(|c: char| c.is_alphanumeric() || c == '_') => {
                *left = after;
                if word != "self" {
                    start.push(word.to_owned());
                }
                match *left {
                    ["::", after @ ..] => *left = after,
                    ["as", _, after @ ..] => {
                        *left = after;
                        break;
                    }
                    _ => break,
                }
            }
            _ => {
                *left = after;
                break;
            }
        }
    }
    found.push(start);
}

/// Returns the folders whose comments are measured, with their files.
fn folders() -> BTreeMap<String, Vec<PathBuf>> {
    let mut folders = BTreeMap::<String, Vec<PathBuf>>::new();
    for part in ["node", "sdk", "modules", "tests"] {
        for file in rust_files(&root().join(part)) {
            let name = name(&file);
            let mut parts = name.split('/');
            let folder = match part {
                "node" if name.starts_with("node/crates/") => {
                    parts.by_ref().take(3).collect::<Vec<_>>().join("/")
                }
                part => part.to_owned(),
            };
            folders.entry(folder).or_default().push(file);
        }
    }
    folders
}

/// Returns the folders of all crates of the node and the SDK.
fn crates() -> Vec<PathBuf> {
    let mut found = vec![root().join("node")];
    for part in ["node/crates", "sdk"] {
        let entries = fs::read_dir(root().join(part)).unwrap();
        found.extend(entries.map(|entry| entry.unwrap().path()));
    }
    found.retain(|dir| dir.join("src").is_dir());
    found.sort();
    found
}

fn rust_files(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut left = vec![dir.to_owned()];
    while let Some(at) = left.pop() {
        for entry in fs::read_dir(&at).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.ends_with("target") && !path.ends_with("node_modules") {
                left.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

/// Returns a path within the repository.
fn name(path: &Path) -> String {
    path.strip_prefix(root()).unwrap().to_string_lossy().into_owned()
}

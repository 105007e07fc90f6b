//! `weir module new`: a project that builds and passes its test.
//!
//! The binary contains the SDK and the contract, and copies both into the project. The project builds with
//! the SDK that it was made with, and needs nothing beyond the crates that cargo finds.

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use include_dir::{Dir, include_dir};
use std::fs;
use std::path::Path;
use toml::{Table, Value};

static SDK: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../sdk/guest/src");
static SDK_C: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../sdk/c");
static SDK_JS: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../sdk/js");
static SDK_PYTHON: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../sdk/python");
static WIT: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../wit");
const SDK_MANIFEST: &str = include_str!("../../../sdk/guest/Cargo.toml");
const WORKSPACE_MANIFEST: &str = include_str!("../../../Cargo.toml");
const CARGO_CONFIG: &str = "# Modules use SIMD: without it reading JSON costs twice as much.\n\
                            [target.wasm32-unknown-unknown]\nrustflags = [\"-C\", \"target-feature=+simd128\"]\n";

/// Language of a module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Lang {
    /// Rust, compiled by cargo: the fastest, with the whole SDK.
    Rust,
    /// C, compiled by any clang for wasm32.
    C,
    /// JavaScript, run by QuickJS.
    Js,
    /// Python, run by CPython.
    Python,
}

/// Creates the project `name` in a directory of that name.
pub(crate) fn new(name: &str, lang: Lang) -> Result<()> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let begins = name.starts_with(|c: char| c.is_ascii_lowercase());
    ensure!(
        begins && name.chars().all(is_name),
        "`{name}` is no name for a module: use lower-case letters, digits and `-`, a letter first"
    );
    let dir = Path::new(name);
    if dir.exists() {
        bail!("`{name}` is there already: choose another name, or remove it");
    }
    let fill = |template: &str| {
        let text = template
            .replace("@name@", name)
            .replace("@Type@", &type_name(name));
        text.replace("@file@", &name.replace('-', "_"))
    };
    let (readme, ignore, own) = match lang {
        Lang::Rust => (
            include_str!("new/rust/README.md.in"),
            "/target\n",
            vec![
                ("Cargo.toml", fill(include_str!("new/rust/Cargo.toml.in"))),
                (".cargo/config.toml", CARGO_CONFIG.to_owned()),
                ("src/lib.rs", fill(include_str!("new/rust/lib.rs.in"))),
                ("weir-sdk/sdk/guest/Cargo.toml", sdk_manifest()?),
            ],
        ),
        Lang::C => (
            include_str!("new/c/README.md.in"),
            "*.wasm\n",
            vec![
                ("Makefile", fill(include_str!("new/c/Makefile.in"))),
                (
                    "requirements.txt",
                    include_str!("new/c/requirements.txt").to_owned(),
                ),
                ("module.c", fill(include_str!("new/c/module.c.in"))),
            ],
        ),
        Lang::Js => (
            include_str!("new/js/README.md.in"),
            "/node_modules\n*.wasm\n",
            vec![
                ("package.json", fill(include_str!("new/js/package.json.in"))),
                ("module.js", fill(include_str!("new/js/module.js.in"))),
            ],
        ),
        Lang::Python => (
            include_str!("new/python/README.md.in"),
            "*.wasm\n__pycache__\n",
            vec![
                (
                    "requirements.txt",
                    include_str!("new/python/requirements.txt").to_owned(),
                ),
                ("module.py", fill(include_str!("new/python/module.py.in"))),
            ],
        ),
    };
    let of_all = [
        ("README.md", fill(readme)),
        (".gitignore", ignore.to_owned()),
        ("pipeline.toml", fill(include_str!("new/pipeline.toml.in"))),
        (
            "cases/above-the-limit.json",
            fill(include_str!("new/case.json.in")),
        ),
    ];
    for (path, text) in of_all.into_iter().chain(own) {
        write(&dir.join(path), text.as_bytes())?;
    }
    let sdk = dir.join("weir-sdk");
    match lang {
        Lang::Rust => extract(&SDK, &sdk.join("sdk/guest/src"))?,
        Lang::C => extract(&SDK_C, &sdk)?,
        Lang::Js => extract(&SDK_JS, &sdk)?,
        Lang::Python => extract(&SDK_PYTHON, &sdk)?,
    }
    // C names its exports and imports in attributes.
    if lang != Lang::C {
        extract(&WIT, &sdk.join("wit"))?;
    }
    say!("made {name}: see {name}/README.md");
    Ok(())
}

/// Returns a name in camel case: `RateLimit` for `rate-limit`.
fn type_name(name: &str) -> String {
    let upper = |word: &str| {
        let mut letters = word.chars();
        letters
            .next()
            .into_iter()
            .flat_map(char::to_uppercase)
            .chain(letters)
            .collect::<String>()
    };
    name.split(['-', '_']).map(upper).collect()
}

fn extract(from: &Dir<'_>, to: &Path) -> Result<()> {
    for file in from.files() {
        write(&to.join(file.path()), file.contents())?;
    }
    from.dirs().try_for_each(|dir| extract(dir, to))
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let written =
        fs::create_dir_all(path.parent().unwrap_or(Path::new("."))).and_then(|()| fs::write(path, bytes));
    written.with_context(|| format!("cannot write `{}`", path.display()))
}

/// Returns the SDK's manifest, with inherited entries written out and without test dependencies.
fn sdk_manifest() -> Result<String> {
    let mut manifest: Table = SDK_MANIFEST.parse()?;
    let workspace: Table = WORKSPACE_MANIFEST.parse()?;
    for name in ["lints", "dev-dependencies"] {
        manifest.remove(name);
    }
    for section in ["package", "dependencies"] {
        let of_workspace = workspace.get("workspace").and_then(|w| w.get(section));
        let entries = manifest.get_mut(section).and_then(Value::as_table_mut);
        for (name, value) in entries.into_iter().flatten() {
            let Some(own) = value.as_table_mut() else { continue };
            if own.remove("workspace").is_none() {
                continue;
            }
            let shared = of_workspace.and_then(|of| of.get(name)).cloned();
            let shared = shared.with_context(|| format!("the workspace has no `{section}.{name}`"))?;
            *value = match (shared, own.is_empty()) {
                (shared, true) => shared,
                (Value::Table(shared), false) => shared
                    .into_iter()
                    .chain(std::mem::take(own))
                    .collect::<Table>()
                    .into(),
                (version, false) => {
                    let version = ("version".to_owned(), version);
                    std::iter::once(version)
                        .chain(std::mem::take(own))
                        .collect::<Table>()
                        .into()
                }
            };
        }
    }
    Ok(toml::to_string(&manifest)?)
}

//! The test suite of JSON Schema, draft 2020-12 and its optional part: see `suite/README.md`.

use super::Schema;
use crate::value::Value;
use std::path::{Path, PathBuf};

/// Maximum number of schemas, of 433, that may be rejected as unsupported.
const REFUSED_MAX: usize = 60;

#[test]
fn no_instance_of_the_suite_is_answered_wrongly() {
    let mut files = Vec::new();
    json_files(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("suite/draft2020-12"),
        &mut files,
    );
    files.sort();
    let (mut schemas, mut refused, mut wrong) = (0, Vec::new(), Vec::new());
    for file in &files {
        let groups = Value::parse(&std::fs::read(file).unwrap()).unwrap();
        for group in groups.as_array().unwrap() {
            let get = |value: &'_ Value, name: &str| value.as_object().unwrap().get(name).unwrap().clone();
            schemas += 1;
            let name = format!(
                "{}: {}",
                file.file_stem().unwrap().display(),
                get(group, "description")
            );
            let schema = match Schema::read(&get(group, "schema")) {
                Ok(schema) => schema,
                Err(why) => {
                    refused.push(format!("{name}: {why}"));
                    continue;
                }
            };
            for test in get(group, "tests").as_array().unwrap() {
                let fits = schema.check(&get(test, "data"));
                if fits.is_ok() != get(test, "valid").as_bool().unwrap() {
                    wrong.push(format!("{name}: {}: {fits:?}", get(test, "description")));
                }
            }
        }
    }
    println!("{schemas} schemas, {} refused", refused.len());
    refused.iter().for_each(|why| println!("refused: {why}"));
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(schemas > 400 && refused.len() <= REFUSED_MAX, "{refused:#?}");
}

fn json_files(dir: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => json_files(&path, into),
            false if path.extension().is_some_and(|e| e == "json") => into.push(path),
            false => {}
        }
    }
}

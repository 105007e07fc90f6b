//! `weir module`

use super::output::{bytes, fields, lines, table, text};
use super::{Format, To, block_on, setting};
use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use weir_client::Record;
use weir_runtime::{LogLevel, LogSink, Setting};
use weir_testkit::Testkit;

/// Push, list, describe, test and remove modules.
#[derive(Debug, Args)]
pub(crate) struct ModuleArgs {
    #[command(flatten)]
    to: To,
    #[command(subcommand)]
    command: ModuleCommand,
}

#[derive(Debug, Subcommand)]
enum ModuleCommand {
    /// Push a component, or what `cargo build --target wasm32-unknown-unknown` made.
    Push {
        /// The file.
        file: PathBuf,
        /// Its name; the file's, when none is given.
        #[arg(long)]
        name: Option<String>,
        /// Its version.
        #[arg(long, default_value = "0.1.0")]
        version: String,
    },
    /// List all modules.
    List,
    /// Show what a module is and what can be set.
    Describe {
        /// name, name@version or digest
        module: String,
    },
    /// Run a module over a file of records, here and without a node.
    Test {
        /// The file.
        file: PathBuf,
        /// Records: a value a line.
        #[arg(long, value_name = "F")]
        input: PathBuf,
        /// A parameter.
        #[arg(long = "set", value_name = "k=v", value_parser = setting)]
        settings: Vec<(String, String)>,
        /// Records in a batch.
        #[arg(long, default_value_t = 1_000)]
        batch: usize,
    },
    /// Remove a module that no pipeline uses.
    Remove {
        /// name, name@version or digest
        module: String,
    },
}

impl ModuleArgs {
    pub(crate) fn run(self) -> Result<()> {
        if let ModuleCommand::Test {
            file,
            input,
            settings,
            batch,
        } = &self.command
        {
            return test(self.to.output, file, input, settings, *batch);
        }
        block_on(self.ask())
    }

    async fn ask(self) -> Result<()> {
        let client = self.to.connect().await?;
        let format = self.to.output;
        match self.command {
            ModuleCommand::Push { file, name, version } => {
                let module =
                    std::fs::read(&file).with_context(|| format!("cannot read `{}`", file.display()))?;
                let name = name.unwrap_or_else(|| default_name(&file));
                let info = parse(&client.push_module(&name, &version, &module).await?)?;
                match format {
                    Format::Json => lines([&info])?,
                    Format::Table => println!("pushed {name}@{version} {}", text(&info, "digest")),
                }
            }
            ModuleCommand::List => list(format, &parse(&client.modules().await?)?)?,
            ModuleCommand::Describe { module } => {
                let all = parse(&client.modules().await?)?;
                let found = all
                    .as_array()
                    .into_iter()
                    .flatten()
                    .rev()
                    .find(|m| is(m, &module));
                describe(format, found.with_context(|| format!("no module `{module}`"))?)?;
            }
            ModuleCommand::Remove { module } => {
                let info = parse(&client.remove_module(&module).await?)?;
                match format {
                    Format::Json => lines([&json!({ "removed": info["digest"] })])?,
                    Format::Table => println!("removed {}@{}", text(&info, "name"), text(&info, "version")),
                }
            }
            ModuleCommand::Test { .. } => {}
        }
        client.close().await;
        Ok(())
    }
}

fn parse(json: &[u8]) -> Result<Value> {
    serde_json::from_slice(json).context("the node's answer is not JSON")
}

/// `weir_module_threshold.wasm` is `threshold`.
fn default_name(file: &Path) -> String {
    let stem = file
        .file_stem()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    stem.strip_prefix("weir_module_")
        .map_or(stem.clone(), str::to_owned)
}

fn is(module: &Value, reference: &str) -> bool {
    let (name, version) = (text(module, "name"), text(module, "version"));
    let digest = reference.len() >= 8 && text(module, "digest").starts_with(reference);
    reference == name || reference == format!("{name}@{version}") || digest
}

fn list(format: Format, modules: &Value) -> Result<()> {
    let modules: Vec<&Value> = modules.as_array().into_iter().flatten().collect();
    if format == Format::Json {
        return lines(modules);
    }
    let rows: Vec<Vec<String>> = modules
        .iter()
        .map(|m| {
            let digest = text(m, "digest").chars().take(12).collect();
            let about = text(&m["descriptor"], "about");
            vec![
                text(m, "name"),
                text(m, "version"),
                digest,
                bytes(m["bytes"].as_u64().unwrap_or(0)),
                about,
            ]
        })
        .collect();
    table(&["MODULE", "VERSION", "DIGEST", "SIZE", "ABOUT"], &rows)
}

fn describe(format: Format, module: &Value) -> Result<()> {
    if format == Format::Json {
        return lines([module]);
    }
    let imports: Vec<String> = module["imports"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect();
    fields(&[
        (
            "module",
            format!("{}@{}", text(module, "name"), text(module, "version")),
        ),
        ("digest", text(module, "digest")),
        ("size", bytes(module["bytes"].as_u64().unwrap_or(0))),
        (
            "imports",
            if imports.is_empty() {
                "nothing".to_owned()
            } else {
                imports.join(", ")
            },
        ),
        ("about", text(&module["descriptor"], "about")),
    ])?;
    println!();
    let parameters = module["descriptor"]["parameters"].as_array();
    let rows: Vec<Vec<String>> = parameters
        .into_iter()
        .flatten()
        .map(|p| {
            let preset = if p["preset"].is_null() {
                "(required)".to_owned()
            } else {
                text(p, "preset")
            };
            vec![text(p, "name"), text(p, "kind"), preset, text(p, "about")]
        })
        .collect();
    table(&["PARAMETER", "KIND", "DEFAULT", "ABOUT"], &rows)
}

struct Stderr;

impl LogSink for Stderr {
    fn line(&self, level: LogLevel, line: &str) {
        eprintln!("module {level:?}: {line}");
    }
}

fn test(
    format: Format,
    file: &Path,
    input: &Path,
    settings: &[(String, String)],
    batch: usize,
) -> Result<()> {
    let module = std::fs::read(file).with_context(|| format!("cannot read `{}`", file.display()))?;
    let content = std::fs::read(input).with_context(|| format!("cannot read `{}`", input.display()))?;
    let lines_in = content.split(|b| *b == b'\n').filter(|l| !l.is_empty());
    let record = |(i, l): (usize, &[u8])| Record {
        value: Some(l.to_vec().into()),
        timestamp: i as i64,
        ..Record::default()
    };
    let records: Vec<Record> = lines_in.enumerate().map(record).collect();
    let settings: BTreeMap<String, Setting> = settings
        .iter()
        .map(|(k, v)| (k.clone(), Setting::Text(v.clone())))
        .collect();
    let mut kit = Testkit::new(&module, settings, Arc::new(Stderr))?;
    let tested = kit.run(&records, batch, 0)?;
    let show = |r: &Record| r.value.as_ref().map(|v| String::from_utf8_lossy(v).into_owned());
    for (output, records) in &tested.outputs {
        for record in records {
            match format {
                Format::Json => lines([&json!({ "output": output, "value": show(record) })])?,
                Format::Table => println!(
                    "{output}: {}",
                    show(record).unwrap_or_else(|| "(null)".to_owned())
                ),
            }
        }
    }
    for (index, reason) in &tested.dead {
        match format {
            Format::Json => lines([&json!({ "output": "dead-letter", "record": index, "reason": reason })])?,
            Format::Table => println!("dead letter: record {index}: {reason}"),
        }
    }
    let out: usize = tested.outputs.values().map(Vec::len).sum();
    let each = tested.spent.as_nanos() / tested.records.max(1) as u128;
    eprintln!(
        "{} records in, {out} out, {} dead letters, {each} ns a record",
        tested.records,
        tested.dead.len()
    );
    Ok(())
}

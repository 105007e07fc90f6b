//! `weir module`

use super::new::{Lang, new};
use super::output::{bytes, fields, lines, table};
use super::{Format, To, block_on, setting};
use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use weir_api::{Module, Parameter};
use weir_client::Record;
use weir_runtime::{LogLevel, LogSink, Setting};
use weir_testkit::case::{Case, difference};
use weir_testkit::{Faults, Testkit};

/// Create, test, push, list, describe and remove modules.
#[derive(Debug, Args)]
pub(crate) struct ModuleArgs {
    #[command(flatten)]
    to: To,
    #[command(subcommand)]
    command: ModuleCommand,
}

#[derive(Debug, Subcommand)]
enum ModuleCommand {
    /// Push a component, or the output of `cargo build --target wasm32-unknown-unknown`.
    Push {
        /// File of the module.
        file: PathBuf,
        /// Name of the module; the name of the file when not given.
        #[arg(long)]
        name: Option<String>,
        /// Version of the module.
        #[arg(long, default_value = "0.1.0")]
        version: String,
    },
    /// List all modules.
    List,
    /// Show a module and its parameters.
    Describe {
        /// Module by name, name@version or digest.
        module: String,
    },
    /// Create a project for a module, which builds and passes its test.
    New {
        /// Name of the module and of the new directory.
        name: String,
        /// Language of the module.
        #[arg(long, value_enum, default_value = "rust")]
        lang: Lang,
    },
    /// Run a module over files, without a node: over cases with expected output, or over records to see the
    /// output.
    Test {
        /// File of the module.
        file: PathBuf,
        /// Cases, or directories of cases: JSON files with `config`, `input` and `output`, as in
        /// modules/*/cases.
        #[arg(required_unless_present = "input")]
        cases: Vec<PathBuf>,
        /// File of records instead of cases: a value a line.
        #[arg(long, value_name = "F", conflicts_with = "cases")]
        input: Option<PathBuf>,
        /// A parameter, with `--input`.
        #[arg(long = "set", value_name = "k=v", value_parser = setting, requires = "input")]
        settings: Vec<(String, String)>,
        /// Number of records in a batch.
        #[arg(long, default_value_t = 1_000)]
        batch: usize,
    },
    /// Remove a module that no pipeline uses.
    Remove {
        /// Module by name, name@version or digest.
        module: String,
    },
}

impl ModuleArgs {
    pub(crate) fn run(self) -> Result<()> {
        if let ModuleCommand::New { name, lang } = &self.command {
            return new(name, *lang);
        }
        if let ModuleCommand::Test {
            file,
            cases,
            input,
            settings,
            batch,
        } = &self.command
        {
            let format = self.to.output;
            return match input {
                Some(input) => test(format, file, input, settings, *batch),
                None => test_cases(format, file, cases, *batch),
            };
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
                let pushed = client.push_module(&name, &version, &module).await?;
                match format {
                    Format::Json => lines([&pushed])?,
                    Format::Table => say!("pushed {name}@{version} {}", pushed.digest),
                }
            }
            ModuleCommand::List => list(format, &client.modules().await?)?,
            ModuleCommand::Describe { module } => {
                let all = client.modules().await?;
                let found = all.iter().rev().find(|m| is(m, &module));
                describe(format, found.with_context(|| format!("no module `{module}`"))?)?;
            }
            ModuleCommand::Remove { module } => {
                let removed = client.remove_module(&module).await?;
                match format {
                    Format::Json => lines([Removed {
                        removed: &removed.digest,
                    }])?,
                    Format::Table => say!("removed {}@{}", removed.name, removed.version),
                }
            }
            ModuleCommand::New { .. } | ModuleCommand::Test { .. } => {}
        }
        client.close().await;
        Ok(())
    }
}

/// The digest of a removed module.
#[derive(Serialize)]
struct Removed<'a> {
    removed: &'a str,
}

/// Outcome of a case.
#[derive(Serialize)]
struct CaseRow<'a> {
    case: &'a Path,
    holds: bool,
    wrong: Option<String>,
}

/// An output record.
#[derive(Serialize)]
struct OutputRow<'a> {
    output: &'a str,
    value: Option<String>,
}

/// A dead letter.
#[derive(Serialize)]
struct DeadRow<'a> {
    output: &'static str,
    record: usize,
    reason: &'a str,
}

/// Returns the name of a module from its file: `threshold` from `weir_module_threshold.wasm`.
fn default_name(file: &Path) -> String {
    let stem = file
        .file_stem()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    stem.strip_prefix("weir_module_")
        .map_or(stem.clone(), str::to_owned)
}

fn is(module: &Module, reference: &str) -> bool {
    let (name, version) = (&module.name, &module.version);
    let digest = reference.len() >= 8 && module.digest.starts_with(reference);
    reference == name || reference == format!("{name}@{version}") || digest
}

fn list(format: Format, modules: &[Module]) -> Result<()> {
    if format == Format::Json {
        return lines(modules);
    }
    let row = |m: &Module| {
        vec![
            m.name.clone(),
            m.version.clone(),
            m.digest.chars().take(12).collect(),
            bytes(m.bytes),
            m.descriptor.about.clone(),
        ]
    };
    let rows: Vec<Vec<String>> = modules.iter().map(row).collect();
    table(&["MODULE", "VERSION", "DIGEST", "SIZE", "ABOUT"], &rows)
}

fn describe(format: Format, module: &Module) -> Result<()> {
    if format == Format::Json {
        return lines([module]);
    }
    let imports = match module.imports.is_empty() {
        true => "nothing".to_owned(),
        false => module.imports.join(", "),
    };
    fields(&[
        ("module", format!("{}@{}", module.name, module.version)),
        ("digest", module.digest.clone()),
        ("size", bytes(module.bytes)),
        ("imports", imports),
        ("about", module.descriptor.about.clone()),
    ])?;
    say!("");
    let row = |p: &Parameter| {
        let preset = match &p.preset {
            None => "(required)".to_owned(),
            Some(preset) => plain(preset),
        };
        vec![p.name.clone(), p.kind.clone(), preset, p.about.clone()]
    };
    let rows: Vec<Vec<String>> = module.descriptor.parameters.iter().map(row).collect();
    table(&["PARAMETER", "KIND", "DEFAULT", "ABOUT"], &rows)
}

/// Returns a setting as text, without quotes.
fn plain(setting: &Value) -> String {
    let words = setting.as_array().into_iter().flatten().map(Value::as_str);
    match (setting, words.collect::<Option<Vec<_>>>()) {
        (Value::String(text), _) => text.clone(),
        (Value::Array(_), Some(words)) => words.join(","),
        (other, _) => other.to_string(),
    }
}

struct Stderr;

impl LogSink for Stderr {
    fn line(&self, level: LogLevel, line: &str) {
        hint!("module {level:?}: {line}");
    }
}

/// Runs cases, shows whether each holds, and lists outputs of the module that no case covers.
fn test_cases(format: Format, file: &Path, cases: &[PathBuf], batch: usize) -> Result<()> {
    let bytes = std::fs::read(file).with_context(|| format!("cannot read `{}`", file.display()))?;
    let module = weir_testkit::load(&bytes)?;
    let (mut failed, mut files) = (0, 0);
    let (mut outputs, mut seen) = (BTreeSet::new(), BTreeSet::new());
    for path in case_files(cases)? {
        files += 1;
        let case = Case::read(&path).with_context(|| format!("`{}`", path.display()))?;
        let wrong = match case.run(&module, batch, Arc::new(Stderr)) {
            Ok(ran) => {
                outputs.extend(ran.outputs);
                seen.extend(ran.tested.outputs.into_keys());
                if !ran.tested.dead.is_empty() {
                    seen.insert("dead".to_owned());
                }
                let wrong = difference(&case.output, &ran.output);
                wrong.or_else(|| under_faults(&case, &module, batch))
            }
            // A case may expect a refusal.
            Err(e) => {
                let told = e.to_string();
                let wanted = case.output["error"].as_str();
                (!wanted.is_some_and(|words| told.contains(words))).then_some(told)
            }
        };
        failed += usize::from(wrong.is_some());
        let name = path.display();
        match (format, wrong) {
            (Format::Json, wrong) => {
                lines([CaseRow {
                    case: &path,
                    holds: wrong.is_none(),
                    wrong,
                }])?;
            }
            (Format::Table, None) => say!("holds  {name}"),
            (Format::Table, Some(wrong)) => say!("FAILS  {name}: {wrong}"),
        }
    }
    let mut unseen: Vec<_> = outputs.difference(&seen).cloned().collect();
    if !seen.contains("dead") {
        unseen.push("dead letters".to_owned());
    }
    let unseen = match unseen.is_empty() {
        true => "every output and dead letters seen".to_owned(),
        false => format!("never seen: {}", unseen.join(", ")),
    };
    hint!("{files} cases, {failed} failed; {unseen}");
    match failed {
        0 => Ok(()),
        _ => anyhow::bail!("{failed} of {files} cases failed"),
    }
}

/// Returns the difference when the node is killed between every two entries, or every call traps once.
fn under_faults(case: &Case, module: &weir_runtime::Module, batch: usize) -> Option<String> {
    let kinds = [
        (Faults::Kills, "when the node is killed between two entries"),
        (Faults::Traps, "when a call traps and is made again"),
    ];
    kinds.into_iter().find_map(|(faults, when)| {
        let wrong = match case.run_with(faults, module, batch, Arc::new(())) {
            Ok(ran) => difference(&case.output, &ran.output)?,
            Err(e) => e.to_string(),
        };
        Some(format!(
            "{when}: {wrong}\n    what is to outlast an instance belongs into its state"
        ))
    })
}

/// Returns the files of `cases`, and the JSON files of its directories.
fn case_files(cases: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in cases {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let entries = std::fs::read_dir(path).with_context(|| format!("cannot read `{}`", path.display()))?;
        let mut found = Vec::new();
        for entry in entries {
            let file = entry?.path();
            if file.extension().is_some_and(|e| e == "json") {
                found.push(file);
            }
        }
        anyhow::ensure!(!found.is_empty(), "there is no case in `{}`", path.display());
        found.sort();
        files.extend(found);
    }
    Ok(files)
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
                Format::Json => lines([OutputRow {
                    output,
                    value: show(record),
                }])?,
                Format::Table => say!(
                    "{output}: {}",
                    show(record).unwrap_or_else(|| "(null)".to_owned())
                ),
            }
        }
    }
    for (index, reason) in &tested.dead {
        match format {
            Format::Json => lines([DeadRow {
                output: "dead-letter",
                record: *index,
                reason,
            }])?,
            Format::Table => say!("dead letter: record {index}: {reason}"),
        }
    }
    let out: usize = tested.outputs.values().map(Vec::len).sum();
    let each = tested.spent.as_nanos() / tested.records.max(1) as u128;
    hint!(
        "{} records in, {out} out, {} dead letters, {each} ns a record",
        tested.records,
        tested.dead.len()
    );
    Ok(())
}

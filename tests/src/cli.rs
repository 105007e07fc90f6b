//! Output of the command line.

use crate::Node;
use serde_json::Value;
use std::process::Output;

/// Returns the standard output of a command.
///
/// # Panics
/// When the command failed; with its standard error.
pub fn text(output: &Output) -> String {
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Returns the JSON documents that a command prints, each on its line.
///
/// # Panics
/// When the command failed or printed something else.
pub fn objects(output: &Output) -> Vec<Value> {
    text(output)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// Returns the error message of a command.
///
/// # Panics
/// When the command succeeded.
pub fn refusal(output: &Output) -> String {
    assert!(!output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Runs a command against `node` and returns its standard output.
///
/// # Panics
/// When the command failed; with its standard error.
pub fn run(node: &Node, args: &[&str]) -> String {
    let output = node.cli(args, "").unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {error}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs a command against `node` with `-o json` and returns the document on its standard output.
///
/// # Panics
/// When the command failed or printed something else.
pub fn json(node: &Node, args: &[&str]) -> Value {
    serde_json::from_str(&run(node, &[args, &["-o", "json"]].concat())).unwrap()
}

/// Runs a command against `node` and returns its error message.
///
/// # Panics
/// When the command succeeded.
pub fn refused(node: &Node, args: &[&str]) -> String {
    refusal(&node.cli(args, "").unwrap())
}

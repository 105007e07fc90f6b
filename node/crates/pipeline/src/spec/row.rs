//! What is stored of a pipeline.

use crate::spec::Spec;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use weir_broker::{AdminError, FormatError, StateKey, StateKind};
use weir_runtime::Digest;
use weir_types::TopicName;

/// A row that changes together with a pipeline's.
pub(crate) type Written = (StateKey, Option<Bytes>);

/// A pipeline's row.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) spec: Spec,
    pub(crate) revision: u64,
    pub(crate) paused: bool,
    /// The module of each stage when it was applied: a name may mean another one by now.
    pub(crate) digests: Vec<Digest>,
    /// Whose state each stage keeps.
    #[serde(default)]
    pub(crate) states: Vec<Option<StateOf>>,
    /// When it was put in place, in milliseconds since 1970.
    #[serde(default)]
    pub(crate) applied_ms: i64,
    /// It came back: it does not go back further by itself.
    #[serde(default)]
    pub(crate) is_last_resort: bool,
    /// What is tried on some partitions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) canary: Option<Canary>,
}

/// Tells a row that is in place from others, within a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RowFingerprint(u64);

impl RowFingerprint {
    /// No row's: what has it should not work.
    pub(crate) const NONE: Self = Self(0);

    /// That of a row which cannot be read: nothing that works has it.
    pub(crate) const UNREADABLE: Self = Self(2);
}

impl Row {
    /// Changes with all that decides what runs: its revision, whether it is paused, and under which rows its modules remember.
    pub(crate) fn fingerprint(&self) -> RowFingerprint {
        let mut hash = DefaultHasher::new();
        (self.revision, self.paused).hash(&mut hash);
        self.digests
            .iter()
            .for_each(|digest| digest.as_bytes().hash(&mut hash));
        let states = self.states.iter().map(Option::as_ref);
        states.for_each(|of| {
            of.map(|of| (&of.module, of.version, of.generation))
                .hash(&mut hash)
        });
        let tried = self.canary.iter().flat_map(|canary| &canary.digests);
        tried.for_each(|digest| digest.as_bytes().hash(&mut hash));
        RowFingerprint(hash.finish() | 1)
    }

    /// All modules that it needs.
    pub(crate) fn modules(&self) -> impl Iterator<Item = &Digest> {
        let tried = self.canary.iter().flat_map(|canary| &canary.digests);
        self.digests.iter().chain(tried)
    }
}

/// Whose state a stage keeps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StateOf {
    pub(crate) module: String,
    pub(crate) version: u32,
    /// Under which rows it is: another with each version that took over what was there.
    #[serde(default)]
    pub(crate) generation: u8,
}

impl fmt::Display for StateOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "module `{}`, version {} of its state",
            self.module, self.version
        )
    }
}

/// What is stored of `row`, in JSON.
pub(crate) fn json<T: serde::Serialize>(row: &T) -> Vec<u8> {
    // An empty row instead would be one that is gone.
    serde_json::to_vec(row).expect("keys of maps are texts")
}

/// Reads what is stored of `what`.
///
/// # Errors
/// When it cannot be read: it is another release's, and says something.
pub(crate) fn read<T: serde::de::DeserializeOwned>(
    what: &'static str,
    value: &[u8],
) -> Result<T, FormatError> {
    serde_json::from_slice(value).map_err(|e| FormatError::Unknown {
        what,
        why: e.to_string(),
    })
}

/// Reads the row of a pipeline.
///
/// # Errors
/// As [`read`].
pub(crate) fn of_pipeline(value: &[u8]) -> Result<Row, FormatError> {
    read("a pipeline", value)
}

/// The topics that a row which cannot be read seems to be about: where records must not pass it by.
pub(crate) fn sources_of_unreadable(value: &[u8]) -> Vec<TopicName> {
    let row: serde_json::Value = serde_json::from_slice(value).unwrap_or_default();
    let source = &row["spec"]["source"];
    let names = source.as_array().cloned().unwrap_or_else(|| vec![source.clone()]);
    let names = names.iter().filter_map(|name| name.as_str());
    names.filter_map(|name| name.parse().ok()).collect()
}

/// `row` as it is stored, and `others`.
pub(crate) fn rows(row: &Row, others: Vec<Written>) -> Result<Vec<Written>, AdminError> {
    let value = json(row);
    // All nodes, and this one when it starts again, know of the pipeline by nothing else.
    if serde_json::from_slice::<Row>(&value).is_err() {
        let name = &row.spec.name;
        return Err(AdminError::Refused(format!(
            "pipeline `{name}` could not be read again once it is stored"
        )));
    }
    let key = StateKey::new(StateKind::Pipeline, row.spec.name.as_str().as_bytes());
    Ok(others.into_iter().chain([(key, Some(value.into()))]).collect())
}

/// What is tried on some partitions.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Canary {
    pub(crate) spec: Spec,
    pub(crate) digests: Vec<Digest>,
    pub(crate) partitions: BTreeSet<u32>,
    /// Since when, in milliseconds since 1970.
    pub(crate) began_ms: i64,
}

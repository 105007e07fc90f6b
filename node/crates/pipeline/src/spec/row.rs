//! The stored form of a pipeline.

use crate::spec::Spec;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use weir_broker::{AdminError, FormatError, StateKey, StateKind};
use weir_runtime::Digest;
use weir_types::TopicName;

/// A row that changes together with a pipeline's row.
pub(crate) type Written = (StateKey, Option<Bytes>);

/// The stored row of a pipeline.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) spec: Spec,
    pub(crate) revision: u64,
    pub(crate) paused: bool,
    /// The module of each stage at the time of applying. A name may refer to another module later.
    pub(crate) digests: Vec<Digest>,
    /// Owner of each stage's state.
    #[serde(default)]
    pub(crate) states: Vec<Option<StateOf>>,
    /// When the row was written, in milliseconds since 1970.
    #[serde(default)]
    pub(crate) applied_ms: i64,
    /// Set after a rollback: the guard does not roll back further.
    #[serde(default)]
    pub(crate) is_last_resort: bool,
    /// A candidate version that runs on some partitions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) canary: Option<Canary>,
}

/// Fingerprint of a row, which tells a running pipeline from an outdated one. Valid within a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RowFingerprint(u64);

impl RowFingerprint {
    /// Matches no row: a pipeline with this fingerprint must not run.
    pub(crate) const NONE: Self = Self(0);

    /// Stands for a row that cannot be read. No running pipeline has this fingerprint.
    pub(crate) const UNREADABLE: Self = Self(2);
}

impl Row {
    /// Returns a fingerprint of all that decides how the pipeline runs: revision, pause, modules, owners of
    /// state, canary.
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

    /// Returns the digests of all modules that the row needs.
    pub(crate) fn modules(&self) -> impl Iterator<Item = &Digest> {
        let tried = self.canary.iter().flat_map(|canary| &canary.digests);
        self.digests.iter().chain(tried)
    }
}

/// Owner of a stage's state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StateOf {
    pub(crate) module: String,
    pub(crate) version: u32,
    /// Generation of the stage's rows. Each migration writes the next generation.
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

/// Encodes `row` in JSON.
pub(crate) fn json<T: serde::Serialize>(row: &T) -> Vec<u8> {
    // An empty row instead would stand for a removed row.
    serde_json::to_vec(row).expect("keys of maps are texts")
}

/// Decodes a stored value of kind `what`.
///
/// # Errors
/// [`FormatError::Unknown`] when another release wrote the value in a different form.
pub(crate) fn read<T: serde::de::DeserializeOwned>(
    what: &'static str,
    value: &[u8],
) -> Result<T, FormatError> {
    serde_json::from_slice(value).map_err(|e| FormatError::Unknown {
        what,
        why: e.to_string(),
    })
}

/// Decodes the row of a pipeline.
///
/// # Errors
/// [`FormatError::Unknown`] when the row cannot be read.
pub(crate) fn of_pipeline(value: &[u8]) -> Result<Row, FormatError> {
    read("a pipeline", value)
}

/// Returns the likely sources of a row that cannot be read. Their records must not bypass the pipeline.
pub(crate) fn sources_of_unreadable(value: &[u8]) -> Vec<TopicName> {
    let row: serde_json::Value = serde_json::from_slice(value).unwrap_or_default();
    let source = &row["spec"]["source"];
    let names = source.as_array().cloned().unwrap_or_else(|| vec![source.clone()]);
    let names = names.iter().filter_map(|name| name.as_str());
    names.filter_map(|name| name.parse().ok()).collect()
}

/// Returns the encoded `row` together with `others`.
pub(crate) fn rows(row: &Row, others: Vec<Written>) -> Result<Vec<Written>, AdminError> {
    let value = json(row);
    // The row is the only description of the pipeline, on all nodes and after a restart.
    if serde_json::from_slice::<Row>(&value).is_err() {
        let name = &row.spec.name;
        return Err(AdminError::Refused(format!(
            "the row of pipeline `{name}` would be unreadable"
        )));
    }
    let key = StateKey::new(StateKind::Pipeline, row.spec.name.as_str().as_bytes());
    Ok(others.into_iter().chain([(key, Some(value.into()))]).collect())
}

/// A candidate version that runs on some partitions.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Canary {
    pub(crate) spec: Spec,
    pub(crate) digests: Vec<Digest>,
    pub(crate) partitions: BTreeSet<u32>,
    /// When the canary began, in milliseconds since 1970.
    pub(crate) began_ms: i64,
}

//! A module of a pipeline, and its grants.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use weir_runtime::Setting;

/// One module of a pipeline.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stage {
    /// `name`, `name@version` or a SHA-256 digest.
    pub module: String,
    /// The module's parameters.
    #[serde(default)]
    pub config: BTreeMap<String, Setting>,
    /// What it may import beside `log` and `metrics`.
    #[serde(default)]
    pub grants: BTreeSet<Grant>,
}

impl Stage {
    /// Whether something of it outlasts a batch.
    pub(crate) fn remembers(&self) -> bool {
        self.grants.contains(&Grant::State) || self.grants.contains(&Grant::Timers)
    }
}

/// What a stage may be granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Grant {
    /// `weir:module/state`: it remembers.
    State,
    /// `weir:module/timers`: it is called at times that it sets.
    Timers,
}

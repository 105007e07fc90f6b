//! A module of a pipeline, and its grants.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use weir_runtime::Setting;

/// A module of a pipeline, with its parameters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stage {
    /// `name`, `name@version` or a SHA-256 digest.
    pub module: String,
    /// The module's parameters.
    #[serde(default)]
    pub config: BTreeMap<String, Setting>,
    /// Interfaces that the module may import beside `log` and `metrics`.
    #[serde(default)]
    pub grants: BTreeSet<Grant>,
}

impl Stage {
    /// Returns true if the stage may keep state or set timers.
    pub(crate) fn remembers(&self) -> bool {
        self.grants.contains(&Grant::State) || self.grants.contains(&Grant::Timers)
    }
}

/// A right that a stage may be granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Grant {
    /// `weir:module/state`: keep state between batches.
    State,
    /// `weir:module/timers`: set timers, and be called when they are due.
    Timers,
}

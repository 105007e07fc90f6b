//! State of a pipeline's modules: values and timers.

use serde::{Deserialize, Serialize};

/// A page of state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StatePage {
    /// Rows, ordered by stage, partition and key; all values come before all timers.
    pub rows: Vec<StateRow>,
    /// Cursor of the next page; null on the last page.
    pub next: Option<String>,
}

/// A value or timer of a module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StateRow {
    /// Stage, from 1.
    pub stage: usize,
    /// Partition.
    pub partition: u32,
    /// Key in base64.
    pub key: String,
    /// Content.
    #[serde(flatten)]
    pub entry: StateEntry,
}

/// Content of a row of state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum StateEntry {
    /// A value in base64.
    Value(String),
    /// A timer.
    Timer {
        /// Clock of the timer: `event` or `processing`.
        clock: String,
        /// Number that the module gave the timer.
        tag: u32,
        /// Due time in milliseconds since 1970.
        at: i64,
    },
}

/// Page of state to read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::IntoParams))]
#[cfg_attr(feature = "openapi", into_params(parameter_in = Query))]
#[serde(deny_unknown_fields)]
pub struct StateQuery {
    /// Cursor: `next` of the page before; the first page when not given.
    pub first: Option<String>,
}

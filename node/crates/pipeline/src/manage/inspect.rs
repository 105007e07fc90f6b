//! Views of the modules' state, for operators and tests.

use crate::error::ApplyError;
use crate::manage::registry::Pipelines;
use crate::manage::tasks::run_blocking;
use crate::partition::rows::{of_kind, split_key, timer};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use weir_broker::{AdminError, Broker, ReadError, StateKey, StateKind};
use weir_runtime::TimerClock;

/// Target size of a page: bytes of keys and values.
const PAGE_BYTES: usize = 256 << 10;

/// Kinds of rows shown, in this order.
const KINDS: [StateKind; 2] = [StateKind::Table, StateKind::Timer];

/// A row of a module's state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remembered {
    /// Stage, counted from 1.
    pub stage: usize,
    /// Partition.
    pub partition: u32,
    /// Key, in base64.
    pub key: String,
    /// Value or timer.
    #[serde(flatten)]
    pub what: What,
}

/// Content of a row of state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum What {
    /// Value, in base64.
    Value(String),
    /// Timer.
    Timer {
        /// Clock: `event` or `processing`.
        clock: String,
        /// Tag given by the module.
        tag: u32,
        /// Due time, in milliseconds since 1970.
        at: i64,
    },
}

/// A page of a pipeline's state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// Rows by stage, partition and key. Timers follow all values.
    pub rows: Vec<Remembered>,
    /// Token of the next page. `None` on the last page.
    pub next: Option<String>,
}

impl Pipelines {
    /// Returns a page of committed state: the first page, or the page after [`Page::next`].
    ///
    /// # Errors
    /// When there is no such pipeline, the token is invalid, or a row cannot be read.
    ///
    /// # Cancel safety
    /// Reads only; the future can be dropped at any time.
    pub async fn remembered(&self, name: &str, first: Option<&str>) -> Result<Page, ApplyError> {
        self.row(name)?;
        let first = first.map(|first| STANDARD.decode(first)).transpose();
        let first = first.map_err(|_| ApplyError::Page)?;
        let (broker, name) = (self.0.broker.clone(), name.to_owned());
        let read = run_blocking("weir-state", move || page(&broker, &name, first));
        let page = read.await.ok_or(ApplyError::Admin(AdminError::Closed))?;
        Ok(page.map_err(weir_broker::FetchError::from)?)
    }
}

fn page(broker: &Broker, name: &str, first: Option<Vec<u8>>) -> Result<Page, ReadError> {
    let (mut rows, mut bytes, mut next) = (Vec::new(), 0, None);
    for kind in KINDS {
        let prefix = of_kind(kind, name);
        let first = first.clone().map_or_else(|| prefix.clone(), StateKey::from_bytes);
        if next.is_some() || first > prefix && !first.as_bytes().starts_with(prefix.as_bytes()) {
            continue;
        }
        broker.applied_rows_behind(&prefix, &first.max(prefix.clone()), |key, value| {
            if bytes > PAGE_BYTES {
                next = Some(STANDARD.encode(key));
                return false;
            }
            bytes += key.len() + value.len();
            rows.extend(remembered(kind, name, key, &value));
            true
        })?;
    }
    Ok(Page { rows, next })
}

fn remembered(kind: StateKind, name: &str, key: &[u8], value: &[u8]) -> Option<Remembered> {
    let (stage, partition, rest) = split_key(kind, name, key)?;
    let (key, what) = match kind {
        StateKind::Timer => {
            let (clock, tag, key, at) = timer(rest, value)?;
            let clock = match clock {
                TimerClock::Event => "event",
                TimerClock::Processing => "processing",
            };
            let clock = clock.to_owned();
            (key, What::Timer { clock, tag, at })
        }
        _ => (rest, What::Value(STANDARD.encode(value))),
    };
    Some(Remembered {
        stage: usize::from(stage) + 1,
        partition,
        key: STANDARD.encode(key),
        what,
    })
}

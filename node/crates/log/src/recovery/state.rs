//! A recovery under way, and its result.

use crate::error::Damage;
use crate::format::encoding::FormatError;
use crate::format::position::Position;
use crate::recovery::report::Recovered;
use crate::store::keyspaces::Keyspaces;
use crate::store::rows_copy::RowsCopy;
use crate::store::value_log::writer::ValueWriter;
use crate::store::watermark::WatermarkFile;
use crate::write::tail::Tail;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;
use weir_types::{Gap, GroupId, PartitionId};

pub(crate) struct State {
    pub(crate) keyspaces: Keyspaces,
    pub(crate) watermark: WatermarkFile,
    pub(crate) values: ValueWriter,
    pub(crate) copy: RowsCopy,
    pub(crate) tails: BTreeMap<GroupId, Tail>,
    pub(crate) positions: BTreeMap<PartitionId, Position>,
    pub(crate) gaps: BTreeMap<PartitionId, Vec<Gap>>,
    pub(crate) recovered: Recovered,
    pub(crate) lock: Option<File>,
}

/// A recovery that failed.
pub(super) enum Failure {
    Store(fjall::Error),
    /// A later release wrote the data.
    Format(FormatError),
    /// Data is missing, and must not be repaired.
    NotWhole(Damage),
}

impl From<fjall::Error> for Failure {
    fn from(e: fjall::Error) -> Self {
        Self::Store(e)
    }
}

impl From<std::io::Error> for Failure {
    fn from(e: std::io::Error) -> Self {
        Self::Store(e.into())
    }
}

impl From<FormatError> for Failure {
    fn from(e: FormatError) -> Self {
        Self::Format(e)
    }
}

pub(super) struct Recovery {
    pub(super) dir: PathBuf,
    pub(super) quarantine: PathBuf,
    pub(super) value_file_bytes: u64,
    pub(super) headers_only: bool,
    pub(super) keyspaces: Keyspaces,
    pub(super) watermark: WatermarkFile,
    pub(super) recovered: Recovered,
    /// Data was missing: check every partition from end to end.
    pub(super) suspect: bool,
    /// The last writes are gone, and their extent is unknown.
    pub(super) is_tail_unknown: bool,
    /// The database was rebuilt.
    pub(super) is_rebuilt: bool,
    /// Report damage instead of repairing it.
    pub(super) only_whole: bool,
    pub(super) lock: Option<File>,
}

impl Recovery {
    pub(super) fn note(&mut self, note: String) {
        tracing::error!("{note}");
        self.recovered.damage.notes.push(note);
    }
}

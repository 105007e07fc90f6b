//! A recovery under way, and what comes of it.

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

/// Why what is there was not recovered.
pub(super) enum Failure {
    Store(fjall::Error),
    /// A later release wrote it.
    Format(FormatError),
    /// Something is missing, and it is not to be mended.
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
    /// Something was missing: look at every partition from end to end.
    pub(super) suspect: bool,
    /// What was written last is gone, and nothing says how far it went.
    pub(super) is_tail_unknown: bool,
    /// It was made again.
    pub(super) is_rebuilt: bool,
    /// Damage is not mended, but told.
    pub(super) only_whole: bool,
    pub(super) lock: Option<File>,
}

impl Recovery {
    pub(super) fn note(&mut self, note: String) {
        tracing::error!("{note}");
        self.recovered.damage.notes.push(note);
    }
}

//! Opening a log, and starting its threads.

use crate::error::OpenError;
use crate::format::keys::StateKind;
use crate::log::readers::start_readers;
use crate::log::{Inner, Log};
use crate::options::{Environment, Options};
use crate::recovery;
use crate::recovery::report::Recovered;
use crate::shared::Shared;
use crate::store::space::{default_reserve, free_and_total};
use crate::write::store_writer::StoreWriter;
use crate::write::writer::Writer;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use weir_types::limits::WRITER_QUEUE_MAX;

/// Free space beyond the reserve below which payloads are not moved: a step of a sweep, and the start of a
/// new file.
pub(crate) const SWEEP_ROOM_BYTES: u64 = 8 << 20;

impl Log {
    /// Opens the log in `dir`, or creates a log there. Repairs the traces of a power cut, and reports all
    /// losses in [`Recovered`].
    ///
    /// # Errors
    /// Fails when the directory is in use, cannot be written, or is damaged beyond opening.
    pub fn open(dir: &Path, options: &Options) -> Result<(Self, Recovered), OpenError> {
        Self::open_in(dir, options, Environment::default())
    }

    /// Opens or creates the log in `dir` on the threads and the store of `environment`.
    ///
    /// # Errors
    /// Fails when the directory is in use, cannot be written, or is damaged beyond opening.
    pub fn open_in(
        dir: &Path,
        options: &Options,
        environment: Environment,
    ) -> Result<(Self, Recovered), OpenError> {
        let Environment { workers, store } = environment;
        let io = |source| OpenError::Io {
            path: dir.to_owned(),
            source,
        };
        std::fs::create_dir_all(dir).map_err(io)?;
        let state = recovery::open::open(dir, options, &store)?;
        let (_, total) = free_and_total(dir).map_err(io)?;
        let reserve_bytes = options
            .disk_reserve_bytes
            .unwrap_or_else(|| default_reserve(total));
        let shared = Arc::new(Shared::default());
        for (partition, position) in &state.positions {
            let gaps = state.gaps.get(partition).cloned().unwrap_or_default();
            shared.positions.load(*partition, position, gaps);
        }
        let (commands, from_handle) = sync_channel(WRITER_QUEUE_MAX);
        let epoch = state.watermark.value.epoch;
        let incoming = [StateKind::Incoming as u8];
        let receiving = state.keyspaces.state.prefix(incoming).next().is_some();
        let mut store = StoreWriter::new(
            state.keyspaces.clone(),
            Arc::clone(&shared),
            state.watermark,
            state.values,
            state.copy,
            state.tails,
            state.positions,
        );
        store.receiving = receiving;
        let writer = Writer {
            store,
            commands: from_handle,
            value_log_from_bytes: options.value_log_from_bytes,
            sweep_reserve_bytes: reserve_bytes / 2 + SWEEP_ROOM_BYTES,
            since_sweep: 0,
            headers_only: options.headers_only,
        };
        let writing = workers.start("weir-log", Box::new(writer)).map_err(io)?;
        let (reads, readers) = start_readers(&state.keyspaces, &shared, &*workers).map_err(io)?;
        let inner = Inner {
            dir: dir.to_owned(),
            reserve_bytes,
            keyspaces: state.keyspaces,
            shared,
            workers,
            commands,
            wake_writer: writing.wake,
            reads: Some(reads),
            readers,
            epoch,
            _lock: state.lock,
        };
        Ok((Self(Arc::new(inner)), state.recovered))
    }
}

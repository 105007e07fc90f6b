//! The threads that read for consumers.

use crate::host::workers::{Running, Turn, Worker, Workers};
use crate::positions::Positions;
use crate::shared::Shared;
use crate::store::keyspaces::Keyspaces;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::sync::{Arc, MutexGuard};
use weir_types::sync::Mutex;

/// Threads that read for consumers: a second reader goes on while the first waits for a slow disk.
pub(crate) const READERS: usize = 2;

/// Reads that may wait for a reader.
pub(crate) const READ_QUEUE_MAX: usize = 1_024;

pub(crate) type ReadJob = Box<dyn FnOnce(&Keyspaces, &Positions) + Send>;

pub(crate) fn start_readers(
    keyspaces: &Keyspaces,
    shared: &Arc<Shared>,
    workers: &dyn Workers,
) -> std::io::Result<(SyncSender<ReadJob>, Vec<Running>)> {
    let (reads, jobs) = sync_channel::<ReadJob>(READ_QUEUE_MAX);
    let jobs: Arc<Mutex<Receiver<ReadJob>>> = Arc::new(Mutex::new(jobs));
    let mut readers = Vec::new();
    for _ in 0..READERS {
        let reader = Reader {
            jobs: Arc::clone(&jobs),
            keyspaces: keyspaces.clone(),
            shared: Arc::clone(shared),
        };
        readers.push(workers.start("weir-read", Box::new(reader))?);
    }
    Ok((reads, readers))
}

/// A worker that serves reads from the queue.
pub(crate) struct Reader {
    pub(crate) jobs: Arc<Mutex<Receiver<ReadJob>>>,
    pub(crate) keyspaces: Keyspaces,
    pub(crate) shared: Arc<Shared>,
}

impl Reader {
    fn jobs(&self) -> MutexGuard<'_, Receiver<ReadJob>> {
        self.jobs.lock()
    }
}

impl Worker for Reader {
    fn run(self: Box<Self>) {
        loop {
            let job = self.jobs().recv();
            let Ok(job) = job else { return };
            job(&self.keyspaces, &self.shared.positions);
        }
    }

    fn turn(&mut self) -> Turn {
        loop {
            let job = self.jobs().try_recv();
            match job {
                Ok(job) => job(&self.keyspaces, &self.shared.positions),
                Err(TryRecvError::Empty) => return Turn::Wait(None),
                Err(TryRecvError::Disconnected) => return Turn::Over,
            }
        }
    }
}

//! The loop of the writer's thread.

use crate::error::AppendError;
use crate::host::workers::{Turn, Worker};
use crate::write::command::Command;
use crate::write::commit::IDLE;
use crate::write::writer::Writer;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, TryRecvError};
use std::time::Duration;
use weir_types::limits::GROUP_COMMIT_BYTES_MAX;
use weir_types::planted::{Bug, planted};

/// Interval of idle checks after an idle check found no work. Such work is effects applied later, which no
/// reader waits for.
pub(super) const REST: Duration = Duration::from_secs(1);

impl Worker for Writer {
    fn run(mut self: Box<Self>) {
        let mut idle = IDLE;
        let served = loop {
            let served = match self.commands.recv_timeout(idle) {
                Ok(command) => {
                    idle = IDLE;
                    self.take(command)
                }
                Err(RecvTimeoutError::Timeout) => self.flush_idle().map(|is_settled| {
                    idle = if is_settled { REST } else { IDLE };
                    true
                }),
                Err(RecvTimeoutError::Disconnected) => self.close().map(|()| false),
            };
            if !matches!(served, Ok(true)) {
                break served;
            }
        };
        if self.ended(served) {
            while let Ok(command) = self.commands.recv_timeout(IDLE) {
                self.refuse(command);
            }
        }
    }

    fn turn(&mut self) -> Turn {
        let served = match self.commands.try_recv() {
            Ok(command) => self.take(command),
            Err(TryRecvError::Empty) => self.flush_idle().map(|_| true),
            Err(TryRecvError::Disconnected) => self.close().map(|()| false),
        };
        if matches!(served, Ok(true)) {
            return Turn::Wait(Some(IDLE));
        }
        if self.ended(served) {
            while let Ok(command) = self.commands.try_recv() {
                self.refuse(command);
            }
        }
        Turn::Over
    }
}

impl Writer {
    /// Ends the loop. Returns true when a failed write ended it.
    pub(super) fn ended(&self, served: fjall::Result<bool>) -> bool {
        let Err(e) = served else {
            self.store.shared.stop(None);
            return false;
        };
        let reason: Arc<str> = e.to_string().into();
        tracing::error!(%reason, "the log stopped: restart to recover");
        self.store.shared.stop(Some(reason));
        true
    }

    pub(super) fn refuse(&self, command: Command) {
        let reason = self
            .store
            .shared
            .reason()
            .unwrap_or_else(|| "a write failed".into());
        command.fail(AppendError::Poisoned(reason));
    }

    /// Serves a command and the commands queued behind it. Returns false after the last command.
    pub(super) fn take(&mut self, first: Command) -> fjall::Result<bool> {
        let mut next = Some(first);
        let mut round = self.round();
        while let Some(command) = next.take() {
            match command {
                Command::Append { entry, flushed } => self.stage(&mut round, entry, flushed),
                Command::Truncate { group, from, done } => {
                    self.commit(round)?;
                    self.store.truncate(group, from)?;
                    done(Ok(()));
                    round = self.round();
                }
                Command::Local { key, value, done } => {
                    self.store.copy.note(key.as_bytes(), Some(&value));
                    round
                        .batch
                        .insert(&self.store.keyspaces.state, key.as_bytes(), value);
                    round.durable |= !planted(Bug::VoteNotSynced);
                    round.flushed.push(done);
                }
                // Effects join every commit.
                Command::Settle { done } => round.flushed.push(done),
                Command::Purge { group, upto, done } => {
                    self.commit(round)?;
                    self.store.purge(group, upto)?;
                    done(Ok(()));
                    round = self.round();
                }
                Command::Snapshot { group, done } => {
                    self.commit(round)?;
                    done(Ok(self.store.snapshot(group)?));
                    round = self.round();
                }
                Command::Receive { received, done } => {
                    self.commit(round)?;
                    self.store.receive(received)?;
                    done(Ok(()));
                    round = self.round();
                }
                Command::Mend { received, done } => {
                    self.commit(round)?;
                    done(Ok(self.store.mend(received)?));
                    round = self.round();
                }
                Command::Install { install, done } => {
                    self.commit(round)?;
                    self.store.install(*install)?;
                    done(Ok(()));
                    round = self.round();
                }
                Command::Forget { group, done } => {
                    self.commit(round)?;
                    self.store.forget(group)?;
                    done(Ok(()));
                    round = self.round();
                }
                Command::Close { done } => {
                    self.commit(round)?;
                    let closed = self.close();
                    // Stop before the caller continues: the caller may open the directory again at once.
                    self.store.shared.stop(None);
                    done(Ok(()));
                    return closed.map(|()| false);
                }
            }
            if round.bytes < GROUP_COMMIT_BYTES_MAX {
                next = self.commands.try_recv().ok();
            }
        }
        self.commit(round)?;
        Ok(true)
    }
}

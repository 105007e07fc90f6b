//! The thread of a proposer: decides how long small requests wait for company.

use crate::propose::proposer::Proposer;
use crate::propose::request::Request;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};
use weir_log::{Turn, Worker};
use weir_types::limits::ENTRY_BYTES_TARGET;

/// Runs a proposer until it is stopped, or all senders are gone.
pub(crate) struct ProposerThread {
    pub(crate) proposer: Proposer,
    pub(crate) requests: Receiver<Request>,
    /// Time that a small request waits for company.
    pub(crate) linger: Duration,
}

impl ProposerThread {
    /// Adds a request, and more from `next` until the entry is full. Returns false for the last request.
    pub(crate) fn take(
        &mut self,
        first: Request,
        mut next: impl FnMut(&Receiver<Request>) -> Option<Request>,
    ) -> bool {
        let mut taken = Some(first);
        while let Some(request) = taken.take() {
            if !self.proposer.handle(request) {
                self.proposer.flush();
                return false;
            }
            if self.proposer.round.is_empty() || self.proposer.round.bytes >= ENTRY_BYTES_TARGET {
                break;
            }
            taken = next(&self.requests);
        }
        self.proposer.flush();
        true
    }
}

impl Worker for ProposerThread {
    fn run(mut self: Box<Self>) {
        while let Ok(first) = self.requests.recv() {
            let (begun, linger) = (Instant::now(), self.linger);
            let next = |requests: &Receiver<Request>| {
                requests.recv_timeout(linger.saturating_sub(begun.elapsed())).ok()
            };
            if !self.take(first, next) {
                return;
            }
        }
    }

    fn turn(&mut self) -> Turn {
        loop {
            let first = match self.requests.try_recv() {
                Ok(first) => first,
                Err(TryRecvError::Empty) => return Turn::Wait(None),
                Err(TryRecvError::Disconnected) => return Turn::Over,
            };
            if !self.take(first, |requests| requests.try_recv().ok()) {
                return Turn::Over;
            }
        }
    }
}

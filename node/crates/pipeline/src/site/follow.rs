//! Following the site: every node compiles and runs the applied pipelines and modules, so that a new leader
//! continues at once.

use crate::manage::registry::Pipelines;
use crate::module_store::Store;
use crate::spec::row::{self, RowFingerprint};
use crate::stages::stage::Stages;
use crate::worker::counts::State;
use std::collections::BTreeSet;
use std::sync::Weak;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;
use weir_broker::StateKind;

/// Retry interval. Applied rows reach the disk within this time.
const AGAIN: Duration = Duration::from_millis(200);

/// Runs until the pipelines are dropped.
pub(crate) fn follow(pipelines: &Weak<crate::manage::registry::Inner>, woken: &Receiver<()>) {
    let mut again = false;
    loop {
        match woken.recv_timeout(if again { AGAIN } else { Duration::from_secs(1) }) {
            Ok(()) => {}
            Err(RecvTimeoutError::Timeout) if again => {}
            Err(RecvTimeoutError::Timeout) => {
                let Some(inner) = pipelines.upgrade() else { return };
                let pipelines = Pipelines(inner);
                pipelines.check_guards();
                if !pipelines.is_quiesced() {
                    continue;
                }
            }
            Err(RecvTimeoutError::Disconnected) => return,
        }
        let Some(inner) = pipelines.upgrade() else { return };
        again = !Pipelines(inner).catch_up();
    }
}

impl Pipelines {
    /// Returns true if a pipeline was quiesced for a change that did not follow.
    fn is_quiesced(&self) -> bool {
        self.active()
            .values()
            .any(|a| a.handle.fingerprint == RowFingerprint::NONE)
    }

    /// Installs all applied rows. Returns false if bytes of a module are still missing.
    fn catch_up(&self) -> bool {
        self.load_ahead();
        // A change by this node installs its own result.
        let _one = self.0.changing.blocking_lock();
        let modules = self.follow_modules();
        modules & self.follow_pipelines()
    }

    /// Fetches and compiles modules of applied rows before the lock of all changes is taken. Errors show when
    /// the modules are loaded under the lock.
    fn load_ahead(&self) {
        let (dir, known) = {
            let store = self.store();
            (store.dir(), store.modules.clone())
        };
        for (digest, info) in Store::read_rows(&self.0.broker.rows(StateKind::Module)) {
            if known.get(&digest) != Some(&info) || !Store::has(&dir, &info) {
                drop(Store::fetch(&dir, &self.0.broker, &info));
            }
        }
        for (_, value) in self.0.broker.rows(StateKind::Pipeline) {
            let row = row::of_pipeline(&value).ok().filter(|row| !self.runs(row));
            for digest in row.iter().flat_map(|row| row.modules()) {
                drop(self.load(*digest));
            }
        }
    }

    fn follow_modules(&self) -> bool {
        let rows = self.0.broker.rows(StateKind::Module);
        let infos = Store::read_rows(&rows);
        let dir = self.store().dir();
        let mut complete = true;
        for (digest, info) in &infos {
            if self.store().modules.get(digest) == Some(info) && Store::has(&dir, info) {
                continue;
            }
            match Store::fetch(&dir, &self.0.broker, info) {
                Ok(true) => drop(self.store().modules.insert(*digest, info.clone())),
                Ok(false) => complete = false,
                Err(error) => {
                    tracing::error!(module = %info.name, %error, "cannot fetch module from the replicated log")
                }
            }
        }
        let gone: Vec<_> = self
            .store()
            .modules
            .keys()
            .filter(|d| !rows.iter().any(|(key, _)| key.as_slice() == d.as_bytes()))
            .copied()
            .collect();
        for digest in gone {
            self.store().modules.remove(&digest);
            self.loaded().remove(&digest);
            self.store().remove_file(digest);
        }
        complete
    }

    fn follow_pipelines(&self) -> bool {
        let rows = self.0.broker.rows(StateKind::Pipeline);
        let (mut names, mut complete) = (BTreeSet::new(), true);
        for (key, value) in rows {
            let Ok(row) = row::of_pipeline(&value) else {
                // The unreadable row was logged on arrival. The running pipeline stays, and is not used.
                names.insert(String::from_utf8_lossy(&key).into_owned());
                continue;
            };
            let name = row.spec.name.to_string();
            names.insert(name.clone());
            if self.runs(&row) {
                continue;
            }
            if !row.modules().all(|d| self.store().modules.contains_key(d)) {
                complete = false;
                continue;
            }
            let (stages, state) = match self.load_row(&row) {
                Ok(stages) if row.paused => (stages, State::Paused),
                Ok(stages) => (stages, State::Running),
                Err(e) => {
                    tracing::error!(pipeline = %name, error = %e, "pipeline starts halted");
                    (Stages::none(), State::Halted(e.to_string()))
                }
            };
            if let Err(error) = self.install(row, stages, state) {
                tracing::error!(pipeline = %name, %error, "pipeline cannot start");
            }
        }
        self.retain_only(&names);
        complete
    }
}

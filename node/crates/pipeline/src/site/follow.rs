//! Pipelines and modules that another node's entries brought: every node of the site has them ready, so that whoever
//! leads next goes on with them at once.

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

/// Rows reach the disk within this time of being applied; what is not there yet is looked for again.
const AGAIN: Duration = Duration::from_millis(200);

/// Runs until the pipelines are gone.
pub(crate) fn follow(pipelines: &Weak<crate::manage::registry::Inner>, woken: &Receiver<()>) {
    let mut again = false;
    loop {
        match woken.recv_timeout(if again { AGAIN } else { Duration::from_secs(1) }) {
            Ok(()) => {}
            Err(RecvTimeoutError::Timeout) if again => {}
            Err(RecvTimeoutError::Timeout) => {
                let Some(inner) = pipelines.upgrade() else { return };
                let pipelines = Pipelines(inner);
                pipelines.guard();
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
    /// Whether a pipeline was stopped for a change that was then not made.
    fn is_quiesced(&self) -> bool {
        self.active()
            .values()
            .any(|a| a.handle.fingerprint == RowFingerprint::NONE)
    }

    /// Makes what runs here what the rows say. False when something is still on its way.
    fn catch_up(&self) -> bool {
        self.load_ahead();
        // A change that this node makes itself installs what it made.
        let _one = self.0.changing.blocking_lock();
        let modules = self.follow_modules();
        modules & self.follow_pipelines()
    }

    /// Has modules brought here and compiled that rows speak of, before changes are held up: that takes a while. What is wrong with one
    /// shows afterwards.
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
                Err(error) => tracing::error!(module = %info.name, %error, "module did not come over"),
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
                // It was told of when it came. What ran stays and takes nothing.
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
            let (stages, state) = match self.all_stages(&row) {
                Ok(stages) if row.paused => (stages, State::Paused),
                Ok(stages) => (stages, State::Running),
                Err(e) => {
                    tracing::error!(pipeline = %name, error = %e, "pipeline comes up halted");
                    (Stages::none(), State::Halted(e.to_string()))
                }
            };
            if let Err(error) = self.install(row, stages, state) {
                tracing::error!(pipeline = %name, %error, "pipeline does not start");
            }
        }
        self.retain_only(&names);
        complete
    }
}

//! Pipelines that should run, according to the applied rows.

use crate::spec::row::{self, RowFingerprint};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use weir_broker::{Broker, StateKind};
use weir_types::TopicName;
use weir_types::sync::RwLock;

/// Pipelines that should run, according to the applied rows.
#[derive(Default)]
pub(crate) struct DesiredState {
    /// In-line pipelines by source topic: name and fingerprint.
    pub(crate) inline: BTreeMap<TopicName, (String, RowFingerprint)>,
    /// Fingerprints of all pipelines, by name.
    pub(crate) fingerprints: BTreeMap<String, RowFingerprint>,
}

pub(crate) type SharedDesiredState = Arc<RwLock<DesiredState>>;

/// Returns true if a pipeline with this fingerprint should run. A new leader must not run an outdated
/// pipeline on newer state.
pub(crate) fn is_desired(desired: &SharedDesiredState, pipeline: &str, fingerprint: RowFingerprint) -> bool {
    let desired = desired.read();
    desired.fingerprints.get(pipeline) == Some(&fingerprint)
}

/// Keeps `desired` equal to the applied rows, and wakes the following thread after each change. Returns the
/// channel on which the thread is woken.
pub(crate) fn watch(broker: &Broker, desired: &SharedDesiredState) -> Receiver<()> {
    let (wake, woken) = sync_channel(1);
    let note = |desired: &SharedDesiredState, wake: &SyncSender<()>, key: &[u8], value: Option<&[u8]>| {
        let mut desired = desired.write();
        let name = String::from_utf8_lossy(key).into_owned();
        let row = value.map(row::of_pipeline);
        desired.inline.retain(|_, (n, _)| *n != name);
        desired.fingerprints.remove(&name);
        if let Some((Err(error), value)) = row.as_ref().zip(value) {
            // The running pipeline is outdated, and records must not bypass it: they wait.
            tracing::error!(pipeline = %name, %error, "a pipeline's row cannot be read: its source is held");
            let sources = row::sources_of_unreadable(value).into_iter();
            let held = sources.map(|source| (source, (name.clone(), RowFingerprint::UNREADABLE)));
            desired.inline.extend(held);
        }
        if let Some(Ok(row)) = row {
            let source = row.spec.inline_source().cloned();
            desired.fingerprints.insert(name.clone(), row.fingerprint());
            let inline = source.map(|source| (source, (name, row.fingerprint())));
            desired.inline.extend(inline);
        }
        // A single pending wake-up is enough.
        let _ = wake.try_send(());
    };
    for (key, value) in broker.rows(StateKind::Pipeline) {
        note(desired, &wake, &key, Some(&value));
    }
    let (kept, waker) = (Arc::clone(desired), wake.clone());
    broker.watch_rows(StateKind::Pipeline, move |key, value| {
        note(&kept, &waker, key, value)
    });
    broker.watch_rows(StateKind::Module, move |_, _| {
        let _ = wake.try_send(());
    });
    woken
}

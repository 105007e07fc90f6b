//! What the applied rows say should run.

use crate::spec::row::{self, RowFingerprint};
use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, PoisonError, RwLock};
use weir_broker::{Broker, StateKind};
use weir_types::TopicName;

/// What the rows say should run.
#[derive(Default)]
pub(crate) struct DesiredState {
    /// In-line, by source topic: the pipeline, and its row's stamp.
    pub(crate) inline: BTreeMap<TopicName, (String, RowFingerprint)>,
    /// Stamps of all.
    pub(crate) fingerprints: BTreeMap<String, RowFingerprint>,
}

pub(crate) type SharedDesiredState = Arc<RwLock<DesiredState>>;

/// Whether what runs of a pipeline under `stamp` is what should. A node that has come to lead must not go on with what was before: what
/// is remembered by now is another's.
pub(crate) fn is_desired(desired: &SharedDesiredState, pipeline: &str, fingerprint: RowFingerprint) -> bool {
    let desired = desired.read().unwrap_or_else(PoisonError::into_inner);
    desired.fingerprints.get(pipeline) == Some(&fingerprint)
}

/// Keeps `wanted` as the rows are, from the entry that changes them on, and wakes the thread that follows.
pub(crate) fn watch(broker: &Broker, desired: &SharedDesiredState) -> Receiver<()> {
    let (wake, woken) = sync_channel(1);
    let note = |desired: &SharedDesiredState, wake: &SyncSender<()>, key: &[u8], value: Option<&[u8]>| {
        let mut desired = desired.write().unwrap_or_else(PoisonError::into_inner);
        let name = String::from_utf8_lossy(key).into_owned();
        let row = value.map(row::of_pipeline);
        desired.inline.retain(|_, (n, _)| *n != name);
        desired.fingerprints.remove(&name);
        if let Some((Err(error), value)) = row.as_ref().zip(value) {
            // What ran before is not what should run now, and records must not pass it by: they wait.
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
        // One that waits is enough.
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

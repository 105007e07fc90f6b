//! What the applied rows say should run.

use crate::spec::row::{self, Stamp};
use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, PoisonError, RwLock};
use weir_broker::{Broker, StateKind};
use weir_types::TopicName;

/// What the rows say should run.
#[derive(Default)]
pub(crate) struct Wants {
    /// In-line, by source topic: the pipeline, and its row's stamp.
    pub(crate) inline: BTreeMap<TopicName, (String, Stamp)>,
    /// Stamps of all.
    pub(crate) stamps: BTreeMap<String, Stamp>,
}

pub(crate) type Wanted = Arc<RwLock<Wants>>;

/// Whether what runs of a pipeline under `stamp` is what should. A node that has come to lead must not go on with what was before: what
/// is remembered by now is another's.
pub(crate) fn is_wanted(wanted: &Wanted, pipeline: &str, stamp: Stamp) -> bool {
    let wanted = wanted.read().unwrap_or_else(PoisonError::into_inner);
    wanted.stamps.get(pipeline) == Some(&stamp)
}

/// Keeps `wanted` as the rows are, from the entry that changes them on, and wakes the thread that follows.
pub(crate) fn watch(broker: &Broker, wanted: &Wanted) -> Receiver<()> {
    let (wake, woken) = sync_channel(1);
    let note = |wanted: &Wanted, wake: &SyncSender<()>, key: &[u8], value: Option<&[u8]>| {
        let mut wanted = wanted.write().unwrap_or_else(PoisonError::into_inner);
        let name = String::from_utf8_lossy(key).into_owned();
        let row = value.map(row::of_pipeline);
        wanted.inline.retain(|_, (n, _)| *n != name);
        wanted.stamps.remove(&name);
        if let Some((Err(error), value)) = row.as_ref().zip(value) {
            // What ran before is not what should run now, and records must not pass it by: they wait.
            tracing::error!(pipeline = %name, %error, "a pipeline's row cannot be read: its source is held");
            let sources = row::sources_of_unreadable(value).into_iter();
            let held = sources.map(|source| (source, (name.clone(), Stamp::UNREADABLE)));
            wanted.inline.extend(held);
        }
        if let Some(Ok(row)) = row {
            let source = row.spec.inline_source().cloned();
            wanted.stamps.insert(name.clone(), row.stamp());
            let inline = source.map(|source| (source, (name, row.stamp())));
            wanted.inline.extend(inline);
        }
        // One that waits is enough.
        let _ = wake.try_send(());
    };
    for (key, value) in broker.rows(StateKind::Pipeline) {
        note(wanted, &wake, &key, Some(&value));
    }
    let (kept, waker) = (Arc::clone(wanted), wake.clone());
    broker.watch_rows(StateKind::Pipeline, move |key, value| {
        note(&kept, &waker, key, value)
    });
    broker.watch_rows(StateKind::Module, move |_, _| {
        let _ = wake.try_send(());
    });
    woken
}

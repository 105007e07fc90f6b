//! The node itself: scrubbing.

use crate::answer::Answer;
use bytes::Bytes;
use std::sync::Arc;
use tokio::sync::mpsc;
use weir_admin::Services;
use weir_peer::protocol::{Reply, WireError};
use weir_types::ErrorKind;

/// Reads all stored records on a thread of its own, and reports progress.
pub(crate) fn scrub(node: &Arc<Services>) -> Answer {
    let node = Arc::clone(node);
    let (replies, answers) = mpsc::channel(16);
    tokio::spawn(async move {
        let eye = replies.clone();
        let scrubbed = node.scrub(move |done, total| {
            // Progress is for the eye: a reply that does not fit is left out.
            let _ = eye.try_send((Reply::Progress(done, total), Bytes::new()));
        });
        let failed = |message: String| {
            let kind = ErrorKind::Internal.into();
            (Reply::Error(WireError { kind, message }), Bytes::new())
        };
        let reply = match scrubbed.await {
            Ok(report) => match serde_json::to_vec(&report) {
                Ok(report) => (Reply::Json, report.into()),
                Err(e) => failed(e.to_string()),
            },
            Err(e) => failed(e.to_string()),
        };
        let _ = replies.send(reply).await;
    });
    Answer::Long(answers)
}

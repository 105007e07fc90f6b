//! Pipelines: the requests that are more than a call of the node.

use crate::answer::Answer;
use crate::error::{Refused, wire};
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use weir_admin::Services;
use weir_peer::protocol::Reply;
use weir_pipeline::Origin;
use weir_types::ErrorKind;

/// Longest shadow run over new records: an hour, in milliseconds.
const SHADOW_MS_MAX: u64 = 3_600_000;

/// Removes a pipeline.
pub(crate) async fn remove(node: &Services, name: &str) -> Result<Answer, Refused> {
    node.pipelines.remove(name).await?;
    Ok(Reply::Done.into())
}

/// Starts a shadow run, and reports its progress. The run ends early when nobody listens any more.
pub(crate) fn shadow(node: &Arc<Services>, toml: String, from: Origin, wait_ms: u64) -> Answer {
    let (node, wait) = (
        Arc::clone(node),
        Duration::from_millis(wait_ms.min(SHADOW_MS_MAX)),
    );
    let (replies, answers) = mpsc::channel(16);
    tokio::spawn(async move {
        let eye = replies.clone();
        let progress = move |done| {
            // Progress is for the eye: a reply that does not fit is left out.
            let _ = eye.try_send((Reply::Progress(done, 0), Bytes::new()));
            !eye.is_closed()
        };
        let reply = match node.shadow_pipeline(&toml, from, wait, progress).await {
            Ok(shadow) => match serde_json::to_vec(&shadow) {
                Ok(report) => (Reply::Json, report.into()),
                Err(e) => (Reply::Error(wire(ErrorKind::Internal, &e)), Bytes::new()),
            },
            Err(e) => (Reply::Error(wire(e.kind(), &e)), Bytes::new()),
        };
        let _ = replies.send(reply).await;
    });
    Answer::Long(answers)
}

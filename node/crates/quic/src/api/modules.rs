//! Modules: uploads in parts, and pushing the whole.

use crate::answer::Answer;
use crate::error::{Refused, wire};
use std::time::Duration;
use tokio::time::Instant;
use weir_admin::Services;
use weir_broker::{Principal, Taken};
use weir_peer::protocol::Reply;
use weir_types::ErrorKind;
use weir_types::limits::{MODULE_BYTES_MAX, MODULE_CHUNK_BYTES};

/// Time for an upload: a minute, and a second more for each such number of bytes.
const UPLOAD_WITHIN: Duration = Duration::from_secs(60);
const UPLOAD_BYTES_PER_S: usize = 64 << 10;

/// Parts of a module so far, and the share of the node's memory that an upload takes.
#[derive(Default)]
pub(crate) struct Upload {
    bytes: Vec<u8>,
    place: Option<(Taken, Instant)>,
}

impl Upload {
    /// Returns until when the next part is waited for, if an upload has begun.
    pub(crate) fn until(&self) -> Option<Instant> {
        let (_, begun) = self.place.as_ref()?;
        let more = Duration::from_secs((self.bytes.len() / UPLOAD_BYTES_PER_S) as u64);
        Some(*begun + UPLOAD_WITHIN + more)
    }

    /// Appends a part.
    pub(crate) fn part(
        &mut self,
        node: &Services,
        who: &Principal,
        payload: &[u8],
    ) -> Result<Answer, Refused> {
        if self.place.is_none() {
            let uploads = &node.broker.ledger().uploads;
            let place = uploads.try_take(MODULE_BYTES_MAX, who.address);
            let place = place.map_err(|e| Refused(wire(e.kind(), &e)))?;
            self.place = Some((place, Instant::now()));
        }
        let total = self.bytes.len() + payload.len();
        if payload.len() > MODULE_CHUNK_BYTES || total > MODULE_BYTES_MAX {
            *self = Self::default();
            let message =
                format!("module is over the limit of {MODULE_BYTES_MAX} bytes, or a part over 1 MiB");
            return Err(Refused::new(ErrorKind::Invalid, message));
        }
        self.bytes.extend_from_slice(payload);
        Ok(Reply::Done.into())
    }
}

/// Stores the module that was uploaded.
pub(crate) async fn push(
    node: &Services,
    name: &str,
    version: &str,
    upload: Upload,
) -> Result<Answer, Refused> {
    let Upload { bytes, place } = upload;
    let pushed = node.push_module(name, version, bytes).await;
    drop(place);
    Answer::json(&pushed?)
}

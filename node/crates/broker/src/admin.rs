//! Changing topics, consumer groups' offsets and other rows.

use crate::access::auth::{Operation, Principal, Resource};
use crate::core::Broker;
use crate::error::AdminError;

impl Broker {
    /// A producer id that nobody had before, for numbering batches from epoch 0 and sequence 0.
    ///
    /// # Errors
    /// When the reservation of ids is not committed.
    pub async fn init_producer(&self, who: &Principal) -> Result<i64, AdminError> {
        self.allow(who, Operation::Write, Resource::Cluster)?;
        let mut ids = self.0.producer_ids.lock().await;
        if ids.is_empty() {
            *ids = match self.is_serving() {
                true => self.reserve_producer_ids().await?,
                false => self.ask_for_producer_ids().await?,
            };
        }
        ids.next()
            .and_then(|id| i64::try_from(id).ok())
            .ok_or(AdminError::Closed)
    }
}

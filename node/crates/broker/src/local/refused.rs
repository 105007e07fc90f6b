//! Topics that were refused to explicit requests.

use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;
use weir_types::limits::{REFUSED_TOPICS_MAX, TOPIC_NAME_BYTES_MAX};
use weir_types::sync::Mutex;

/// Time for which a refusal is remembered: longer than a tool that ignores the refusal keeps using the name.
const REFUSED_FOR: Duration = Duration::from_secs(3_600);

/// Names of topics that were refused lately.
#[derive(Default)]
pub(crate) struct Refused(Mutex<BTreeMap<String, Instant>>);

impl Refused {
    pub(crate) fn note(&self, name: &str, now: Instant) {
        let mut names = self.0.lock();
        if name.len() > TOPIC_NAME_BYTES_MAX {
            return;
        }
        names.insert(name.to_owned(), now);
        while names.len() > REFUSED_TOPICS_MAX
            && let Some(oldest) = names
                .iter()
                .min_by_key(|(_, at)| **at)
                .map(|(name, _)| name.clone())
        {
            names.remove(&oldest);
        }
    }

    /// Forgets a refusal, since the topic exists now.
    pub(crate) fn forget(&self, name: &str) {
        let mut names = self.0.lock();
        names.remove(name);
    }

    pub(crate) fn has(&self, name: &str, now: Instant) -> bool {
        let names = self.0.lock();
        names
            .get(name)
            .is_some_and(|at| now.duration_since(*at) < REFUSED_FOR)
    }
}

//! Limit on the partitions that pipelines read, which depends on the partitions of their sources. Memory of
//! modules is counted as they use it.

use crate::error::ApplyError;
use crate::manage::registry::{Active, Pipelines};
use crate::spec::Spec;
use std::collections::BTreeMap;
use weir_broker::{Broker, Standing};
use weir_types::TopicName;
use weir_types::limits::PLACES_MAX;

/// Sizes of pipelines, for the partitions of today, or with another number for a topic.
pub(crate) struct Sizes<'a> {
    broker: &'a Broker,
    grown: Option<(&'a str, usize)>,
}

impl<'a> Sizes<'a> {
    /// Uses the present numbers of partitions.
    pub(crate) fn of(broker: &'a Broker) -> Self {
        Self { broker, grown: None }
    }

    pub(crate) fn partitions(&self, topic: &TopicName) -> usize {
        match self.grown {
            Some((grown, partitions)) if grown == topic.as_str() => partitions,
            _ => {
                let topic = self.broker.topic(topic.as_str());
                topic.map_or(0, |t| t.partitions.len())
            }
        }
    }

    pub(crate) fn places(&self, spec: &Spec) -> usize {
        if spec.is_behind_the_log() {
            spec.source.iter().map(|topic| self.partitions(topic)).sum()
        } else {
            0
        }
    }

    /// Checks that `spec` fits beside the `active` pipelines, in place of the pipeline with its name.
    pub(crate) fn check(&self, active: &BTreeMap<String, Active>, spec: &Spec) -> Result<(), ApplyError> {
        let others = || active.values().filter(|a| a.row.spec.name != spec.name);
        let wanted = others().map(|a| self.places(&a.row.spec)).sum::<usize>() + self.places(spec);
        if wanted > PLACES_MAX {
            let (what, limit) = ("partitions to read", PLACES_MAX);
            return Err(ApplyError::Together { what, wanted, limit });
        }
        Ok(())
    }
}

impl Pipelines {
    /// Checks that pipelines still fit if `topic` has this number of partitions.
    pub(crate) fn has_room_for(&self, topic: &str, partitions: usize) -> Result<(), ApplyError> {
        let active = self.active();
        let now = Sizes::of(&self.0.broker);
        let then = Sizes {
            broker: &self.0.broker,
            grown: Some((topic, partitions)),
        };
        let rows = || active.values().map(|a| &a.row);
        let places = |sizes: &Sizes<'_>| {
            rows()
                .map(|row| sizes.places(&row.spec))
                .fold(0, usize::saturating_add)
        };
        let (before, wanted) = (places(&now), places(&then));
        if wanted > before.max(PLACES_MAX) {
            let (what, limit) = ("partitions to read", PLACES_MAX);
            return Err(ApplyError::Together { what, wanted, limit });
        }
        Ok(())
    }

    /// Returns the use of the node's shared resources.
    pub fn standings(&self) -> Vec<Standing> {
        self.0.broker.ledger().standings()
    }
}

//! What pipelines may take of the node: state, memory of modules, places to read from. It follows from what they are and from how
//! many partitions their topics have.

use crate::error::ApplyError;
use crate::pipelines::{Active, Pipelines};
use crate::row::Row;
use crate::spec::Spec;
use std::collections::BTreeMap;
use weir_broker::{Broker, Standing};
use weir_types::TopicName;
use weir_types::limits::{PLACES_MAX, STATE_BYTES_MAX};

/// What pipelines come to, with the partitions that topics have, or one of them would have.
pub(crate) struct Sizes<'a> {
    broker: &'a Broker,
    grown: Option<(&'a str, usize)>,
}

impl<'a> Sizes<'a> {
    /// With the partitions that there are.
    pub(crate) fn of(broker: &'a Broker) -> Self {
        Self { broker, grown: None }
    }

    fn partitions(&self, topic: &TopicName) -> usize {
        match self.grown {
            Some((grown, partitions)) if grown == topic.as_str() => partitions,
            _ => {
                let topic = self.broker.topic(topic.as_str());
                topic.map_or(0, |t| t.partitions.len())
            }
        }
    }

    fn most(&self, spec: &Spec) -> usize {
        let each = spec.source.iter().map(|topic| self.partitions(topic));
        each.max().unwrap_or(0)
    }

    fn state_of(&self, spec: &Spec) -> usize {
        spec.state_bytes(self.most(spec))
    }

    /// The version that is tried takes the place of the other.
    fn state(&self, row: &Row) -> usize {
        let tried = row.canary.as_ref().map(|canary| self.state_of(&canary.spec));
        self.state_of(&row.spec).max(tried.unwrap_or(0))
    }

    fn memory_of(&self, spec: &Spec) -> u64 {
        spec.memory_bytes(self.most(spec))
    }

    /// Its modules', and those that are tried beside them.
    fn memory(&self, row: &Row) -> u64 {
        let tried = row.canary.as_ref().map(|canary| self.memory_of(&canary.spec));
        self.memory_of(&row.spec).saturating_add(tried.unwrap_or(0))
    }

    fn places(&self, spec: &Spec) -> usize {
        match spec.is_behind_the_log() {
            true => spec.source.iter().map(|topic| self.partitions(topic)).sum(),
            false => 0,
        }
    }

    /// Whether `spec` has room beside all that are `active`, in the place of the one that has its name.
    pub(crate) fn check(&self, active: &BTreeMap<String, Active>, spec: &Spec) -> Result<(), ApplyError> {
        let others = || active.values().filter(|a| a.row.spec.name != spec.name);
        let left = STATE_BYTES_MAX.saturating_sub(others().map(|a| self.state(&a.row)).sum());
        let wanted = self.state_of(spec);
        if wanted > left {
            return Err(ApplyError::StateFull { wanted, left });
        }
        let taken: u64 = others().map(|a| self.memory(&a.row)).sum();
        let wanted = self.memory_of(spec);
        let before = active
            .get(spec.name.as_str())
            .map_or(0, |a| Self::of(self.broker).memory(&a.row));
        // Less than before is taken whatever others have.
        if wanted > before
            && let Err(max) = self.broker.ledger().modules_may_use(taken.saturating_add(wanted))
        {
            let left = max.saturating_sub(taken);
            return Err(ApplyError::MemoryFull { wanted, left, max });
        }
        let wanted = others().map(|a| self.places(&a.row.spec)).sum::<usize>() + self.places(spec);
        if wanted > PLACES_MAX {
            let (what, limit) = ("partitions to read", PLACES_MAX);
            return Err(ApplyError::Together { what, wanted, limit });
        }
        Ok(())
    }
}

impl Pipelines {
    /// Whether pipelines have room where `topic`, which some of them read, has so many partitions.
    pub(crate) fn has_room_for(&self, topic: &str, partitions: usize) -> Result<(), ApplyError> {
        let active = self.active();
        let now = Sizes::of(&self.0.broker);
        let then = Sizes {
            broker: &self.0.broker,
            grown: Some((topic, partitions)),
        };
        let rows = || active.values().map(|a| &a.row);
        let state = |sizes: &Sizes<'_>| rows().map(|row| sizes.state(row)).fold(0, usize::saturating_add);
        let (before, after) = (state(&now), state(&then));
        if after > before.max(STATE_BYTES_MAX) {
            let (wanted, left) = (after - before, STATE_BYTES_MAX.saturating_sub(before));
            return Err(ApplyError::StateFull { wanted, left });
        }
        let memory = |sizes: &Sizes<'_>| rows().map(|row| sizes.memory(row)).fold(0, u64::saturating_add);
        let (before, after) = (memory(&now), memory(&then));
        if after > before
            && let Err(max) = self.0.broker.ledger().modules_may_use(after)
        {
            let (wanted, left) = (after - before, max.saturating_sub(before));
            return Err(ApplyError::MemoryFull { wanted, left, max });
        }
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

    /// Whether there is memory for `spec` beside the version of the same pipeline that works.
    pub(crate) fn has_room_to_try(&self, spec: &Spec) -> Result<(), ApplyError> {
        let active = self.active();
        let sizes = Sizes::of(&self.0.broker);
        let taken = active
            .values()
            .map(|a| sizes.memory(&a.row))
            .fold(0, u64::saturating_add);
        let wanted = sizes.memory_of(spec);
        let room = self
            .0
            .broker
            .ledger()
            .modules_may_use(taken.saturating_add(wanted));
        room.map_err(|max| ApplyError::MemoryFull {
            wanted,
            left: max.saturating_sub(taken),
            max,
        })
    }

    /// How the node's shares stand.
    pub fn standings(&self) -> Vec<Standing> {
        let sizes = Sizes::of(&self.0.broker);
        let used = self.active().values().map(|a| sizes.memory(&a.row)).sum();
        let ledger = self.0.broker.ledger();
        ledger.modules_use(used);
        ledger.standings()
    }
}

//! The steps of a recovery, in order.

use crate::recovery::replay::replay_effects;
use crate::recovery::report::GroupState;
use crate::recovery::state::{Failure, Recovery, State};
use crate::store::value_log::writer::{ValueOptions, ValueWriter};
use crate::write::tail::Tail;
use std::collections::BTreeMap;

impl Recovery {
    pub(super) fn run(mut self) -> Result<State, Failure> {
        let mut positions = self.load_positions()?;
        let mut gaps = self.load_gaps()?;
        if self.is_rebuilt {
            self.forget_what_came_back(&mut positions, &mut gaps)?;
        }
        let mut tails = BTreeMap::new();
        let mut replay = Vec::new();
        for group in self.groups()? {
            let (tail, headers) = self.walk_chain(group)?;
            tails.insert(group, tail);
            replay.extend(headers);
        }
        if self.suspect && self.only_whole {
            return Err(Failure::NotWhole(self.recovered.damage));
        }
        if !self.suspect {
            // Only the group knows the committed index.
            self.recovered.unapplied = replay.len() as u64;
            replay.clear();
        }
        let values = ValueOptions {
            segment_bytes: self.value_file_bytes,
            // After damage, unreferenced payloads may be the last copy.
            quarantine: self.suspect.then(|| self.quarantine.clone()),
        };
        let values = ValueWriter::open(&self.keyspaces, values)?;
        if self.suspect {
            self.restore_rows()?;
        }
        let kept;
        (positions, tails, self.watermark, kept) =
            replay_effects(&self.keyspaces, self.watermark, values, positions, tails, replay)?;
        if !self.headers_only {
            self.mend_partitions(&mut positions, &mut gaps)?;
        }
        if self.suspect {
            self.restart_group_logs(&mut tails)?;
        }
        if self.is_rebuilt {
            self.recount(&mut positions)?;
        }
        let copy = self.copy_rows()?;
        for (group, tail) in &tails {
            let Tail {
                last,
                purged,
                applied,
                ..
            } = *tail;
            let state = GroupState {
                purged,
                applied,
                last,
            };
            self.recovered.groups.insert(*group, state);
        }
        Ok(State {
            keyspaces: self.keyspaces,
            watermark: self.watermark,
            values: kept,
            copy,
            tails,
            positions,
            gaps,
            recovered: self.recovered,
            lock: self.lock,
        })
    }
}

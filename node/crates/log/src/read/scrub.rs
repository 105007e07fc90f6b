//! Reading everything, as a check.

use crate::error::ReadError;
use crate::positions::Positions;
use crate::read::scan::{Piece, Scan};
use crate::store::keyspaces::Keyspaces;
use weir_types::{Gap, GapReason, PartitionId};

/// Findings of a scrub.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScrubReport {
    /// Partitions read.
    pub partitions: u64,
    /// Whole batches.
    pub batches: u64,
    /// Records in whole batches, counted by their frames.
    pub records: u64,
    /// Bytes of whole batches.
    pub bytes: u64,
    /// Ranges known to hold no records: expired, evicted or lost before.
    pub gaps: Vec<(PartitionId, Gap)>,
    /// Ranges found damaged now.
    pub damaged: Vec<(PartitionId, Gap)>,
    /// Reasons why rows other than records cannot all be read: headers of entries, topics and groups.
    pub rows: Vec<String>,
}

pub(crate) fn scrub(
    keyspaces: &Keyspaces,
    positions: &Positions,
    mut progress: impl FnMut(u64, u64),
) -> Result<ScrubReport, ReadError> {
    let all = positions.all();
    let total = all.iter().map(|(_, m)| m.bytes()).sum();
    let mut report = ScrubReport {
        partitions: all.len() as u64,
        ..ScrubReport::default()
    };
    for (name, rows) in [("rlog", &keyspaces.rlog), ("state", &keyspaces.state)] {
        let unreadable = rows.iter().find_map(|row| row.into_inner().err());
        report
            .rows
            .extend(unreadable.map(|e| format!("rows of `{name}`: {e}")));
    }
    for (partition, marks) in all {
        let end = marks.committed_end();
        let scan = Scan {
            keyspaces,
            marks: &marks,
            partition,
            end,
        };
        let mut from = marks.log_start();
        while from < end {
            let chunk = match scan.read(from, 1 << 20) {
                Ok(chunk) => chunk,
                Err(e @ ReadError::Busy(_)) => return Err(e),
                Err(_) => {
                    report.damaged.push((
                        partition,
                        Gap {
                            start: from,
                            end,
                            reason: GapReason::Lost,
                        },
                    ));
                    break;
                }
            };
            for piece in &chunk.pieces {
                match piece {
                    Piece::Batch(batch) => {
                        report.batches += 1;
                        report.records += u64::from(batch.count());
                        report.bytes += batch.bytes().len() as u64;
                    }
                    Piece::Gap(gap) => {
                        let known = marks
                            .gaps()
                            .iter()
                            .any(|k| k.start <= gap.start && gap.end <= k.end);
                        let list = if known {
                            &mut report.gaps
                        } else {
                            &mut report.damaged
                        };
                        list.push((partition, *gap));
                    }
                }
            }
            progress(report.bytes, total);
            if chunk.next <= from {
                break;
            }
            from = chunk.next;
        }
    }
    Ok(report)
}

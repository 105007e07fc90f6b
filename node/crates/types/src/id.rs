//! Numbers with a meaning, as types that cannot be confused.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Position of a record in a partition; the first is 0. Kafka's offsets are signed, so the top bit stays
/// clear.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Offset(u64);

impl Offset {
    /// The first position of every partition.
    pub const ZERO: Offset = Offset(0);
    /// The largest position that a Kafka client can name.
    pub const MAX: Offset = Offset(i64::MAX as u64);

    /// Returns the offset at `value`, cut to [`Offset::MAX`].
    pub const fn new(value: u64) -> Self {
        if value > Self::MAX.0 {
            Self::MAX
        } else {
            Self(value)
        }
    }

    /// Returns the number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Returns the offset `n` records further on.
    #[must_use]
    pub const fn plus(self, n: u64) -> Self {
        Self::new(self.0.saturating_add(n))
    }

    /// Returns the number of offsets in `[earlier, self)`; 0 when `earlier` is not earlier.
    pub const fn since(self, earlier: Offset) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A partition of a topic: its replica group, and a number in the group that is never reused. The first part
/// of every data key, so that the keys alone tell a group's contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PartitionId(pub u32);

impl PartitionId {
    /// Bits of the number; the bits above are the group's.
    const NUMBER_BITS: u32 = 24;
    /// Count of numbers in a group.
    pub const NUMBERS: u32 = 1 << Self::NUMBER_BITS;

    /// A number of the site's group that no partition gets: state of pipelines that is independent of
    /// partitions.
    pub const HOME: Self = Self(0);

    /// Returns the partition `number` of `group`; `None` beyond the count of numbers.
    pub fn new(group: GroupId, number: u32) -> Option<Self> {
        let group = u8::try_from(group.0).ok()?;
        (number < Self::NUMBERS).then_some(Self(u32::from(group) << Self::NUMBER_BITS | number))
    }

    /// Returns the partition's replica group.
    pub fn group(self) -> GroupId {
        GroupId((self.0 >> Self::NUMBER_BITS) as u16)
    }

    /// Returns the number in the group.
    pub fn number(self) -> u32 {
        self.0 & (Self::NUMBERS - 1)
    }
}

impl fmt::Display for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A replica group: a log that carries many partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct GroupId(pub u16);

impl GroupId {
    /// The group of all nodes of the site, with the site's shared state and by default every partition.
    pub const SITE: Self = Self(0);
}

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A leader's reign in a replica group. Entries of a later term overrule those of an earlier one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Term(pub u64);

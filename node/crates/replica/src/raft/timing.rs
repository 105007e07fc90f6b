//! Timeouts of a group.

use std::time::Duration;

/// Timeouts of elections and heartbeats.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Time between two heartbeats of a leader.
    pub heartbeat: Duration,
    /// Shortest silence before a follower stands for election.
    pub election_min: Duration,
    /// Longest silence before a follower stands for election.
    pub election_max: Duration,
}

impl Timing {
    /// For gateways: slow disks, shared radio.
    pub const EDGE: Self = Self {
        heartbeat: Duration::from_millis(150),
        election_min: Duration::from_millis(400),
        election_max: Duration::from_millis(600),
    };
    /// For machines in a single room.
    pub const CENTRAL: Self = Self {
        heartbeat: Duration::from_millis(50),
        election_min: Duration::from_millis(150),
        election_max: Duration::from_millis(300),
    };
}

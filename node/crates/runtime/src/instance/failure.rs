//! Failures of calls into a guest.

use crate::compile::configuration::TICK;
use crate::error::CallFailure;
use crate::host::Guest;
use crate::words::tidy;
use std::time::Duration;
use wasmtime::Trap;

pub(super) fn ticks(deadline: Duration) -> u64 {
    // The tick under way at the begin of the call is not a whole tick.
    deadline.as_millis().div_ceil(TICK.as_millis()) as u64 + 1
}

pub(super) fn failure(error: &wasmtime::Error, guest: &Guest, deadline: Duration) -> CallFailure {
    match error.downcast_ref::<Trap>() {
        Some(Trap::Interrupt) => CallFailure::Deadline(deadline),
        _ if guest.memory.is_full => CallFailure::Full(guest.memory.pool.max()),
        _ if guest.memory.refused => CallFailure::Memory(guest.limits.memory_bytes),
        _ if guest.state.crowded.is_some() => CallFailure::Crowded(guest.state.crowded.unwrap_or_default()),
        _ if guest.state.refused.is_some() => {
            CallFailure::State(guest.state.refused.clone().unwrap_or_default())
        }
        Some(trap) => CallFailure::Trap(trap.to_string()),
        None => {
            let words = format!("{error:#}");
            if words.contains("fuel") {
                CallFailure::Output(guest.limits.output_bytes)
            } else {
                CallFailure::Trap(tidy(words))
            }
        }
    }
}

//! Describes itself in a text that is too long, with characters that are unfit for a terminal.

use weir_sdk::bindings::exports::weir::module::timed;
use weir_sdk::bindings::exports::weir::module::transform::Guest;
use weir_sdk::bindings::exports::weir::module::upgrade;
use weir_sdk::bindings::weir::module::types::*;

struct Boaster;

impl Guest for Boaster {
    fn describe() -> Descriptor {
        Descriptor {
            about: "\u{1}".repeat(7_900_000),
            parameters: Vec::new(),
            state_version: 0,
        }
    }

    fn init(_: Config) -> Result<Plan, String> {
        Err("on purpose".into())
    }

    fn process(_: Batch) -> Result<Outcome, Fault> {
        Err(Fault::Fatal("on purpose".into()))
    }
}

impl upgrade::Guest for Boaster {
    fn migrate(_: u32) -> Result<(), String> {
        Err("on purpose".into())
    }
}

impl timed::Guest for Boaster {
    fn on_timers(_: Fired) -> Result<Outcome, Fault> {
        Err(Fault::Fatal("on purpose".into()))
    }
}

weir_sdk::bindings::export!(Boaster with_types_in weir_sdk::bindings);

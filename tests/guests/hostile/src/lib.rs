//! Misbehaves in the way that `mode` selects. Written on the raw bindings, since the SDK permits no lies.

use std::cell::RefCell;
use weir_sdk::bindings::exports::weir::module::timed;
use weir_sdk::bindings::exports::weir::module::transform::Guest;
use weir_sdk::bindings::exports::weir::module::upgrade;
use weir_sdk::bindings::weir::module::log::{Level, write};
use weir_sdk::bindings::weir::module::metrics;
use weir_sdk::bindings::weir::module::state;
use weir_sdk::bindings::weir::module::timers;
use weir_sdk::bindings::weir::module::types::*;

thread_local! {
    static MODE: RefCell<String> = const { RefCell::new(String::new()) };
    static SEEN: std::cell::Cell<u32> = const { std::cell::Cell::new(0) };
}

struct Hostile;

impl Guest for Hostile {
    fn describe() -> Descriptor {
        let mode = Parameter {
            name: "mode".into(),
            kind: Kind::Text,
            preset: None,
            about: String::new(),
        };
        Descriptor {
            about: "hostile".into(),
            parameters: vec![mode],
            state_version: 0,
        }
    }

    fn init(config: Config) -> Result<Plan, String> {
        for (_, value) in config.values {
            if let Value::Text(mode) = value {
                if mode == "init-loop" {
                    spin();
                }
                MODE.with(|m| *m.borrow_mut() = mode);
            }
        }
        let mut outputs = vec!["main".to_owned()];
        if MODE.with(|m| *m.borrow() == "fan-out") {
            outputs.extend(["a", "b", "c"].map(String::from));
        }
        Ok(Plan {
            outputs,
            keys: false,
            values: true,
            headers: false,
        })
    }

    fn process(b: Batch) -> Result<Outcome, Fault> {
        let n = b.timestamps.len();
        let mut outcome = Outcome {
            routes: vec![1; n],
            copies: vec![],
            emits: vec![],
            reasons: vec![],
        };
        let emit = |source: u32, output: u8, values: Option<Column>| Emits {
            sources: vec![source],
            outputs: vec![output],
            timestamps: None,
            keys: None,
            values,
            headers: None,
            bare: false,
        };
        let column = |ends: Vec<u32>, nulls| {
            Some(Column {
                ends,
                data: vec![1, 2],
                nulls,
            })
        };
        let values = b.values.as_ref().map(|v| v.data.clone()).unwrap_or_default();
        match MODE.with(|m| m.borrow().clone()).as_str() {
            // Keeps each second record, of those that this instance has seen.
            "amnesia" => {
                for route in &mut outcome.routes {
                    let seen = SEEN.with(|seen| seen.replace(seen.get() + 1));
                    *route = (seen % 2) as u8;
                }
            }
            "loop" => spin(),
            "loop-on-bad" if values.windows(3).any(|w| w == b"bad") => spin(),
            "memory" => {
                let mut hoard: Vec<Vec<u8>> = Vec::new();
                loop {
                    hoard.push(vec![7; 1 << 20]);
                }
            }
            "trap" => panic!("on purpose"),
            "trap-on-bad" if values.windows(3).any(|w| w == b"bad") => panic!("on purpose"),
            "deep" => outcome.routes[0] = deep(1) as u8,
            "short-routes" => outcome.routes = vec![1; n + 1],
            "no-output" => outcome.routes = vec![9; n],
            "copy-index" => outcome.copies = vec![(n as u32, 1)],
            "copy-output" => outcome.copies = vec![(0, 0)],
            "emit-source" => outcome.emits = vec![emit(n as u32, 1, None)],
            "emit-output" => outcome.emits = vec![emit(0, 200, None)],
            "emit-ends" => outcome.emits = vec![emit(0, 1, column(vec![99], None))],
            "emit-count" => outcome.emits = vec![emit(0, 1, column(vec![1, 2], None))],
            "emit-nulls" => outcome.emits = vec![emit(0, 1, column(vec![1], Some(vec![0, 0, 0])))],
            "emit-header" => {
                outcome.routes = vec![0; n];
                let headers = |_| Headers {
                    ends: vec![1],
                    names: one(b"name"),
                    values: one(b"value"),
                };
                let with = |source: u32| Emits {
                    headers: Some(headers(source)),
                    ..emit(source, 1, None)
                };
                outcome.emits = (0..n as u32).map(with).collect();
            }
            // Eight bytes each here, and a record each for everybody else.
            "copies" => outcome.copies = vec![(0, 1); 90_000],
            "more-copies" => outcome.copies = vec![(0, 1); 900_000],
            "fan-out" => outcome.copies = (0..n as u32).flat_map(|i| [(i, 2), (i, 3), (i, 4)]).collect(),
            "six-times" => outcome.copies = (0..n as u32).flat_map(|i| [(i, 1); 5]).collect(),
            "reasons" => {
                outcome.routes = vec![255; n];
                outcome.reasons = (0..n as u32).rev().map(|i| (i, "no".into())).collect();
            }
            "thrice" => outcome.copies = (0..n as u32).flat_map(|i| [(i, 1), (i, 1)]).collect(),
            "reject" => outcome.routes = vec![255; n],
            "reason-index" => outcome.reasons = vec![(u32::MAX, "x".into())],
            "huge" => {
                outcome.emits = vec![emit(
                    0,
                    1,
                    Some(Column {
                        ends: vec![10 << 20],
                        data: vec![0; 10 << 20],
                        nulls: None,
                    }),
                )]
            }
            "poison-index" => return Err(Fault::Poison((n as u32 + 5, "x".into()))),
            "fatal" => return Err(Fault::Fatal("on purpose".into())),
            "retry" => return Err(Fault::Retry("on purpose".into())),
            "log-flood" => {
                for _ in 0..100_000 {
                    write(Level::Info, &"x".repeat(4_000));
                }
            }
            "state-hoard" => {
                for i in 0u32.. {
                    state::put(&i.to_be_bytes(), Some(&[7; 1_000]));
                }
            }
            "state-key" => state::put(&[0; 5_000], Some(b"")),
            "state-value" => state::put(b"k", Some(&vec![0; (1 << 20) + 1])),
            "state-again" => {
                for _ in 0..1_000_000 {
                    state::put(b"k", Some(&[7; 1_000]));
                }
            }
            "state-wide" => {
                state::put(b"k", Some(&[7; 1_000]));
                // The same key ten thousand times: ten MiB of answer.
                let ends = (1..=10_000).collect();
                let keys = Column {
                    ends,
                    data: vec![b'k'; 10_000],
                    nulls: None,
                };
                drop(state::get_many(&keys));
            }
            "state-ends" => {
                let keys = Column {
                    ends: vec![9],
                    data: vec![1],
                    nulls: None,
                };
                drop(state::get_many(&keys));
            }
            "state-count" => {
                let one = Column {
                    ends: vec![1],
                    data: vec![1],
                    nulls: None,
                };
                let none = Column {
                    ends: vec![],
                    data: vec![],
                    nulls: None,
                };
                state::put_many(&one, &none);
            }
            "state-then-trap" => {
                state::put(b"k", Some(b"kept?"));
                panic!("on purpose");
            }
            "state-then-lie" => {
                state::put(b"k", Some(b"kept?"));
                outcome.routes = vec![9; n];
            }
            "state-well" => state::put(b"k", Some(b"v")),
            "timer-hoard" => {
                for i in 0u32.. {
                    timers::set(Clock::Event, &one(b"a key that is not short"), &[i], &[1]);
                }
            }
            "timer-key" => timers::set(Clock::Event, &one(&[0; 5_000]), &[1], &[1]),
            "timer-null" => {
                let null = Column {
                    nulls: Some(vec![1]),
                    ..one(b"")
                };
                timers::set(Clock::Event, &null, &[1], &[1]);
            }
            "timer-count" => timers::set(Clock::Event, &one(b"k"), &[1, 2], &[1]),
            "timer-ends" => timers::clear(Clock::Event, &one(b"k"), &[1, 2]),
            "timer-then-trap" => {
                timers::clear(Clock::Event, &one(b"k"), &[0]);
                timers::set(Clock::Processing, &one(b"k"), &[1], &[1]);
                panic!("on purpose");
            }
            // Each firing sets the timer again, for a time in the past.
            "timer-for-ever" | "timer-keeps" | "timer-traps" => {
                timers::set(Clock::Processing, &one(b"k"), &[0], &[0])
            }
            "metric-late" => drop(metrics::define(metrics::Instrument::Counter, "late")),
            "metric-unknown" => metrics::update(77, &[1.0]),
            _ => {}
        }
        Ok(outcome)
    }
}

impl upgrade::Guest for Hostile {
    fn migrate(_: u32) -> Result<(), String> {
        Err("it takes nothing over".to_owned())
    }
}

impl timed::Guest for Hostile {
    fn on_timers(fired: Fired) -> Result<Outcome, Fault> {
        let mode = MODE.with(|m| m.borrow().clone());
        let mut outcome = Outcome {
            routes: vec![],
            copies: vec![],
            emits: vec![],
            reasons: vec![],
        };
        match mode.as_str() {
            "timer-for-ever" => timers::set(Clock::Processing, &fired.keys, &fired.tags, &fired.at),
            // There is no record to keep.
            "timer-keeps" => outcome.routes = vec![1; fired.at.len()],
            "timer-traps" => panic!("on purpose"),
            _ => {}
        }
        Ok(outcome)
    }
}

/// Returns a column of a single item.
fn one(item: &[u8]) -> Column {
    Column {
        ends: vec![item.len() as u32],
        data: item.to_vec(),
        nulls: None,
    }
}

fn spin() -> ! {
    let mut n = 0u64;
    loop {
        n = std::hint::black_box(n.wrapping_add(1));
    }
}

#[allow(unconditional_recursion)]
fn deep(n: u64) -> u64 {
    std::hint::black_box(deep(n + 1)) + n
}

weir_sdk::bindings::export!(Hostile with_types_in weir_sdk::bindings);

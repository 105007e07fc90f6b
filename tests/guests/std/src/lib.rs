//! Built for `wasm32-wasip2`: uses a service of Rust's standard library that goes through WASI, which `mode`
//! selects; the result becomes the value of a record.

use std::collections::HashMap;
use std::time::{Instant, SystemTime};
use weir_sdk::bindings::exports::weir::module::timed;
use weir_sdk::bindings::exports::weir::module::transform::Guest;
use weir_sdk::bindings::exports::weir::module::upgrade;
use weir_sdk::bindings::weir::module::types::*;

thread_local! {
    static MODE: std::cell::RefCell<String> = const { std::cell::RefCell::new(String::new()) };
}

struct Std;

impl Guest for Std {
    fn describe() -> Descriptor {
        let mode = Parameter {
            name: "mode".into(),
            kind: Kind::Text,
            preset: None,
            about: String::new(),
        };
        Descriptor {
            about: "std".into(),
            parameters: vec![mode],
            state_version: 0,
        }
    }

    fn init(config: Config) -> Result<Plan, String> {
        for (_, value) in config.values {
            if let Value::Text(mode) = value {
                MODE.with(|m| *m.borrow_mut() = mode);
            }
        }
        Ok(Plan {
            outputs: vec!["main".into()],
            keys: false,
            values: true,
            headers: false,
        })
    }

    fn process(_: Batch) -> Result<Outcome, Fault> {
        let said = MODE.with(|m| act(&m.borrow()));
        Ok(Outcome {
            routes: vec![],
            copies: vec![],
            emits: vec![Emits {
                sources: vec![0],
                outputs: vec![1],
                timestamps: None,
                keys: None,
                values: Some(Column {
                    ends: vec![said.len() as u32],
                    data: said.into_bytes(),
                    nulls: None,
                }),
                headers: None,
                bare: true,
            }],
            reasons: vec![],
        })
    }
}

fn act(mode: &str) -> String {
    match mode {
        "print" => {
            println!("one line");
            eprintln!("a warning");
            eprint!("half a line");
            String::new()
        }
        "clock" => {
            let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
            let moved = Instant::now() < Instant::now();
            format!("{} {moved}", time.as_millis())
        }
        "random" => {
            let map: HashMap<u32, u32> = (0..16).map(|i| (i, i)).collect();
            format!("{:?}", map.keys().collect::<Vec<_>>())
        }
        "surroundings" => format!("{:?} {:?}", std::env::args().count(), std::env::vars().count()),
        "file" => format!("{:?}", std::fs::read("/etc/passwd").map_err(|e| e.kind())),
        "stdin" => format!("{:?}", std::io::read_to_string(std::io::stdin())),
        "network" => format!(
            "{:?}",
            std::net::TcpStream::connect("127.0.0.1:1").map_err(|e| e.kind())
        ),
        "sleep" => {
            std::thread::sleep(std::time::Duration::from_secs(3_600));
            "slept".to_owned()
        }
        "exit" => std::process::exit(3),
        "panic" => panic!("with words"),
        _ => "?".to_owned(),
    }
}

impl upgrade::Guest for Std {
    fn migrate(_: u32) -> Result<(), String> {
        Err("it remembers nothing".to_owned())
    }
}

impl timed::Guest for Std {
    fn on_timers(_: Fired) -> Result<Outcome, Fault> {
        Err(Fault::Fatal("it sets none".into()))
    }
}

weir_sdk::bindings::export!(Std with_types_in weir_sdk::bindings);

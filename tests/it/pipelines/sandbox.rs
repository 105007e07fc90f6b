//! Modules that loop, grow, trap, lie, flood or import more than was granted: each is stopped within its
//! limit, and nobody else is harmed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use weir_client::{BatchBuilder, Codec, Offset};
use weir_runtime::{
    CallError, CallFailure, CallLimits, InitError, Instance, InstanceConfig, Instruments, LoadError,
    LogLevel, LogSink, Module, Moment, Outcome, Runtime, RuntimeOptions, Setting, Table, TimerClock,
    componentize,
};
use weir_tests::{guest, guest_with_wasi};
use weir_types::{Columns, Wanted};

const LIMITS: CallLimits = CallLimits {
    deadline_ms: 50,
    memory_bytes: 8 << 20,
    output_bytes: 4 << 20,
    log_lines: 16,
    state_bytes: 64 << 10,
};

fn config(mode: &str) -> InstanceConfig {
    let settings = BTreeMap::from([("mode".to_owned(), Setting::Text(mode.to_owned()))]);
    InstanceConfig {
        partition: 0,
        sources: vec!["t".to_owned()],
        settings,
    }
}

fn columns(values: &[&str]) -> Columns {
    let mut builder = BatchBuilder::new(Codec::None);
    values
        .iter()
        .for_each(|v| builder.push(0, None, Some(v.as_bytes()), weir_types::Headers::NONE));
    let batch = builder.build(Offset::ZERO, None).unwrap();
    Columns::read(
        &batch.body().unwrap(),
        batch.count(),
        Wanted {
            values: true,
            ..Wanted::default()
        },
    )
    .unwrap()
}

struct Lines(std::sync::Mutex<Vec<usize>>);

impl LogSink for Lines {
    fn line(&self, _: LogLevel, line: &str) {
        self.0.lock().unwrap().push(line.len());
    }
}

/// The module `hostile`, which misbehaves as its mode says.
struct Hostile {
    module: Module,
    lines: Arc<Lines>,
    input: Columns,
}

impl Hostile {
    fn load() -> Self {
        let runtime = Runtime::new(RuntimeOptions::plain()).unwrap();
        let component = componentize(&guest("hostile")).unwrap().into_owned();
        Self {
            module: runtime.load(&component).unwrap(),
            lines: Arc::new(Lines(std::sync::Mutex::default())),
            input: columns(&["a", "b"]),
        }
    }

    fn instance(&self, mode: &str) -> Result<Instance, InitError> {
        let lines = Arc::clone(&self.lines) as _;
        let instruments = Arc::new(Instruments::default());
        self.module.instantiate(&config(mode), LIMITS, lines, instruments)
    }

    /// Processes two records.
    fn call(&self, mode: &str, table: &mut Option<Table>) -> Result<Outcome, CallError> {
        let mut instance = self.instance(mode).unwrap();
        instance.process(0, Moment::default(), &self.input, &[], table)
    }

    /// Returns the failure of a call.
    fn failure(&self, mode: &str) -> CallFailure {
        match self.call(mode, &mut None) {
            Err(CallError::Failed(failure)) => failure,
            other => panic!("{mode}: {other:?}"),
        }
    }
}

#[test]
fn runaway_modules_are_stopped_at_their_limits() {
    let hostile = Hostile::load();
    assert_eq!(hostile.call("well", &mut None).unwrap().routes, [1, 1]);
    let begun = Instant::now();
    assert!(matches!(hostile.failure("loop"), CallFailure::Deadline(_)));
    let took = begun.elapsed();
    // The time includes the instantiation, which is slow in the debug build of the tests.
    assert!(
        took < Duration::from_millis(50 + 20 + 150),
        "stopped after {took:?}"
    );
    assert!(matches!(
        hostile.instance("init-loop"),
        Err(InitError::Failed(CallFailure::Deadline(_)))
    ));
    assert!(matches!(hostile.failure("memory"), CallFailure::Memory(_)));
    assert!(matches!(hostile.failure("trap"), CallFailure::Trap(_)));
    assert!(matches!(hostile.failure("deep"), CallFailure::Trap(_)));
    assert!(matches!(
        hostile.failure("huge"),
        CallFailure::Output(_) | CallFailure::Memory(_)
    ));
}

#[test]
fn inconsistent_outcomes_are_rejected_with_a_reason() {
    let hostile = Hostile::load();
    for (lie, words) in [
        ("short-routes", "3 routes for 2 records"),
        ("no-output", "output 9"),
        ("copy-index", "copy of record 2"),
        ("copy-output", "output 0"),
        ("emit-source", "stems from record 2 of 2"),
        ("emit-output", "output 200"),
        ("emit-ends", "ends at 99, beyond its 2 bytes"),
        ("emit-count", "2 ends for 1 items"),
        ("emit-nulls", "3 nulls for 1 items"),
        ("reason-index", "reason for record 4294967295"),
        ("poison-index", "poison record 7"),
    ] {
        match hostile.failure(lie) {
            CallFailure::Lies(said) => assert!(said.contains(words), "{lie}: {said}"),
            other => panic!("{lie}: {other:?}"),
        }
    }
}

#[test]
fn failed_calls_leave_state_and_timers_unchanged() {
    let hostile = Hostile::load();
    for (misdeed, words) in [
        ("state-hoard", "on all partitions, has reached 65536 bytes"),
        ("state-key", "a key of its state has 5000 bytes"),
        ("state-value", "a value of its state has 1048577 bytes"),
        ("state-again", "changes more than 2097152 bytes of state"),
        ("state-wide", "more of it than `limits.output_bytes` allows"),
        ("state-ends", "a column of keys ends at 9, beyond its 1 bytes"),
        ("state-count", "a column of values has 0 ends for 1 items"),
        ("timer-hoard", "on all partitions, has reached 65536 bytes"),
        ("timer-key", "a key of its state has 5000 bytes"),
        ("timer-null", "the key of timer 0 is null"),
        ("timer-count", "1 times for 2 timers"),
        ("timer-ends", "a column of timers has 1 ends for 2 items"),
        ("timer-then-trap", ""),
        ("state-then-trap", ""),
        ("state-then-lie", ""),
    ] {
        let mut table = Table::new(LIMITS.state_bytes);
        table.load(b"k", b"before");
        table.load_timer(TimerClock::Event, b"k", 0, 7);
        let before = table.clone();
        let mut table = Some(table);
        match hostile.call(misdeed, &mut table) {
            Err(CallError::Failed(CallFailure::State(why))) => {
                assert!(why.contains(words), "{misdeed}: {why}")
            }
            // An endless change of state may also run out of time.
            Err(CallError::Failed(CallFailure::Deadline(_))) if misdeed == "state-again" => {}
            Err(CallError::Failed(CallFailure::Trap(_) | CallFailure::Lies(_))) if words.is_empty() => {}
            other => panic!("{misdeed}: {other:?}"),
        }
        let seen = |table: &Table| {
            let rows: Vec<_> = table
                .scan(&[], None)
                .map(|(k, v)| (k.to_vec(), v.to_vec()))
                .collect();
            (
                rows,
                table.timers(),
                table.bytes(),
                table.first_due(TimerClock::Event),
            )
        };
        assert_eq!(
            table.as_ref().map(seen),
            Some(seen(&before)),
            "{misdeed} left something"
        );
    }
}

#[test]
fn state_is_kept_in_the_table_of_the_partition() {
    let hostile = Hostile::load();
    let mut table = Some(Table::new(LIMITS.state_bytes));
    hostile.call("state-well", &mut table).unwrap();
    assert_eq!(table.as_ref().and_then(|t| t.get(b"k")), Some(&b"v"[..]));
    assert!(
        matches!(hostile.failure("state-well"), CallFailure::State(why) if why.contains("none")),
        "without a table"
    );
}

#[test]
fn errors_of_a_module_keep_their_kind() {
    let hostile = Hostile::load();
    assert!(matches!(
        hostile.call("fatal", &mut None),
        Err(CallError::Fatal(_))
    ));
    assert!(matches!(
        hostile.call("retry", &mut None),
        Err(CallError::Retry(_))
    ));
    assert!(matches!(hostile.failure("metric-late"), CallFailure::Trap(why) if why.contains("init")));
    assert!(matches!(hostile.failure("metric-unknown"), CallFailure::Trap(why) if why.contains("77")));
}

#[test]
fn log_flood_is_cut() {
    let hostile = Hostile::load();
    // The call ends at its deadline or at its limit of bytes.
    let _ = hostile.call("log-flood", &mut None);
    let kept = hostile.lines.0.lock().unwrap().clone();
    assert!(
        kept.len() <= 17 && kept.iter().all(|l| *l <= 1_024),
        "{} lines",
        kept.len()
    );
}

#[test]
fn load_refuses_imports_that_are_not_granted() {
    let runtime = Runtime::new(RuntimeOptions::plain()).unwrap();
    let greedy = componentize(&guest("greedy")).unwrap().into_owned();
    match runtime.load(&greedy) {
        Err(LoadError::Import { import }) => assert_eq!(import, "greedy:guest/clock"),
        other => panic!("{:?}", other.map(|m| m.digest())),
    }
    for bytes in [&b""[..], b"\0asm", b"not wasm at all", b"\0asm\x0d\0\x01\0"] {
        assert!(
            componentize(bytes).and_then(|c| runtime.load(&c)).is_err(),
            "{bytes:?}"
        );
    }
    // An upload that was cut short: named as such, and not by the encoder's panic, which would be caught too.
    let whole = guest("hostile");
    for len in (0..whole.len()).step_by(whole.len() / 50) {
        let error = componentize(&whole[..len]).unwrap_err().to_string();
        assert!(!error.contains("metadata"), "{len}: {error}");
    }
}

#[test]
fn wasi_is_linked_and_empty() {
    let runtime = Runtime::new(RuntimeOptions::plain()).unwrap();
    let module = runtime.load(&guest_with_wasi("std_guest")).unwrap();
    assert!(module.imports().iter().any(|i| i.starts_with("wasi:sockets/")));
    let lines = Arc::new(Texts::default());
    let input = columns(&["a"]);
    let at = |mode: &str, now: i64| {
        let made = module.instantiate(
            &config(mode),
            LIMITS,
            Arc::clone(&lines) as _,
            Arc::new(Instruments::default()),
        );
        let outcome = made.unwrap().process(
            0,
            Moment {
                now,
                ..Moment::default()
            },
            &input,
            &[],
            &mut None,
        )?;
        let said = outcome
            .emitted()
            .next()
            .and_then(|e| e.value.flatten().map(<[u8]>::to_vec));
        Ok::<_, CallError>(String::from_utf8_lossy(&said.unwrap_or_default()).into_owned())
    };
    assert_eq!(at("clock", 1_700_000_000_123).unwrap(), "1700000000123 true");
    assert_eq!(at("surroundings", 0).unwrap(), "0 0");
    assert_eq!(at("stdin", 0).unwrap(), "Ok(\"\")");
    assert_eq!(at("file", 0).unwrap(), "Err(NotFound)");
    assert_eq!(at("sleep", 0).unwrap(), "slept");
    // The same batch meets the same randomness on every node; another batch another.
    assert_eq!(at("random", 7).unwrap(), at("random", 7).unwrap());
    assert_ne!(at("random", 7).unwrap(), at("random", 8).unwrap());

    at("print", 0).unwrap();
    let said = lines.0.lock().unwrap().clone();
    let expected = [
        (LogLevel::Info, "one line"),
        (LogLevel::Warn, "a warning"),
        (LogLevel::Warn, "half a line"),
    ];
    assert_eq!(said, expected.map(|(level, line)| (level, line.to_owned())));
    let trap = |mode: &str| match at(mode, 0) {
        Err(CallError::Failed(CallFailure::Trap(why))) => why,
        other => panic!("{mode}: {other:?}"),
    };
    assert!(trap("exit").contains("a module returns"));
    assert!(trap("network").contains("no network"));
    trap("panic");
    let said = lines.0.lock().unwrap().clone();
    assert!(
        said.iter().any(|(_, line)| line.contains("with words")),
        "{said:?}"
    );
}

#[derive(Default)]
struct Texts(std::sync::Mutex<Vec<(LogLevel, String)>>);

impl LogSink for Texts {
    fn line(&self, level: LogLevel, line: &str) {
        self.0.lock().unwrap().push((level, line.to_owned()));
    }
}

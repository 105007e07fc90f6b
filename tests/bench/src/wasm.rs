//! A module in the sandbox, beside the same code compiled natively.

use crate::{Setup, Table};
use anyhow::Result;
use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;
use weir_module_convert::Convert;
use weir_module_route::Route;
use weir_module_threshold::Threshold;
use weir_runtime::{
    CallLimits, InstanceConfig, Instruments, Moment, Runtime, RuntimeOptions, Setting, TimerClock,
};
use weir_sdk::testing::{Input, Native, Value};
use weir_types::{Batch, BatchBuilder, Codec, Columns, Headers, Offset};

pub(crate) fn run(setup: &Setup, table: &mut Table) -> Result<()> {
    let text = |s: &str| Setting::Text(s.to_owned());
    let filter = BTreeMap::from([
        ("field".to_owned(), text("temperature")),
        ("limit".to_owned(), Setting::Number(60.0)),
    ]);
    let native = [
        ("field", Value::Text("temperature".to_owned())),
        ("limit", Value::Number(60.0)),
    ];
    compare::<Threshold>(
        setup,
        table,
        "threshold",
        "JSON threshold filter",
        &filter,
        &native,
    )?;
    let routes = r#"{"m001":"a","m002":"b","m003":"main"}"#;
    let set = BTreeMap::from([
        ("table".to_owned(), text(routes)),
        ("else".to_owned(), text("drop")),
    ]);
    let native = [
        ("table", Value::Json(routes.to_owned())),
        ("else", Value::Text("drop".to_owned())),
    ];
    compare::<Route>(setup, table, "route", "router on keys", &set, &native)?;
    let scale = r#"{"temperature":0.1}"#;
    let set = BTreeMap::from([("scale".to_owned(), text(scale))]);
    let native = [("scale", Value::Json(scale.to_owned()))];
    compare::<Convert>(setup, table, "convert", "value rewrite", &set, &native)?;
    keyed(setup, table)?;
    timers(table)
}

/// Limit of a table for timers that are not stored.
fn timers(table: &mut Table) -> Result<()> {
    const TIMERS: u64 = 1_000_000;
    let (mut state, clock) = (weir_runtime::Table::new(usize::MAX), TimerClock::Event);
    let before = resident()?;
    let begun = Instant::now();
    for n in 0..TIMERS {
        let key = format!("k{n:08}");
        // In an order that is none.
        state.set_timer(clock, key.as_bytes(), 0, Some((n * 7_919 % TIMERS) as i64))?;
        if n % 1_000 == 999 {
            state.take_changes(|_, _| {});
            state.take_timer_changes(|_, _, _, at| _ = black_box(at));
        }
    }
    let spent = begun.elapsed();
    let each = (resident()? - before) as f64 / TIMERS as f64;
    table.add(
        "a timer of a million, pending",
        each,
        "bytes",
        format!("{:.0} ns to set", spent.as_nanos() as f64 / TIMERS as f64),
    );
    let begun = Instant::now();
    let mut fired = 0;
    while state.pop_due(clock, i64::MAX).is_some() {
        fired += 1;
        if fired % 1_000 == 0 {
            state.take_changes(|_, _| {});
            state.take_timer_changes(|_, _, _, at| _ = black_box(at));
        }
    }
    table.add(
        "taking it out when it is due",
        begun.elapsed().as_nanos() as f64 / f64::from(fired),
        "ns",
        "",
    );
    Ok(())
}

/// Bytes of this process in memory.
fn resident() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/statm")?;
    let pages: u64 = status.split(' ').nth(1).unwrap_or_default().parse()?;
    Ok(pages * 4_096)
}

/// Keys among which the records of [`keyed`] are spread.
const KEYS: usize = 1_000;

/// Counts per key in a module's state: reads and writes cross the boundary of the sandbox, and become rows.
fn keyed(setup: &Setup, table: &mut Table) -> Result<()> {
    let guest = setup.hostile.with_file_name("keyed.wasm");
    let component = std::fs::read(guest)?;
    let runtime = Runtime::new(RuntimeOptions::plain())?;
    let module = runtime.load(&weir_runtime::componentize(&component)?)?;
    for size in [1, 100, 1_000] {
        let config = InstanceConfig::default();
        let limits = CallLimits::default();
        let mut instance = module.instantiate(&config, limits, Arc::new(()), Arc::default())?;
        let mut state = Some(weir_runtime::Table::new(limits.state_bytes));
        // As many batches as come to each key several times, in an order that is none.
        let mut at = 0usize;
        let mut batches = Vec::new();
        for _ in 0..(4 * KEYS).div_ceil(size) {
            let mut builder = BatchBuilder::new(Codec::None);
            for _ in 0..size {
                at = (at + 617) % KEYS;
                let key = format!("sensor-{at:04}");
                builder.push(0, Some(key.as_bytes()), Some(b"1"), Headers::NONE);
            }
            let batch = builder.build(Offset::ZERO, None)?;
            batches.push(Columns::read(
                &batch.body()?,
                batch.count(),
                instance.plan().wanted,
            )?);
        }
        let turns = (800_000 / setup.less as usize / size / batches.len()).max(1);
        let (mut spent, mut rows) = (f64::MAX, 0);
        for _ in 0..9 {
            let begun = Instant::now();
            for columns in (0..turns).flat_map(|_| &batches) {
                black_box(instance.process(0, Moment::default(), columns, &[], &mut state)?);
                rows = 0;
                if let Some(state) = &mut state {
                    state.take_changes(|_, _| rows += 1);
                }
            }
            let records = turns * batches.len() * size;
            spent = spent.min(begun.elapsed().as_nanos() as f64 / records as f64);
        }
        table.add(
            format!("count over {KEYS} keys, batches of {size}"),
            spent,
            "ns/record",
            format!("{rows} rows for the entry of a batch, with them made"),
        );
    }
    Ok(())
}

fn compare<M: weir_sdk::Module>(
    setup: &Setup,
    table: &mut Table,
    module: &str,
    what: &str,
    settings: &BTreeMap<String, Setting>,
    native: &[(&str, Value)],
) -> Result<()> {
    let bytes = std::fs::read(setup.modules.join(format!("weir_module_{module}.wasm")))?;
    let runtime = Runtime::new(RuntimeOptions::plain())?;
    let component = weir_runtime::componentize(&bytes)?;
    let config = InstanceConfig {
        partition: 0,
        sources: Vec::new(),
        settings: settings.clone(),
    };
    let instruments = Arc::new(Instruments::default());
    let mut instance =
        runtime
            .load(&component)?
            .instantiate(&config, CallLimits::default(), Arc::new(()), instruments)?;
    for size in [1, 100, 1_000] {
        let batch = crate::log::batch(size, 128, 7);
        let columns = Columns::read(&batch.body()?, batch.count(), instance.plan().wanted)?;
        let inputs = inputs(&batch)?;
        let mut here = Native::<M>::new(native).map_err(anyhow::Error::msg)?;
        let calls = (400_000 / setup.less as usize / size).clamp(20, 100_000);
        // The best of several alternating turns: noise of the machine only adds.
        let (mut sandboxed, mut natively) = (f64::MAX, f64::MAX);
        for _ in 0..9 {
            let begun = Instant::now();
            for _ in 0..calls {
                black_box(instance.process(0, Moment::default(), &columns, &[], &mut None)?);
            }
            sandboxed = sandboxed.min(begun.elapsed().as_nanos() as f64 / (calls * size) as f64);
            natively = natively.min(native_turn(&mut here, &inputs, calls) / (calls * size) as f64);
        }
        table.add(
            format!("{what}, batches of {size}"),
            sandboxed,
            "ns/record",
            format!("natively {natively:.1}, the wall {:.1}", sandboxed - natively),
        );
    }
    Ok(())
}

/// Nanoseconds of `calls` calls. Batches are laid out before, as the host does for a guest.
fn native_turn<M: weir_sdk::Module>(module: &mut Native<M>, inputs: &[Input], calls: usize) -> f64 {
    let mut spent = 0.0;
    let mut left = calls;
    while left > 0 {
        let some = left.min(64);
        let batches: Vec<_> = (0..some).map(|_| module.batch(inputs)).collect();
        let begun = Instant::now();
        for batch in batches {
            let _ = black_box(module.process_batch(batch));
        }
        spent += begun.elapsed().as_nanos() as f64;
        left -= some;
    }
    spent
}

fn inputs(batch: &Batch) -> Result<Vec<Input>> {
    let body = batch.body()?;
    let record = |r: Result<weir_types::RecordRef<'_>, _>| {
        let r = r?;
        let own = |b: Option<&[u8]>| b.map(<[u8]>::to_vec);
        Ok(Input {
            key: own(r.key),
            value: own(r.value),
            timestamp: r.timestamp,
            headers: Vec::new(),
        })
    };
    body.records().map(record).collect()
}

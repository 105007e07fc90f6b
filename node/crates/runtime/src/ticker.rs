//! The clock of epochs, which drives deadlines of guests.

use crate::compile::configuration::TICK;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::Thread;
use wasmtime::Engine;
use weir_types::pool::Pool;

/// Ticks without a guest before the ticker rests: an idle node does not wake up two hundred times a second.
const REST_AFTER_TICKS: u32 = 40;

/// Advances the engine's epoch while a guest runs, and rests when none does.
pub(crate) struct Ticker {
    shared: Arc<TickerShared>,
    thread: Thread,
}

#[derive(Default)]
struct TickerShared {
    running: AtomicUsize,
    resting: AtomicBool,
    stop: AtomicBool,
}

impl Ticker {
    pub(crate) fn start(engine: Engine) -> std::io::Result<Self> {
        let shared = Arc::new(TickerShared::default());
        let ticking = Arc::clone(&shared);
        let handle = std::thread::Builder::new()
            .name("weir-epoch".to_owned())
            .spawn(move || {
                let mut idle = 0;
                while !ticking.stop.load(Ordering::Acquire) {
                    idle = if ticking.running.load(Ordering::SeqCst) > 0 {
                        0
                    } else {
                        idle + 1
                    };
                    if idle < REST_AFTER_TICKS {
                        std::thread::park_timeout(TICK);
                        engine.increment_epoch();
                        continue;
                    }
                    ticking.resting.store(true, Ordering::SeqCst);
                    // Checked again after the flag: a call that began in between has seen the flag, or is
                    // seen here.
                    if ticking.running.load(Ordering::SeqCst) == 0 {
                        std::thread::park();
                    }
                    ticking.resting.store(false, Ordering::SeqCst);
                    idle = 0;
                }
            })?;
        Ok(Self {
            shared,
            thread: handle.thread().clone(),
        })
    }

    /// Keeps the epoch running until the guard is dropped.
    pub(crate) fn running(&self) -> Running<'_> {
        self.shared.running.fetch_add(1, Ordering::SeqCst);
        if self.shared.resting.load(Ordering::SeqCst) {
            self.thread.unpark();
        }
        Running(&self.shared)
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.thread.unpark();
    }
}

pub(crate) struct Running<'a>(&'a TickerShared);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}

/// State shared by all modules of a runtime.
pub(crate) struct Shared {
    pub(crate) engine: Engine,
    pub(crate) ticker: Ticker,
    pub(crate) memory: Arc<Pool>,
}

//! `wasi:clocks`: the time of the batch, standing still. The monotonic clock moves a nanosecond per reading,
//! so that a guest that waits for movement continues. A guest that waits for a second reaches its deadline.

use crate::bindings::resources::Pollable;
use crate::bindings::wasi_virtual::wasi::clocks::monotonic_clock;
use crate::bindings::wasi_virtual::wasi::clocks::wall_clock::{self, Datetime};
use crate::host::Guest;
use wasmtime::Result;
use wasmtime::component::Resource;

impl wall_clock::Host for Guest {
    fn now(&mut self) -> Result<Datetime> {
        let ms = self.wasi.now as u64;
        Ok(Datetime {
            seconds: ms / 1_000,
            nanoseconds: (ms % 1_000) as u32 * 1_000_000,
        })
    }

    fn resolution(&mut self) -> Result<Datetime> {
        Ok(Datetime {
            seconds: 0,
            nanoseconds: 1_000_000,
        })
    }
}

impl monotonic_clock::Host for Guest {
    fn now(&mut self) -> Result<u64> {
        self.wasi.readings += 1;
        Ok((self.wasi.now as u64)
            .saturating_mul(1_000_000)
            .saturating_add(self.wasi.readings))
    }

    fn resolution(&mut self) -> Result<u64> {
        Ok(1)
    }

    fn subscribe_instant(&mut self, _: u64) -> Result<Resource<Pollable>> {
        self.handle(0)
    }

    fn subscribe_duration(&mut self, _: u64) -> Result<Resource<Pollable>> {
        self.handle(0)
    }
}

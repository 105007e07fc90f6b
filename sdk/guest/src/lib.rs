//! Write Weir modules in Rust.
//!
//! A module processes batches of records as they arrive, and keeps, drops, routes or rewrites records. A
//! macro covers the common case:
//!
//! ```
//! use weir_sdk::prelude::*;
//!
//! weir_sdk::module! {
//!     about: "Keeps readings above a limit.",
//!     parameters: { limit: f64 = 50.0, "Readings up to this are dropped." },
//!     each: |module, record| match record.json("temperature").number() {
//!         Some(t) if t > module.limit => Verdict::Keep,
//!         Some(_) => Verdict::Drop,
//!         None => Verdict::reject("there is no number `temperature`"),
//!     }
//! }
//! ```
//!
//! Build the crate as a `cdylib` with `cargo build --release --target wasm32-unknown-unknown`, and push the
//! file with `weir module push`. For further outputs, new records or work on whole batches, implement
//! [`Module`] and call [`export!`].
//!
//! [`state`] keeps values from batch to batch, [`timers`] schedules calls. [`window`] has windows,
//! [`pattern`] sequences, [`join`] joins, [`dedup`] deduplication and [`absence`] the detection of silence.
//! Everything also runs natively: see [`testing`].

pub mod absence;
mod batch;
mod check;
mod config;
pub mod decimal;
pub mod dedup;
pub mod document;
mod field;
mod handover;
pub mod join;
mod json;
mod macros;
mod module;
mod out;
mod path;
pub mod pattern;
mod scaling;
mod settings;
mod simd;
pub mod state;
pub mod testing;
mod text;
pub mod timers;
pub mod window;

pub use batch::{Batch, Column, Headers, Record, Records};
pub use check::check;
pub use config::{Config, FromValue, JsonText, Parameter};
pub use field::{Field, Grouping};
pub use json::{Json, JsonNumber, name_of};
pub use module::{Adapter, Fault, Interface, Module, Verdict};
pub use out::{NewRecord, Out};
pub use path::Path;
pub use scaling::{Raw, Scaling, half, half_of};
pub use settings::Settings;
pub use text::escape_into;

/// The types that most modules need, in a single import.
pub mod prelude {
    pub use crate::{
        Batch, Config, Fault, Interface, Json, Module, NewRecord, Out, Parameter, Path, Record, Verdict, log,
    };
}

#[doc(hidden)]
#[allow(
    missing_docs,
    unsafe_code,
    unreachable_pub,
    clippy::all,
    reason = "generated from ../../wit"
)]
pub mod bindings {
    wit_bindgen::generate!({
        path: "../../wit",
        world: "evolving",
        pub_export_macro: true,
        default_bindings_module: "weir_sdk::bindings",
    });
}

/// Log lines for the operator, labelled with the pipeline's name.
pub mod log {
    macro_rules! level {
        ($name:ident, $level:ident) => {
            /// Writes a line at this level.
            pub fn $name(message: &str) {
                #[cfg(target_arch = "wasm32")]
                crate::bindings::weir::module::log::write(
                    crate::bindings::weir::module::log::Level::$level,
                    message,
                );
                #[cfg(not(target_arch = "wasm32"))]
                eprintln!("{}: {message}", stringify!($name));
            }
        };
    }
    level!(debug, Debug);
    level!(info, Info);
    level!(warn, Warn);
    level!(error, Error);
}

/// Metrics for the operator. Define instruments in [`Module::init`].
pub mod metrics {
    #[cfg(target_arch = "wasm32")]
    use crate::bindings::weir::module::metrics as host;

    /// A counter: a number that only grows.
    #[derive(Clone, Copy, Debug)]
    pub struct Counter(#[cfg_attr(not(target_arch = "wasm32"), expect(dead_code))] u32);

    impl Counter {
        /// Defines a counter. Call only in `init`.
        pub fn define(name: &str) -> Self {
            #[cfg(target_arch = "wasm32")]
            return Self(host::define(host::Instrument::Counter, name));
            #[cfg(not(target_arch = "wasm32"))]
            Self(name.len() as u32)
        }

        /// Adds `n` to the counter. Each call is a host call: prefer a call per batch to a call per record.
        pub fn add(self, n: f64) {
            #[cfg(target_arch = "wasm32")]
            host::update(self.0, &[n]);
            #[cfg(not(target_arch = "wasm32"))]
            let _ = n;
        }
    }
}

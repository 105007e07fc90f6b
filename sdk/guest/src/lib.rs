//! Write a Weir module in Rust.
//!
//! A module looks at batches of records as they stream in, and keeps, drops, routes or rewrites them. The common case
//! is one macro:
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
//! Build it with `cargo build --release --target wasm32-unknown-unknown` as a `cdylib`, and push the file with `weir
//! module push`. For outputs beside the stream, new records or work on whole batches, implement [`Module`] and call
//! [`export!`]. What a module is to remember from one batch to the next is in [`state`], and how
//! it is called at a time in [`timers`]; windows are in [`window`], sequences in
//! [`pattern`], and joins in [`join`]. All of it runs natively, too:
//! see [`testing`].

mod batch;
mod check;
mod config;
pub mod decimal;
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
pub mod presence;
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
pub use field::{By, Field};
pub use json::{Json, JsonNumber, name_of};
pub use module::{Adapter, Fault, Module, Plan, Verdict};
pub use out::{NewRecord, Out};
pub use path::Path;
pub use scaling::{Raw, Scaling, half, half_of};
pub use settings::Settings;
pub use text::escape_into;

/// What a module needs, in one import.
pub mod prelude {
    pub use crate::{
        Batch, Config, Fault, Json, Module, NewRecord, Out, Parameter, Path, Plan, Record, Verdict, log,
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

/// Lines for the operator, with the pipeline's name on them.
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

/// Numbers for the operator. Instruments are defined in [`Module::init`].
pub mod metrics {
    #[cfg(target_arch = "wasm32")]
    use crate::bindings::weir::module::metrics as host;

    /// A number that only grows.
    #[derive(Clone, Copy, Debug)]
    pub struct Counter(#[cfg_attr(not(target_arch = "wasm32"), expect(dead_code))] u32);

    impl Counter {
        /// Defines a counter. Only in `init`.
        pub fn define(name: &str) -> Self {
            #[cfg(target_arch = "wasm32")]
            return Self(host::define(host::Instrument::Counter, name));
            #[cfg(not(target_arch = "wasm32"))]
            Self(name.len() as u32)
        }

        /// Adds to it. A host call: once a batch is better than once a record.
        pub fn add(self, n: f64) {
            #[cfg(target_arch = "wasm32")]
            host::update(self.0, &[n]);
            #[cfg(not(target_arch = "wasm32"))]
            let _ = n;
        }
    }
}

//! A component that is compiled and linked, and its description of itself.

use crate::bindings::exports::weir::module::{timed, transform, upgrade};
use crate::digest::Digest;
use crate::error::LoadError;
use crate::host::Guest;
use crate::inspect::{STATE, TIMERS};
use crate::ticker::Shared;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use wasmtime::Engine;
use wasmtime::component::InstancePre;

/// A component that is compiled and linked. Clones share it.
#[derive(Clone)]
pub struct Module {
    pub(crate) digest: Digest,
    pub(crate) imports: Vec<String>,
    pub(crate) descriptor: Arc<Descriptor>,
    pub(crate) excess: Option<Excess>,
    pub(crate) pre: InstancePre<Guest>,
    pub(crate) transform: transform::GuestIndices,
    /// None when it has no timers.
    pub(crate) timed: Option<timed::GuestIndices>,
    /// None when it cannot take over anything.
    pub(crate) upgrade: Option<upgrade::GuestIndices>,
    pub(crate) shared: Arc<Shared>,
}

impl Module {
    /// Its identity.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Interfaces that it imports functions from.
    pub fn imports(&self) -> &[String] {
        &self.imports
    }

    /// What it said it is when it was loaded.
    pub fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    /// Whether it imports `state`: it is to be granted.
    pub fn wants_state(&self) -> bool {
        self.imports.iter().any(|i| i.starts_with(STATE))
    }

    /// Whether it imports `timers`: they are to be granted.
    pub fn wants_timers(&self) -> bool {
        self.imports.iter().any(|i| i.starts_with(TIMERS))
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.shared.engine
    }
}

/// A parameter's value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Setting {
    /// `true` or `false`.
    Boolean(bool),
    /// A whole number.
    Integer(i64),
    /// Any number.
    Number(f64),
    /// Text; for a parameter of JSON, its text.
    Text(String),
    /// Anything else, for a parameter of JSON.
    Json(serde_json::Value),
}

/// What a module says it is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Descriptor {
    /// One sentence on what it does.
    pub about: String,
    /// What can be set.
    pub parameters: Vec<ParameterInfo>,
    /// Version of its state; 0 for none.
    pub state_version: u32,
}

/// A parameter of a module.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ParameterInfo {
    /// Its name.
    pub name: String,
    /// `text`, `integer`, `number`, `boolean` or `json`.
    pub kind: String,
    /// Its value when nothing is set; it is required when there is none.
    pub preset: Option<Setting>,
    /// Its purpose.
    pub about: String,
}

/// What a module says of itself.
pub(crate) struct Described {
    /// For people: its texts are cut.
    pub(crate) descriptor: Descriptor,
    /// What is too long, if something is.
    pub(crate) excess: Option<Excess>,
}

/// Something that a module says of itself is longer than it may be.
#[derive(Clone, Debug)]
pub(crate) struct Excess {
    pub(crate) what: String,
    pub(crate) bytes: usize,
    pub(crate) limit: usize,
}

impl Module {
    /// Refuses a module that says more of itself than anybody reads. For one that comes anew: what was taken once is loaded, with
    /// its texts cut.
    ///
    /// # Errors
    /// Names the first text that is too long.
    pub fn check_texts(&self) -> Result<(), LoadError> {
        match self.excess.clone() {
            None => Ok(()),
            Some(Excess { what, bytes, limit }) => Err(LoadError::Text { what, bytes, limit }),
        }
    }
}

//! A compiled and linked component, and its own description.

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

/// A compiled and linked component. Clones share the component.
#[derive(Clone)]
pub struct Module {
    pub(crate) digest: Digest,
    pub(crate) imports: Vec<String>,
    pub(crate) descriptor: Arc<Descriptor>,
    pub(crate) excess: Option<Excess>,
    pub(crate) pre: InstancePre<Guest>,
    pub(crate) transform: transform::GuestIndices,
    /// `None` for a module without timers.
    pub(crate) timed: Option<timed::GuestIndices>,
    /// `None` for a module that cannot migrate state.
    pub(crate) upgrade: Option<upgrade::GuestIndices>,
    pub(crate) shared: Arc<Shared>,
}

impl Module {
    /// Returns the module's identity.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Returns the interfaces with imported functions.
    pub fn imports(&self) -> &[String] {
        &self.imports
    }

    /// Returns the module's own description, from loading.
    pub fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    /// Returns true when the module imports `state`, which must be granted.
    pub fn wants_state(&self) -> bool {
        self.imports.iter().any(|i| i.starts_with(STATE))
    }

    /// Returns true when the module imports `timers`, which must be granted.
    pub fn wants_timers(&self) -> bool {
        self.imports.iter().any(|i| i.starts_with(TIMERS))
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.shared.engine
    }
}

/// Value of a parameter.
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

/// A module's own description.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Descriptor {
    /// Purpose in a sentence.
    pub about: String,
    /// Parameters.
    pub parameters: Vec<ParameterInfo>,
    /// Version of its state; 0 for none.
    pub state_version: u32,
}

/// A parameter of a module.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ParameterInfo {
    /// Name.
    pub name: String,
    /// `text`, `integer`, `number`, `boolean` or `json`.
    pub kind: String,
    /// Default value; the parameter is required without a default.
    pub preset: Option<Setting>,
    /// Purpose.
    pub about: String,
}

/// A module's description, after a check.
pub(crate) struct Described {
    /// The description for people, with cut texts.
    pub(crate) descriptor: Descriptor,
    /// The first text that was too long.
    pub(crate) excess: Option<Excess>,
}

/// A text of a description that is too long.
#[derive(Clone, Debug)]
pub(crate) struct Excess {
    pub(crate) what: String,
    pub(crate) bytes: usize,
    pub(crate) limit: usize,
}

impl Module {
    /// Refuses a module with texts that are too long. For new modules only: an accepted module is loaded with
    /// cut texts.
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

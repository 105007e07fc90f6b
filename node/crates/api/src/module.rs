//! Modules.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A module that was pushed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Module {
    /// SHA-256 of the component in hexadecimal: its identity.
    pub digest: String,
    /// Name.
    pub name: String,
    /// Version.
    pub version: String,
    /// Size of the component in bytes.
    pub bytes: u64,
    /// Time of the push in milliseconds since 1970.
    pub pushed_ms: i64,
    /// Description that the module gives of itself.
    pub descriptor: Descriptor,
    /// Interfaces from which the module imports functions.
    pub imports: Vec<String>,
    /// Further names and versions of the same component.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub also: Vec<ModuleLabel>,
}

/// A name and version of a module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ModuleLabel {
    /// Name.
    pub name: String,
    /// Version.
    pub version: String,
    /// Time of the push in milliseconds since 1970.
    pub pushed_ms: i64,
}

/// Description that a module gives of itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Descriptor {
    /// Purpose, in a sentence.
    pub about: String,
    /// Parameters.
    pub parameters: Vec<Parameter>,
    /// Version of the module's state; 0 for a module without state.
    pub state_version: u32,
}

/// A parameter of a module.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Parameter {
    /// Name.
    pub name: String,
    /// Kind: `text`, `integer`, `number`, `boolean` or `json`.
    pub kind: String,
    /// Value when nothing is set; null for a parameter that must be set.
    pub preset: Option<Value>,
    /// Purpose.
    pub about: String,
}

//! Modules.

use crate::services::Services;
use crate::spec::json;
use weir_api as api;
use weir_pipeline::{ModuleInfo, PushError};

impl Services {
    /// Returns all modules.
    pub fn modules(&self) -> Vec<api::Module> {
        self.pipelines.modules().into_iter().map(module).collect()
    }

    /// Stores a module as `name` and `version`.
    ///
    /// # Errors
    /// When the bytes are no module, or the label stands for another module.
    ///
    /// # Cancel safety
    /// Not safe: the module may be stored or not.
    pub async fn push_module(
        &self,
        name: &str,
        version: &str,
        bytes: Vec<u8>,
    ) -> Result<api::Module, PushError> {
        self.pipelines.push(name, version, bytes).await.map(module)
    }

    /// Removes a module by `name`, `name@version` or digest.
    ///
    /// # Errors
    /// When the module does not exist, or a pipeline uses the module.
    ///
    /// # Cancel safety
    /// Not safe: the module may be removed or not.
    pub async fn remove_module(&self, reference: &str) -> Result<api::Module, PushError> {
        self.pipelines.remove_module(reference).await.map(module)
    }
}

fn module(module: ModuleInfo) -> api::Module {
    let ModuleInfo {
        digest,
        name,
        version,
        bytes,
        pushed_ms,
        descriptor,
        imports,
        also,
    } = module;
    let parameters = descriptor.parameters.into_iter().map(|parameter| api::Parameter {
        name: parameter.name,
        kind: parameter.kind,
        preset: parameter.preset.map(json),
        about: parameter.about,
    });
    let also = also.into_iter().map(|label| api::ModuleLabel {
        name: label.name,
        version: label.version,
        pushed_ms: label.pushed_ms,
    });
    api::Module {
        digest: digest.to_string(),
        name,
        version,
        bytes,
        pushed_ms,
        descriptor: api::Descriptor {
            about: descriptor.about,
            parameters: parameters.collect(),
            state_version: descriptor.state_version,
        },
        imports,
        also: also.collect(),
    }
}

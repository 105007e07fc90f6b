//! Asking a module for its description.

use crate::error::LoadError;
use crate::instance::settings::{kind_name, setting_of};
use crate::limits::CallLimits;
use crate::module::{Described, Descriptor, Excess, Module, ParameterInfo, Setting};
use crate::moment::Moment;
use crate::words::tidy;
use std::sync::Arc;
use weir_types::limits::{MODULE_NAME_BYTES_MAX, MODULE_PARAMETERS_MAX, MODULE_TEXT_BYTES_MAX};

impl Module {
    /// Asks the module for its description.
    ///
    /// # Errors
    /// Fails when the call does not return.
    pub(crate) fn describe(&self) -> Result<Described, LoadError> {
        let limits = CallLimits {
            deadline_ms: 1_000,
            ..CallLimits::default()
        };
        let started = self.start(limits, Arc::new(()), Arc::default());
        let (mut store, exports) = started.map_err(LoadError::Describe)?;
        let result = self.call(&mut store, 0, Moment::default(), &mut None, |s| {
            exports.transform.call_describe(s)
        });
        let d = result.map_err(LoadError::Describe)?;
        let mut excess = None;
        let mut check = |what: String, bytes: usize, limit: usize| {
            if bytes > limit && excess.is_none() {
                excess = Some(Excess { what, bytes, limit });
            }
        };
        check(
            "the list of parameters".to_owned(),
            d.parameters.len(),
            MODULE_PARAMETERS_MAX,
        );
        check("`about`".to_owned(), d.about.len(), MODULE_TEXT_BYTES_MAX);
        let parameters = d.parameters.into_iter().map(|p| {
            let (bytes, name) = (p.name.len(), tidy(p.name));
            check("the name of a parameter".to_owned(), bytes, MODULE_NAME_BYTES_MAX);
            check(
                format!("`about` of parameter `{name}`"),
                p.about.len(),
                MODULE_TEXT_BYTES_MAX,
            );
            let preset = p.preset.map(setting_of);
            if let Some(Setting::Text(text)) = &preset {
                check(
                    format!("the preset of parameter `{name}`"),
                    text.len(),
                    MODULE_TEXT_BYTES_MAX,
                );
            }
            ParameterInfo {
                name,
                kind: kind_name(p.kind).to_owned(),
                preset,
                about: tidy(p.about),
            }
        });
        let descriptor = Descriptor {
            parameters: parameters.collect(),
            about: tidy(d.about),
            state_version: d.state_version,
        };
        Ok(Described { descriptor, excess })
    }
}

//! The changes that applying a pipeline would make.

use crate::error::ApplyError;
use crate::manage::registry::Pipelines;
use crate::module_store::ModuleInfo;
use crate::spec::Spec;
use crate::spec::row::Row;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use weir_runtime::Digest;

/// The changes that applying a pipeline would make.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Name of the pipeline.
    pub name: String,
    /// Current revision. `None` for a new pipeline.
    pub revision: Option<u64>,
    /// The pipeline is paused, and would stay paused.
    pub paused: bool,
    /// Differences, by path. Empty if nothing would change.
    pub changes: Vec<Difference>,
    /// Topic for dead letters that would be created.
    pub creates: Option<String>,
}

/// A difference between the current and the new pipeline.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// Path of the setting, such as `stages[1].config.limit`.
    pub at: String,
    /// Current value, if any.
    pub before: Option<Value>,
    /// New value, if any.
    pub after: Option<Value>,
}

impl Pipelines {
    /// Returns the changes that [`Pipelines::apply`] would make, after the same checks.
    ///
    /// # Errors
    /// The errors of [`Pipelines::apply`].
    ///
    /// # Cancel safety
    /// Changes nothing; the future can be dropped at any time.
    pub async fn plan(&self, text: &str) -> Result<Plan, ApplyError> {
        let _one = self.0.changing.lock().await;
        let checked = self.check(text).await?;
        self.check_states(&checked.spec, &checked.states)?;
        let infos = |digests: &[Digest]| -> Vec<_> {
            let store = self.store();
            digests.iter().map(|d| store.modules.get(d).cloned()).collect()
        };
        let after = infos(&checked.digests);
        let row = self
            .active()
            .get(checked.spec.name.as_str())
            .map(|a| a.row.clone());
        let before = row.as_ref().map(|row| infos(&row.digests));
        let before = row.as_ref().zip(before.as_deref());
        Ok(Plan {
            name: checked.spec.name.to_string(),
            revision: row.as_ref().map(|row| row.revision),
            paused: row.as_ref().is_some_and(|row| row.paused),
            changes: differences(before, (&checked.spec, &after)),
            creates: checked.creates.map(|topic| topic.to_string()),
        })
    }
}

/// Compares two versions of a pipeline: their settings, and the modules that their names refer to.
pub(crate) fn differences(
    before: Option<(&Row, &[Option<ModuleInfo>])>,
    after: (&Spec, &[Option<ModuleInfo>]),
) -> Vec<Difference> {
    let mut old = before.map_or_else(BTreeMap::new, |(row, modules)| settings(&row.spec, modules));
    let new = settings(after.0, after.1);
    let mut differences = Vec::new();
    for (at, after) in new {
        let before = old.remove(&at);
        if before.as_ref() != Some(&after) {
            let after = Some(after);
            differences.push(Difference { at, before, after });
        }
    }
    let gone = old.into_iter().map(|(at, before)| Difference {
        at,
        before: Some(before),
        after: None,
    });
    differences.extend(gone);
    differences.sort_by(|a, b| a.at.cmp(&b.at));
    differences
}

/// Returns all settings of a pipeline, by path.
fn settings(spec: &Spec, modules: &[Option<ModuleInfo>]) -> BTreeMap<String, Value> {
    let mut spec = spec.clone();
    // Shown with the default applied.
    spec.on_error.policy = Some(spec.policy());
    let mut found = BTreeMap::new();
    flatten("", serde_json::to_value(&spec).unwrap_or_default(), &mut found);
    for (n, module) in modules.iter().enumerate() {
        if let Some(module) = module {
            let digest: String = module.digest.to_string().chars().take(12).collect();
            let name = format!("{}@{} ({digest})", module.name, module.version);
            found.insert(format!("stages[{}].module", n + 1), Value::from(name));
        }
    }
    found
}

fn flatten(at: &str, value: Value, found: &mut BTreeMap<String, Value>) {
    let below = |name: &str| match at {
        "" => name.to_owned(),
        at => format!("{at}.{name}"),
    };
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                flatten(&below(&name), value, found);
            }
        }
        // Stages count from 1, as in errors. A list of grants is a single value.
        Value::Array(items) if items.iter().any(Value::is_object) => {
            for (n, item) in items.into_iter().enumerate() {
                flatten(&format!("{at}[{}]", n + 1), item, found);
            }
        }
        Value::Null => {}
        value => {
            found.insert(at.to_owned(), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs_is_told() {
        let spec = |text: &str| Spec::parse(text).unwrap();
        let before =
            spec("name = 'p'\nsource = 't'\n[[stages]]\nmodule = 'm'\nconfig = { limit = 1, field = 'x' }\n");
        let after = spec(
            "name = 'p'\nsource = 't'\noutputs = { o = 'u' }\n[[stages]]\nmodule = 'm'\nconfig = { limit = 2 }\n\
             grants = ['state']\n",
        );
        let row = Row {
            spec: before.clone(),
            revision: 1,
            paused: false,
            digests: Vec::new(),
            states: Vec::new(),
            applied_ms: 0,
            is_last_resort: false,
            canary: None,
        };
        assert_eq!(differences(Some((&row, &[])), (&before, &[])), []);
        let told: Vec<_> = differences(Some((&row, &[])), (&after, &[]))
            .into_iter()
            .map(|d| (d.at, d.before, d.after))
            .collect();
        let some = |v: serde_json::Value| Some(v);
        assert_eq!(
            told,
            [
                // The default policy, since the stage is granted state.
                (
                    "on_error.policy".to_owned(),
                    some("dead-letter".into()),
                    some("halt".into())
                ),
                ("outputs.o".to_owned(), None, some("u".into())),
                ("stages[1].config.field".to_owned(), some("x".into()), None),
                (
                    "stages[1].config.limit".to_owned(),
                    some(1.into()),
                    some(2.into())
                ),
                (
                    "stages[1].grants".to_owned(),
                    some(serde_json::json!([])),
                    some(serde_json::json!(["state"]))
                ),
            ]
        );
        assert!(
            differences(None, (&after, &[]))
                .iter()
                .all(|d| d.before.is_none())
        );
    }
}

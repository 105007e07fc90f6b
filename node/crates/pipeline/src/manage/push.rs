//! Pushing and removing modules.

use crate::error::PushError;
use crate::manage::registry::Pipelines;
use crate::manage::tasks::{run_blocking, to_completion};
use crate::module_store::{ModuleInfo, ModuleRef, Store};
use crate::priority::Priority;
use crate::spec::row::Row;
use weir_broker::{AdminError, StateKind};
use weir_runtime::{Digest, LoadError, Module, Wanted};

/// Stops the compiler when the caller is dropped.
struct Ending(Wanted);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl Pipelines {
    /// Admits, compiles and stores a component, or a core module built with the SDK, under `name@version`.
    ///
    /// # Errors
    /// [`PushError`] when the module is rejected, cannot be compiled or cannot be stored.
    ///
    /// # Cancel safety
    /// Dropping the future stops the compiler; nothing is stored then. Once compiled, the module is stored
    /// even if the future is dropped.
    pub async fn push(&self, name: &str, version: &str, bytes: Vec<u8>) -> Result<ModuleInfo, PushError> {
        // Held by the compiling thread, even after the caller is dropped.
        let place = self.place_to_compile().await.ok_or(PushError::Busy)?;
        let ending = Ending(Wanted::default());
        let (runtime, wanted) = (self.0.runtime.clone(), ending.0.clone());
        let component = run_blocking("weir-push", move || {
            // No record waits for this.
            Priority::Behind.ask();
            let component = runtime.componentize(bytes, &wanted);
            component.map(|component| (component, place))
        })
        .await
        .unwrap_or(Err(LoadError::Compile(
            "the thread that compiles ended".to_owned(),
        )));
        let (component, place) = component?;
        let digest = Digest::of(&component);
        Store::check(&self.store().modules, name, version, digest, component.len())?;
        let (runtime, dir, wanted) = (self.0.runtime.clone(), self.store().dir(), ending.0.clone());
        let (module, component) = run_blocking("weir-push", move || -> Result<_, PushError> {
            Priority::Behind.ask();
            let _place = place;
            let module = runtime.load_while(&component, &wanted)?;
            module.check_texts()?;
            Store::write(&dir, digest, &component)?;
            Ok((module, component))
        })
        .await
        .unwrap_or(Err(PushError::Admin(AdminError::Closed)))?;
        let (this, name, version) = (self.clone(), name.to_owned(), version.to_owned());
        to_completion(async move { this.keep_module(&name, &version, module, component).await }).await
    }

    /// Stores the rows of a compiled module.
    async fn keep_module(
        &self,
        name: &str,
        version: &str,
        module: Module,
        component: Vec<u8>,
    ) -> Result<ModuleInfo, PushError> {
        let digest = Digest::of(&component);
        let _one = self.0.changing.lock().await;
        // Others may have been pushed meanwhile, some without their bytes here yet.
        let stored = Store::read_rows(&self.0.broker.rows(StateKind::Module));
        Store::check(&stored, name, version, digest, component.len())?;
        let (pushed_ms, known) = (self.0.broker.now_ms(), stored.get(&digest).cloned());
        let mut info = ModuleInfo {
            digest,
            name: name.to_owned(),
            version: version.to_owned(),
            bytes: component.len() as u64,
            pushed_ms,
            descriptor: module.descriptor().clone(),
            imports: module.imports().to_vec(),
            also: Vec::new(),
        };
        let shown = info.clone();
        if let Some(mut known) = known {
            // Other labels are kept.
            known.label(name, version, pushed_ms);
            (info.name, info.version) = (known.name, known.version);
            (info.pushed_ms, info.also) = (known.pushed_ms, known.also);
        }
        // The bytes first: a node that sees the row has all bytes.
        for (key, part) in Store::parts(digest, &component) {
            let put = self.0.broker.put_row(StateKind::ModulePart, &key, Some(part));
            put.await?;
        }
        let (key, value) = Store::row(&info);
        self.0
            .broker
            .put_row(StateKind::Module, &key, Some(value))
            .await?;
        self.store().modules.insert(digest, info);
        self.loaded().insert(digest, module);
        Ok(shown)
    }

    /// Returns all modules under each label, by name and push time.
    pub fn modules(&self) -> Vec<ModuleInfo> {
        let mut all: Vec<ModuleInfo> = self.store().modules.values().flat_map(ModuleInfo::each).collect();
        all.sort_by(|a, b| (&a.name, a.pushed_ms).cmp(&(&b.name, b.pushed_ms)));
        all
    }

    /// Removes a label, or, by digest or with its last label, the whole module.
    ///
    /// # Errors
    /// [`PushError::NotFound`] when there is no such module, [`PushError::InUse`] when a pipeline uses it.
    ///
    /// # Cancel safety
    /// Once polled, the removal runs to its end even if the future is dropped.
    pub async fn remove_module(&self, reference: &ModuleRef) -> Result<ModuleInfo, PushError> {
        let (this, reference) = (self.clone(), reference.to_owned());
        to_completion(async move { this.remove_module_inner(&reference).await }).await
    }

    async fn remove_module_inner(&self, reference: &ModuleRef) -> Result<ModuleInfo, PushError> {
        let _one = self.0.changing.lock().await;
        let (info, label) = {
            let store = self.store();
            (store.resolve(reference)?.clone(), store.label_of(reference))
        };
        let remaining = label.as_ref().and_then(|(name, version)| {
            info.without(name, version)
                .map(|remaining| (remaining, name, version))
        });
        let is_named = |module: &ModuleRef| {
            // Removing the bytes affects every reference; removing a label only references by that label.
            remaining.as_ref().is_none_or(|(_, name, version)| {
                module == *name || module.split_once('@') == Some((name.as_str(), version.as_str()))
            })
        };
        let uses = |row: &Row| {
            let specs = std::iter::once(&row.spec).chain(row.canary.as_ref().map(|canary| &canary.spec));
            let mut stages = specs.flat_map(|spec| &spec.stages);
            row.modules().any(|digest| *digest == info.digest) && stages.any(|stage| is_named(&stage.module))
        };
        let used = self
            .active()
            .values()
            .find(|a| uses(&a.row))
            .map(|a| a.handle.name.clone());
        if let Some(pipeline) = used {
            return Err(PushError::InUse(pipeline));
        }
        if let Some((remaining, name, version)) = remaining {
            let gone = info.each().find(|i| (&i.name, &i.version) == (name, version));
            let (key, value) = Store::row(&remaining);
            self.0
                .broker
                .put_row(StateKind::Module, &key, Some(value))
                .await?;
            self.store().modules.insert(remaining.digest, remaining);
            return Ok(gone.unwrap_or(info));
        }
        self.0
            .broker
            .put_row(StateKind::Module, info.digest.as_bytes(), None)
            .await?;
        self.0.broker.remove_rows(Store::parts_of(info.digest)).await?;
        self.store().modules.remove(&info.digest);
        self.loaded().remove(&info.digest);
        self.store().remove_file(info.digest);
        Ok(info)
    }
}

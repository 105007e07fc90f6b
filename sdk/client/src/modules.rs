//! Modules.

use crate::error::ClientError;
use crate::session::Search;
use crate::{Client, exchange, parsed};
use bytes::Bytes;
use weir_api::Module;
use weir_peer::protocol::Request;
use weir_types::limits::MODULE_CHUNK_BYTES;

impl Client {
    /// Pushes a module as `name` and `version`: a component, or a core module built with the SDK.
    ///
    /// # Errors
    /// When the bytes are no module, or the name and version stand for another module.
    ///
    /// # Cancel safety
    /// Not safe: the module may be stored or not. Pushing the same bytes again does no harm.
    pub async fn push_module(&self, name: &str, version: &str, module: &[u8]) -> Result<Module, ClientError> {
        let search = Search::begin();
        loop {
            match self.push_here(name, version, module).await {
                Err(ClientError::Elsewhere(leader)) => self.sessions().elsewhere(leader).await,
                pushed => return pushed,
            }
            search.again().await?;
        }
    }

    async fn push_here(&self, name: &str, version: &str, module: &[u8]) -> Result<Module, ClientError> {
        // A stream of its own: its parts must not mix with another push.
        let mut stream = self.sessions().stream().await?;
        for part in module.chunks(MODULE_CHUNK_BYTES) {
            exchange(&mut stream, &Request::PushPart, &[Bytes::copy_from_slice(part)]).await?;
        }
        let request = Request::PushModule {
            name: name.to_owned(),
            version: version.to_owned(),
        };
        parsed(&exchange(&mut stream, &request, &[]).await?.payload)
    }

    /// Returns all modules.
    ///
    /// # Errors
    /// When the connection is lost.
    ///
    /// # Cancel safety
    /// Safe: nothing is changed.
    pub async fn modules(&self) -> Result<Vec<Module>, ClientError> {
        self.answer(Request::Modules).await
    }

    /// Removes a module by `name`, `name@version` or digest.
    ///
    /// # Errors
    /// When there is no such module, or a pipeline uses it.
    ///
    /// # Cancel safety
    /// Not safe: the module may be removed or not.
    pub async fn remove_module(&self, module: &str) -> Result<Module, ClientError> {
        let module = module.to_owned();
        self.answer(Request::RemoveModule { module }).await
    }
}

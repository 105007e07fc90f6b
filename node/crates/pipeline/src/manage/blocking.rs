//! Work that blocks.

use tokio::sync::oneshot;

/// Runs what blocks on a thread of its own. `None` when it panicked or could not be started.
pub(crate) async fn apart<T: Send + 'static>(
    name: &str,
    run: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let (done, result) = oneshot::channel();
    let started = std::thread::Builder::new()
        .name(name.to_owned())
        .stack_size(8 << 20)
        .spawn(move || {
            let _ = done.send(run());
        });
    started.ok()?;
    result.await.ok()
}

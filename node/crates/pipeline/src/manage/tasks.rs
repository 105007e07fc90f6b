//! Tasks and threads for work that blocks, or that must not be cut short.

use std::future::Future;
use tokio::sync::oneshot;
use weir_broker::AdminError;

/// Runs blocking work on a thread of its own. Returns `None` if the thread could not be started or panicked.
pub(crate) async fn run_blocking<T: Send + 'static>(
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

/// Runs `change` in a task of its own and waits for the result.
///
/// # Cancel safety
/// Dropping the returned future does not stop `change`, which runs to its end.
pub(crate) async fn to_completion<T, E>(
    change: impl Future<Output = Result<T, E>> + Send + 'static,
) -> Result<T, E>
where
    T: Send + 'static,
    E: From<AdminError> + Send + 'static,
{
    match tokio::spawn(change).await {
        Ok(done) => done,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        // The runtime shuts down.
        Err(_) => Err(AdminError::Closed.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::task::{Context, Poll, Waker};
    use tokio::sync::Notify;

    #[tokio::test]
    async fn change_goes_on_after_its_caller_is_dropped() {
        let (gate, (done, finished)) = (Arc::new(Notify::new()), oneshot::channel());
        let opened = Arc::clone(&gate);
        let mut call = Box::pin(to_completion(async move {
            opened.notified().await;
            let _ = done.send(());
            Ok::<_, AdminError>(())
        }));
        let polled = call.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(matches!(polled, Poll::Pending));
        drop(call);
        gate.notify_one();
        finished.await.unwrap();
    }
}

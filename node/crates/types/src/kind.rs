//! Ways to react to an error. Each crate's errors return a kind from `kind()`.

/// The caller's way to react.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// Nothing happened; the same call may succeed later.
    Retry,
    /// Another holder of the same identity has taken over: stop using it.
    Fenced,
    /// The request is wrong, or names something missing: change the request.
    Invalid,
    /// Stored bytes are damaged: look with `weir scrub`.
    Corrupt,
    /// The thing called is shutting down or gone.
    Closed,
    /// The call may have happened: find out before a repetition.
    UnknownOutcome,
    /// An error within Weir.
    Internal,
}

//! What a caller does about an error. Each crate's errors answer with one of these from `kind()`.

/// What the caller should do, whatever went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// Nothing happened; the same call may succeed later.
    Retry,
    /// Another holder of the same identity has taken over: stop using it.
    Fenced,
    /// The request itself is wrong, or names what is not there: change it.
    Invalid,
    /// Stored bytes are damaged: look with `weir scrub`.
    Corrupt,
    /// The thing called is shutting down or gone.
    Closed,
    /// It may or may not have happened: find out before doing it again.
    UnknownOutcome,
    /// A fault of Weir's own.
    Internal,
}

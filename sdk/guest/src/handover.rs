//! Changes that are handed to the host when a call succeeds. Features register themselves behind a pointer
//! that the compiler cannot see through: an unused feature must not be linked, since every import of a
//! component needs a grant.

use std::cell::RefCell;
use std::rc::Rc;

/// Changes of a call that are still to be handed to the host.
pub(crate) trait Flush {
    fn flush(&self);
}

thread_local! {
    /// The registered features of the instance, from `init` or first use until the instance ends.
    static HELD: RefCell<Vec<Rc<dyn Flush>>> = const { RefCell::new(Vec::new()) };
}

/// Registers `held` to be flushed at the end of each successful call.
pub(crate) fn hold(held: Rc<dyn Flush>) {
    HELD.with(|all| all.borrow_mut().push(held));
}

/// Hands the changes of a successful call to the host. After a failed call the instance is dropped instead.
pub(crate) fn flush() {
    HELD.with(|all| all.borrow().iter().for_each(|held| held.flush()));
}

/// Drops the registrations of an earlier native instance.
pub(crate) fn begin() {
    HELD.with(|all| all.borrow_mut().clear());
}

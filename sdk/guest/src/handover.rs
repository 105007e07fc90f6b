//! What is handed over to the host when a call ends well. Only what a module uses is known here, behind a pointer that the
//! compiler cannot see through: what it does not use must not be linked, since what a component imports it must be granted.

use std::cell::RefCell;
use std::rc::Rc;

/// What a call changed and still has to hand over.
pub(crate) trait Flush {
    fn flush(&self);
}

thread_local! {
    /// Those of the instance: made in `init` or when first used, and there as long as it is.
    static HELD: RefCell<Vec<Rc<dyn Flush>>> = const { RefCell::new(Vec::new()) };
}

/// Has `held` flushed when a call ends well.
pub(crate) fn hold(held: Rc<dyn Flush>) {
    HELD.with(|all| all.borrow_mut().push(held));
}

/// Hands over what a call changed. Called when one ends well; of one that does not the instance is dropped.
pub(crate) fn flush() {
    HELD.with(|all| all.borrow().iter().for_each(|held| held.flush()));
}

/// Forgets those of an instance that was before, natively.
pub(crate) fn begin() {
    HELD.with(|all| all.borrow_mut().clear());
}

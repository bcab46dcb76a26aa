//! Futures in memory of their own. A future has room for the largest of the steps that it awaits,
//! for its whole life: steps that are over before a long wait are boxed, and so is a future that
//! would be moved, since each place that it is moved through has room for it.

use std::pin::Pin;

/// Makes a future on the heap. Unlike with `Box::pin(f())`, the future that awaits it has no
/// room for it.
pub fn boxed<F: Future>(make: impl FnOnce() -> F) -> Pin<Box<F>> {
    Box::pin(make())
}

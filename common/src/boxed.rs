//! Futures in memory of their own.

use std::pin::Pin;

/// Makes a future on the heap. Unlike with `Box::pin(f())`, the future that awaits it has no
/// room for it: a connection of a stranger stays as small as what it has come to.
pub fn boxed<F: Future>(make: impl FnOnce() -> F) -> Pin<Box<F>> {
    Box::pin(make())
}

//! How a long call is watched and stopped: a flag that asks it to end, and a counter of finished pieces.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Shared between the thread that waits (and sees Ctrl-C) and the threads that work.
///
/// Work polls [`Control::cancelled`] at least every few milliseconds; nothing is lost when it stops early, since
/// each finished piece is returned.
#[derive(Debug, Default)]
pub struct Control {
    cancel: AtomicBool,
    done: AtomicUsize,
}

impl Control {
    pub fn new() -> Self {
        Self::default()
    }

    /// Ask the work to stop soon.
    pub fn cancel(&self) {
        self.cancel.store(true, Ordering::Relaxed);
    }

    pub fn cancelled(&self) -> bool {
        self.cancel.load(Ordering::Relaxed)
    }

    /// Count one finished piece.
    pub fn advance(&self) {
        self.done.fetch_add(1, Ordering::Relaxed);
    }

    pub fn done(&self) -> usize {
        self.done.load(Ordering::Relaxed)
    }
}

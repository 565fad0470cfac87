//! When a device that fuses queries launches: the limits that both generations obey.

use crate::error::{Error, Result};

/// Longest time that a device may wait for company.
const MAX_WAIT_S: f64 = 3600.0;

/// When a device that is free launches, and how much it takes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// Items that make a batch full. A single larger query goes alone.
    pub items: u32,
    /// Queries that make a batch full.
    pub queries: u32,
    /// Longest time that the oldest query waits for company while a device is free.
    pub max_wait_s: f64,
}

impl Limits {
    /// Refuse what has no meaning; the two fields are what the caller calls the size of a batch and the wait.
    pub fn check(&self, size_field: &str, wait_field: &str) -> Result<()> {
        if self.items == 0 || self.queries == 0 {
            return Err(Error::invalid(size_field, "is 0; at least 1 is needed"));
        }
        if !(0.0..=MAX_WAIT_S).contains(&self.max_wait_s) {
            let message = format!("is {}; allowed are 0 to {MAX_WAIT_S} seconds", self.max_wait_s);
            return Err(Error::invalid(wait_field, message));
        }
        Ok(())
    }
}

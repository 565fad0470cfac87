//! Pools that serve what somebody else hands in, and record it as a run does.

use super::clock::now_ns;
use super::{Crew, Outcome, Pool, Service, check_batch, check_drain, check_size, parts_of, reserved, split};
use crate::control::Control;
use crate::error::{Error, Result};
use std::sync::{Mutex, PoisonError};

/// Takes queries from any thread, until it is finished.
pub struct Server<S: Service> {
    crew: Crew<S>,
    batch: u32,
    capacity: usize,
    entry: Mutex<Entry>,
}

struct Entry {
    arrival_ns: Vec<i64>,
    parts: usize,
}

impl<S: Service> Server<S> {
    /// Start `pools`, with places for `capacity` parts in all.
    pub fn start(pools: Vec<Pool<S>>, batch: Option<u32>, capacity: usize) -> Result<Self> {
        let batch = check_batch(batch)?;
        let entry = Mutex::new(Entry { arrival_ns: reserved(capacity)?, parts: 0 });
        Ok(Self { crew: Crew::start(pools, reserved(capacity)?, capacity)?, batch, capacity, entry })
    }

    /// Put a query in line, as arrived now. Its workers, and whoever is told of its end, know it by `name`.
    pub fn submit(&self, name: u64, items: i64) -> Result<()> {
        let items = check_size("items", items)?;
        let mut entry = self.entry.lock().unwrap_or_else(PoisonError::into_inner);
        let first = entry.parts;
        let parts = parts_of(items, self.batch) as usize;
        if parts > self.capacity - first {
            let message = format!("is {}, and {first} parts came before these {parts}", self.capacity);
            return Err(Error::invalid("capacity", format!("{message}; open the server with more")));
        }
        let query = entry.arrival_ns.len();
        entry.arrival_ns.push(now_ns() - self.crew.start_ns());
        entry.parts += parts;
        self.crew.push(query, split(query as u32, name, items, self.batch, first as u32));
        Ok(())
    }

    /// Wait for what was handed in, `drain_s` at most, and answer what was recorded.
    pub fn finish(self, drain_s: f64, control: &Control) -> Result<Outcome<S::Failure>> {
        let deadline = now_ns() + check_drain(drain_s)?;
        let Entry { arrival_ns, parts } = self.entry.into_inner().unwrap_or_else(PoisonError::into_inner);
        let mut outcome = self.crew.finish(deadline, parts, control)?;
        let lag_ns = vec![0; arrival_ns.len()];
        outcome.report.settle(arrival_ns, lag_ns);
        Ok(outcome)
    }
}

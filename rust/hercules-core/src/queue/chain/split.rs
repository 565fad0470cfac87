//! How queries fall into sub-batches.

use crate::error::{Error, Result};
use crate::queue::chain::threads::Entry;
use crate::queue::chain::{Input, System};

/// How queries fall into sub-batches: the same at every rate, so computed once per (input, batch).
#[derive(Debug, Default)]
pub struct Split {
    /// First sub-batch of each query, and the total at the end.
    pub(super) first: Vec<u32>,
    pub(super) query: Vec<u32>,
    pub(super) items: Vec<u32>,
}

impl Split {
    pub fn of(system: &System, input: &Input) -> Result<Self> {
        if system.uses_sub_batches() {
            let jobs: u64 = input.size.iter().map(|size| u64::from(size.div_ceil(system.batch))).sum();
            if jobs > u64::from(u32::MAX) {
                return Err(Error::Size(format!("{jobs} sub-batches of {} queries exceed {}", input.len(), u32::MAX)));
            }
            refuse_without_memory(jobs as usize)?;
        }
        let mut split = Self::default();
        split.refill(system, input);
        Ok(split)
    }

    /// Place of a sub-batch in its query.
    #[inline]
    pub(super) fn part(&self, job: u32) -> u32 {
        job - self.first[self.query[job as usize] as usize]
    }

    pub(super) fn refill(&mut self, system: &System, input: &Input) {
        self.first.clear();
        self.query.clear();
        self.items.clear();
        if !system.uses_sub_batches() {
            return;
        }
        for (query, size) in input.size.iter().enumerate() {
            self.first.push(self.items.len() as u32);
            let (full, rest) = (size / system.batch, size % system.batch);
            self.items.extend(std::iter::repeat_n(system.batch, full as usize));
            if rest > 0 {
                self.items.push(rest);
            }
            self.query.resize(self.items.len(), query as u32);
        }
        self.first.push(self.items.len() as u32);
    }
}

/// Refuse a run whose sub-batches cannot be held. Its vectors grow as they need to, and a vector that cannot grow ends the
/// process; so all that they will need together is asked for once, and given back.
fn refuse_without_memory(jobs: usize) -> Result<()> {
    let bytes = jobs.saturating_mul(2 * size_of::<u32>() + 2 * size_of::<Entry>());
    Vec::<u8>::new().try_reserve_exact(bytes).map_err(|_| Error::Memory { bytes })
}

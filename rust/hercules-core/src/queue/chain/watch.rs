//! The early end: a run is given up as soon as a target is surely missed.

use crate::control::Control;
use crate::queue::percentile;

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    Complete,
    /// The target with this index is missed whatever the rest of the queries do.
    Missed(usize),
    Cancelled,
}

/// Looks on while queries finish: ends a run as soon as a target is surely missed, or when asked to stop.
#[derive(Debug)]
pub struct Watch<'a> {
    limits: Vec<WatchLimit>,
    tightest_s: f64,
    pub(super) warmup: usize,
    control: Option<&'a Control>,
    /// Queries looked at by the run so far (for the account of work done).
    pub reached: usize,
}

/// How many queries may take longer than `seconds`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Allowance {
    pub seconds: f64,
    pub queries: usize,
}

impl Allowance {
    /// What the percentile `p` of `counted` queries leaves, if it must not exceed `seconds`.
    pub fn of((p, seconds): (f64, f64), counted: usize) -> Self {
        Self { seconds, queries: counted - percentile::rank(p, counted) }
    }
}

#[derive(Debug, Clone, Copy)]
struct WatchLimit {
    allowance: Allowance,
    late: usize,
}

impl<'a> Watch<'a> {
    /// Watches nothing.
    pub fn blind() -> Self {
        Self { limits: Vec::new(), tightest_s: f64::INFINITY, warmup: 0, control: None, reached: 0 }
    }

    /// Allows, after the `warmup`, so many queries later than so many seconds for each of `allowances`.
    pub fn new(allowances: &[Allowance], warmup: usize, control: Option<&'a Control>) -> Self {
        let limits = allowances.iter().map(|&allowance| WatchLimit { allowance, late: 0 }).collect();
        let tightest_s = allowances.iter().map(|allowance| allowance.seconds).fold(f64::INFINITY, f64::min);
        Self { limits, tightest_s, warmup, control, reached: 0 }
    }

    /// After a complete run: late queries of each allowance.
    pub fn late(&self) -> impl Iterator<Item = usize> {
        self.limits.iter().map(|limit| limit.late)
    }

    pub(super) fn restart(&mut self) {
        self.reached = 0;
        for limit in &mut self.limits {
            limit.late = 0;
        }
    }

    pub(super) fn cancelled(&self) -> bool {
        self.control.is_some_and(Control::cancelled)
    }

    /// The latency of `query` is known to be at least `after`, it was `before`. Gives the target that is now missed.
    #[inline]
    pub(super) fn raised(&mut self, query: usize, before: f64, after: f64) -> Option<usize> {
        if after <= self.tightest_s || query < self.warmup {
            return None;
        }
        let mut missed = None;
        for (i, limit) in self.limits.iter_mut().enumerate() {
            if after > limit.allowance.seconds && before <= limit.allowance.seconds {
                limit.late += 1;
                if limit.late > limit.allowance.queries && missed.is_none() {
                    missed = Some(i);
                }
            }
        }
        missed
    }
}

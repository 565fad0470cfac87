//! What the two engines have in common: the plan of a run, and what a segment of it yields.

use crate::queue::network::Network;
use crate::queue::record::{Cut, Histogram, Record};
use crate::queue::source::Source;

/// Bits of a draw's index below the number of the sub-batch.
const PART_SHIFT: u32 = 44;
/// Queries of a segment, and parts of a query, that have draws of their own.
pub const MAX_SERVICES: u64 = 1 << PART_SHIFT;
pub const MAX_PARTS: u64 = 1 << (64 - PART_SHIFT);

/// Index of the service of sub-batch `part` of a query.
#[inline(always)]
pub fn service_index(query: u64, part: u64) -> u64 {
    query + (part << PART_SHIFT)
}

/// The query of a [`service_index`].
#[inline(always)]
pub fn query_of(index: u64) -> u64 {
    index & ((1 << PART_SHIFT) - 1)
}

/// A run that is fixed before it begins: what is simulated does not depend on threads.
#[derive(Debug)]
pub struct Plan<'a> {
    pub network: &'a Network,
    pub source: &'a Source<'a>,
    /// Mean rate; not looked at for a trace.
    pub qps: f64,
    /// One for each segment.
    pub cuts: Vec<Cut>,
    /// (size, probability) of every size that occurs, and the largest.
    pub sizes: Vec<(u32, f64)>,
    pub max_size: u32,
    /// Keep every latency; keep histograms of the waits at stations.
    pub keep: bool,
    pub waits: bool,
}

/// What a station did in a segment after its warm-up.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Use {
    /// Thread-seconds of service, and of threads that kept a result for want of a place.
    pub busy_s: f64,
    pub blocked_s: f64,
    /// Seconds that jobs waited before service, and how many jobs.
    pub wait_s: f64,
    pub jobs: u64,
    /// Seconds that jobs waited which were dropped.
    pub lost_s: f64,
    /// Executions (a fused one has many jobs) and their items.
    pub executions: u64,
    pub items: u64,
}

impl Use {
    #[must_use]
    pub fn less(self, before: Self) -> Self {
        Self {
            busy_s: self.busy_s - before.busy_s,
            blocked_s: self.blocked_s - before.blocked_s,
            wait_s: self.wait_s - before.wait_s,
            jobs: self.jobs - before.jobs,
            lost_s: self.lost_s - before.lost_s,
            executions: self.executions - before.executions,
            items: self.items - before.items,
        }
    }

    pub fn add(&mut self, other: Self) {
        self.busy_s += other.busy_s;
        self.blocked_s += other.blocked_s;
        self.wait_s += other.wait_s;
        self.jobs += other.jobs;
        self.lost_s += other.lost_s;
        self.executions += other.executions;
        self.items += other.items;
    }
}

/// [`Segment::seconds`] of these times.
pub fn seconds(from_s: f64, last_arrival_s: f64, end_s: f64) -> f64 {
    if last_arrival_s > from_s { last_arrival_s - from_s } else { end_s - from_s }
}

/// Outcome of one segment.
#[derive(Debug)]
pub struct Segment {
    pub record: Record,
    /// Over all routes, from the end of the warm-up (to the block) until the last query has left.
    pub uses: Vec<Use>,
    /// Queries that `uses` cover.
    pub queries: u64,
    /// Seconds in which they came, from the first arrival or the end of the warm-up to the last arrival, and not until the
    /// last has left: one long service would say that the system idled. Where all came at once, until the last has left.
    pub seconds: f64,
    /// Query-seconds inside the system over the same time; NaN where they are not counted.
    pub inside_query_s: f64,
    /// Histograms of waits at each station, if they are kept.
    pub waits: Vec<Histogram>,
}

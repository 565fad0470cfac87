//! Open-loop load on this machine: queries enter a line at the times of a schedule that was drawn ahead, whatever
//! becomes of them, and threads serve them, first come, first served, as the simulator's stations do.
//!
//! The line is a cursor over jobs that stand there from the beginning; what is recorded has its place from the
//! beginning too, so nothing is allocated while the load runs. What a service is, a [`Service`] says.
//!
//! A thread that serves cannot be stopped from outside. So threads own what they need together, and one that does not
//! come back when the run is over is left behind and named.

pub mod clock;
mod crew;
mod line;
mod pace;
mod server;
#[cfg(test)]
mod tests;

pub use crew::{NEVER, Outcome, Report, Served, Stuck};
pub use line::Job;
pub use server::Server;

use crate::control::Control;
use crate::cpu;
use crate::error::{Error, Result};
use crew::Crew;
use std::time::Duration;

/// Most pools in a chain, workers of a pool, and services of a run.
pub const MAX_POOLS: usize = 16;
pub const MAX_WORKERS: usize = 1024;
pub const MAX_SERVICES: usize = 1 << 27;
/// Most items of a query.
pub const MAX_ITEMS: i64 = 1_000_000;
/// Longest time of a schedule, a drain, or a service of [`Spin`].
pub const MAX_SECONDS: f64 = 1e9;

/// How long services under way at the end of a run are waited for; less after an interruption.
const GRACE: Duration = Duration::from_secs(2);
const GRACE_INTERRUPTED: Duration = Duration::from_millis(100);

/// Between the last thread's start and that of the schedule.
const LEAD_NS: i64 = 2_000_000;

/// What a worker of a pool does with its jobs. Each has a thread of its own.
pub trait Service: Send + Sized + 'static {
    /// What a service hands on to that of the next pool.
    type Payload: Send + 'static;
    type Failure: Send + 'static;

    /// Run `work`, all that the thread does, in the surroundings that the service needs.
    fn around(mut self, work: impl FnOnce(&mut Self) + Send) {
        work(&mut self);
    }

    /// One service. A failure ends the run.
    fn serve(
        &mut self,
        query: u64,
        items: u32,
        payload: Option<Self::Payload>,
    ) -> std::result::Result<Option<Self::Payload>, Self::Failure>;

    /// The last part of `query` has ended, on this thread.
    fn finished(&mut self, _query: u64) -> std::result::Result<(), Self::Failure> {
        Ok(())
    }
}

/// A service that keeps its core busy.
#[derive(Debug, Clone, Copy)]
pub struct Spin {
    base_ns: f64,
    per_item_ns: f64,
}

impl Spin {
    pub fn new(base_s: f64, per_item_s: f64) -> Result<Self> {
        for (name, seconds) in [("base_s", base_s), ("per_item_s", per_item_s)] {
            if !(0.0..=MAX_SECONDS).contains(&seconds) {
                return Err(Error::invalid(name, format!("is {seconds}; allowed are 0 to {MAX_SECONDS:e} seconds")));
            }
        }
        Ok(Self { base_ns: base_s * 1e9, per_item_ns: per_item_s * 1e9 })
    }

    /// Spin so long, or until `stopped` answers yes; it is asked every millisecond or so.
    pub fn run(self, items: u32, stopped: impl Fn() -> bool) {
        let start = clock::now_ns();
        let end = start.saturating_add((self.base_ns + self.per_item_ns * f64::from(items)) as i64);
        let mut ask = start + 1_000_000;
        loop {
            let now = clock::now_ns();
            if now >= end {
                return;
            }
            if now >= ask {
                if stopped() {
                    return;
                }
                ask = now + 1_000_000;
            }
            std::hint::spin_loop();
        }
    }
}

/// One station: a worker per thread, the CPUs of each (none: not pinned), and its waiting places.
#[derive(Debug)]
pub struct Pool<S> {
    pub workers: Vec<S>,
    pub cpus: Vec<Vec<usize>>,
    pub buffer: Option<usize>,
    /// Whether idle threads look at their line without end, instead of sleeping until they are woken.
    pub polls: bool,
}

/// When which queries enter, in nanoseconds from the start.
#[derive(Debug)]
pub struct Schedule {
    arrival_ns: Vec<i64>,
    jobs: Vec<Job>,
    /// Parts of all queries up to and with each.
    ends: Vec<u32>,
}

impl Schedule {
    /// Queries of `sizes` items at `arrival_s`, cut into parts of at most `batch` items.
    pub fn new(arrival_s: &[f64], sizes: &[i64], batch: Option<u32>) -> Result<Self> {
        if arrival_s.is_empty() || arrival_s.len() != sizes.len() {
            let counts = format!("has {} entries, sizes {}", arrival_s.len(), sizes.len());
            return Err(Error::invalid("arrival_s", format!("{counts}; allowed are as many, at least one")));
        }
        let batch = check_batch(batch)?;
        let mut before = 0.0;
        let mut parts = 0;
        for (i, (&at, &size)) in arrival_s.iter().zip(sizes).enumerate() {
            if !(before..=MAX_SECONDS).contains(&at) {
                let allowed = format!("allowed are 0 to {MAX_SECONDS:e} seconds, not decreasing");
                return Err(Error::invalid(format!("arrival_s[{i}]"), format!("is {at}; {allowed}")));
            }
            before = at;
            parts += parts_of(check_size(&format!("sizes[{i}]"), size)?, batch) as usize;
        }
        if parts > MAX_SERVICES {
            return Err(Error::invalid("sizes", format!("make {parts} parts; allowed are {MAX_SERVICES}")));
        }
        let mut schedule =
            Self { arrival_ns: reserved(arrival_s.len())?, jobs: reserved(parts)?, ends: reserved(sizes.len())? };
        for (query, (&at, &size)) in arrival_s.iter().zip(sizes).enumerate() {
            schedule.arrival_ns.push((at * 1e9).round() as i64);
            let first = schedule.jobs.len() as u32;
            schedule.jobs.extend(split(query as u32, query as u64, size as u32, batch, first));
            schedule.ends.push(schedule.jobs.len() as u32);
        }
        Ok(schedule)
    }
}

/// Parts of a query of `size` items, and the parts themselves: full ones first.
fn parts_of(size: u32, batch: u32) -> u32 {
    size.div_ceil(batch)
}

fn split(query: u32, name: u64, size: u32, batch: u32, first_part: u32) -> impl ExactSizeIterator<Item = Job> {
    (0..parts_of(size, batch)).map(move |k| Job {
        part: first_part + k,
        query,
        items: batch.min(size - k * batch),
        name,
    })
}

fn check_batch(batch: Option<u32>) -> Result<u32> {
    match batch {
        Some(0) => Err(Error::invalid("batch", "is 0; allowed is at least 1, or none")),
        Some(batch) => Ok(batch),
        None => Ok(u32::MAX),
    }
}

fn check_size(field: &str, size: i64) -> Result<u32> {
    if (1..=MAX_ITEMS).contains(&size) {
        Ok(size as u32)
    } else {
        Err(Error::invalid(field, format!("is {size}; allowed are 1 to {MAX_ITEMS} items")))
    }
}

fn check_drain(drain_s: f64) -> Result<i64> {
    if (0.0..=MAX_SECONDS).contains(&drain_s) {
        Ok((drain_s * 1e9) as i64)
    } else {
        Err(Error::invalid("drain_s", format!("is {drain_s}; allowed are 0 to {MAX_SECONDS:e} seconds")))
    }
}

/// Room for `count` entries, or an error where there is no memory.
fn reserved<T>(count: usize) -> Result<Vec<T>> {
    let mut entries = Vec::new();
    entries.try_reserve_exact(count).map_err(|_| Error::Memory { bytes: count.saturating_mul(size_of::<T>()) })?;
    Ok(entries)
}

/// Play `schedule` on `pools` and record what happens.
///
/// The run ends when every query has, when a service fails, on `control`'s word, or `drain_s` after the last arrival.
/// With `generator_cpu` the calling thread is pinned there and spins before each arrival; else it sleeps until it.
pub fn run<S: Service>(
    pools: Vec<Pool<S>>,
    schedule: Schedule,
    generator_cpu: Option<usize>,
    drain_s: f64,
    control: &Control,
) -> Result<Outcome<S::Failure>> {
    let drain_ns = check_drain(drain_s)?;
    check_cpus("generator_cpu", generator_cpu.as_slice())?;
    let Schedule { arrival_ns, jobs, ends } = schedule;
    let mut lag_ns = reserved(arrival_ns.len())?;
    let mut crew = Crew::start(pools, jobs, arrival_ns.len())?;
    crew.start_in(LEAD_NS);
    let own_cpu = generator_cpu.is_some_and(|cpu| crew.pinned("the generator", &[cpu]));
    let lost_share = pace::play(&crew, &arrival_ns, &ends, own_cpu, &mut lag_ns, control);
    let deadline = crew.start_ns() + arrival_ns.last().map_or(0, |last| last + drain_ns);
    let mut outcome = crew.finish(deadline, ends.last().map_or(0, |&parts| parts as usize), control)?;
    lag_ns.resize(arrival_ns.len(), NEVER);
    outcome.report.settle(arrival_ns, lag_ns);
    outcome.report.generator_lost_share = lost_share;
    Ok(outcome)
}

fn check_cpus(field: &str, cpus: &[usize]) -> Result<()> {
    match cpus.iter().find(|&&cpu| cpu >= cpu::MAX_CPUS) {
        Some(cpu) => Err(Error::invalid(field, format!("is {cpu}; allowed are CPUs below {}", cpu::MAX_CPUS))),
        None => Ok(()),
    }
}

//! The search's simulator: one scheduling configuration of a [`Grid`] as a chain of stations, one run of queries through
//! it, and an early end as soon as a latency target is surely missed.
//!
//! No event list is needed: each station is one pass of a recursion over its jobs in order of entry, so a simulated job
//! costs some tens of nanoseconds. The slow twin is `tests/reference/queue.py`.
//!
//! Reading order: [`input`] (one random run of queries), [`split`] (their sub-batches), [`threads`] and [`launch`] (the
//! state of a pool, the next batch of a device), [`System`] (the chain), [`pass`] (the recursions), [`bounded`] (pools that
//! block each other, from event to event), [`watch`] (the early end), [`scratch`] (what a run leaves), [`load`] (highest
//! load under latency targets).
//!
//! Simultaneous events: completions first, then batch timers, then arrivals; within a kind, input order.

mod bounded;
pub mod input;
mod launch;
pub mod load;
mod pass;
mod scratch;
mod split;
mod threads;
mod watch;

#[cfg(test)]
mod tests;

use input::Noise;
pub use input::{Input, Traffic};
pub use load::{Rules, Target};
pub use scratch::{Scratch, StageUse};
pub use split::Split;
pub use watch::{Allowance, Ended, Watch};

use crate::error::{Error, Result};
use crate::queue::Law;
use crate::queue::fusion::Limits;
use crate::queue::table::{Grid, MAX_THREADS, StageTable, Unit};
use pass::Pass;

/// One scheduling configuration of a [`Grid`].
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    pub variant: usize,
    /// Most items of one sub-batch.
    pub batch: u32,
    /// Items that fill a fused batch; not looked at without a fusing stage.
    pub fuse_items: u32,
    /// Longest time that the oldest query waits for company while a device is free.
    pub max_wait_s: f64,
    /// Most sub-batches that wait between two pools of sub-batches; None: no bound.
    pub buffer: Option<u32>,
    /// Queries of so many items and more visit only the last of two stations, all others only the first; 0: no offload.
    pub offload_items: u32,
    /// Threads or devices of each stage; 0 takes the stage out of the chain.
    pub threads: Vec<u32>,
}

/// Whose busy threads slow a station down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlowedBy {
    Nobody,
    Itself,
    /// An earlier station of the chain, by its place in it.
    Station(usize),
}

#[derive(Debug, Clone)]
pub struct Station {
    /// Index of the stage that it runs.
    pub stage: usize,
    pub unit: Unit,
    pub threads: u32,
    pub table: StageTable,
    pub slowed_by: SlowedBy,
    pub limits: Limits,
    /// What its services are multiplied by.
    pub noise: Option<Law>,
}

/// What a run should keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// Latencies and busy seconds.
    Latency,
    /// Energy too.
    Energy,
}

/// A checked chain of stations; everything that one run needs but the queries.
#[derive(Debug, Clone)]
pub struct System {
    stations: Vec<Station>,
    batch: u32,
    buffer: Option<u32>,
    offload_items: u32,
    stages: usize,
}

/// Draws of the noise, at least, over which the latency of a query alone is taken: p99 lies between the 40 longest.
const UNLOADED_DRAWS: usize = 4096;

impl System {
    /// The chain that `config` makes of `grid` for queries of at most `max_size` items.
    pub fn from_grid(grid: &Grid, config: &Config, max_size: u32) -> Result<Self> {
        let chain: Vec<usize> = (0..grid.stages()).filter(|s| config.threads.get(*s).is_some_and(|m| *m > 0)).collect();
        check_config(grid, config, &chain)?;
        let limits = Limits { items: config.fuse_items, queries: u32::MAX, max_wait_s: config.max_wait_s };
        let mut stations = Vec::with_capacity(chain.len());
        for (place, &stage) in chain.iter().enumerate() {
            let unit = grid.unit(stage);
            let small = config.offload_items > 0 && place == 0;
            let max_size = if small { max_size.min(config.offload_items - 1).max(1) } else { max_size };
            let (field, most) = match unit {
                Unit::SubBatch => ("batch", config.batch.min(max_size)),
                Unit::Query => ("size", max_size),
                Unit::Fused => ("fuse_items", config.fuse_items.max(max_size)),
            };
            if most > grid.max_items() {
                let message =
                    format!("stage {stage} could run {most} items, its service table ends at {}", grid.max_items());
                return Err(Error::invalid(field, message));
            }
            let other = chain.iter().position(|s| *s == grid.busy_of(stage));
            let columns = other.map_or(1, |place| config.threads[chain[place]]);
            let table = grid.stage_table(config.variant, stage, columns, most)?;
            let slowed_by = match other {
                Some(other) if table.depends_on_busy() => {
                    if other == place {
                        SlowedBy::Itself
                    } else if config.offload_items == 0 {
                        SlowedBy::Station(other)
                    } else {
                        let message = format!(
                            "is {}; allowed is 0, since stage {} slows stage {stage} down",
                            config.offload_items, chain[other]
                        );
                        return Err(Error::invalid("offload_items", message));
                    }
                }
                _ => SlowedBy::Nobody,
            };
            let threads = config.threads[stage];
            stations.push(Station { stage, unit, threads, table, slowed_by, limits, noise: grid.noise(stage) });
        }
        let (batch, buffer, offload_items) = (config.batch, config.buffer, config.offload_items);
        Ok(Self { stations, batch, buffer, offload_items, stages: grid.stages() })
    }

    pub fn stations(&self) -> &[Station] {
        &self.stations
    }

    /// Number of stages of the table, including those that this configuration leaves out.
    pub fn stages(&self) -> usize {
        self.stages
    }

    /// Upper bound of the throughput: the rate at which the busiest station never rests, with as many busy threads as are
    /// best for it, none of them blocked, and fusing devices always running the batch that is cheapest per item.
    pub fn bottleneck_qps(&self, traffic: &Traffic) -> f64 {
        let capacity = |(place, station): (usize, &Station)| {
            let threads = f64::from(station.threads);
            let table = station.table.least_over_busy(|n| match station.slowed_by {
                SlowedBy::Itself => threads / f64::from(n), // the other threads rest
                _ => 1.0,
            });
            threads / self.busy_s(place, traffic, &table)
        };
        self.stations.iter().enumerate().map(capacity).fold(f64::INFINITY, f64::min)
    }

    /// Least busy seconds of each stage of the table for one query, with as many busy threads as are best for it; 0 for a
    /// stage that is not in the chain.
    pub fn least_busy_s(&self, traffic: &Traffic) -> Vec<f64> {
        let mut seconds = vec![0.0; self.stages];
        for (place, station) in self.stations.iter().enumerate() {
            seconds[station.stage] = self.busy_s(place, traffic, &station.table.least_over_busy(|_| 1.0));
        }
        seconds
    }

    /// Mean busy seconds of a station for one query by a `table` of one column; 0 if no query visits it.
    fn busy_s(&self, place: usize, traffic: &Traffic, table: &StageTable) -> f64 {
        let station = &self.stations[place];
        let full_batch_s = match station.unit {
            Unit::SubBatch if table.max_items() >= self.batch => table.seconds(self.batch, 1),
            _ => 0.0, // no query fills a batch
        };
        let fused_item_s = match station.unit {
            Unit::Fused => table.best_seconds_per_item(1, table.max_items()),
            _ => 0.0,
        };
        let work = |size: u32| match station.unit {
            Unit::Query => table.seconds(size, 1),
            Unit::SubBatch => {
                let rest = size % self.batch;
                let full = f64::from(size / self.batch);
                let tail = if rest > 0 { table.seconds(rest, 1) } else { 0.0 };
                full * full_batch_s + tail
            }
            Unit::Fused if size >= station.limits.items => table.seconds(size, 1),
            Unit::Fused => f64::from(size) * fused_item_s,
        };
        let visitors = traffic.sizes().filter(|(size, _)| self.visits(place, *size));
        visitors.map(|(size, p)| p * work(size)).sum()
    }

    fn is_noisy(&self) -> bool {
        self.stations.iter().any(|station| station.noise.is_some())
    }

    /// For the percentile of `target`, roughly, the latency of a query that finds the system empty; infinite if the target
    /// is surely missed there: all of the largest queries, as many as the percentile leaves, are too slow.
    pub fn unloaded_at(&self, target: Target, traffic: &Traffic, scratch: &mut Scratch) -> f64 {
        let (p, seconds) = target;
        let first = traffic.size_at(p);
        let latency_s = self.unloaded_of(first, traffic, scratch);
        let mut larger = traffic.sizes().filter(|(size, _)| *size > first);
        if latency_s > seconds
            && !self.is_noisy()
            && larger.all(|(size, _)| self.unloaded_of(size, traffic, scratch) > seconds)
        {
            return f64::INFINITY;
        }
        latency_s
    }

    /// Latency of a query of `size` items that finds the system empty, by one draw of its noise.
    fn unloaded_of(&self, size: u32, traffic: &Traffic, scratch: &mut Scratch) -> f64 {
        let noise = Noise { seed: traffic.seed(), replication: 0, first: 0 };
        let input = Input { unit_time: vec![0.0], size: vec![size], noise };
        let mut split = Split::default();
        split.refill(self, &input);
        self.run(&input, &split, 1.0, scratch, &mut Watch::blind(), Detail::Latency);
        scratch.done[0]
    }

    /// (latency, probability) of a query that finds the system empty, for every size that occurs; with noise, for as
    /// many draws of each.
    pub fn unloaded(&self, traffic: &Traffic, scratch: &mut Scratch) -> Vec<(f64, f64)> {
        let draws = if self.is_noisy() { UNLOADED_DRAWS.div_ceil(traffic.sizes().count()) } else { 1 };
        let noise = Noise { seed: traffic.seed(), replication: 0, first: 0 };
        let mut input = Input { unit_time: vec![0.0], size: vec![1], noise };
        let mut split = Split::default();
        let mut watch = Watch::blind();
        let mut latencies = Vec::new();
        for (size, p) in traffic.sizes() {
            input.size[0] = size;
            split.refill(self, &input);
            for _ in 0..draws {
                self.run(&input, &split, 1.0, scratch, &mut watch, Detail::Latency);
                latencies.push((scratch.done[0], p / draws as f64));
                input.noise.first += 1;
            }
        }
        latencies
    }

    /// Send the queries of `input` through the chain at `rate` queries per second. The results are left in `scratch`.
    pub fn run(
        &self,
        input: &Input,
        split: &Split,
        rate: f64,
        scratch: &mut Scratch,
        watch: &mut Watch<'_>,
        detail: Detail,
    ) -> Ended {
        scratch.reset(self, input, rate);
        watch.restart();
        let mut place = 0;
        while place < self.stations.len() {
            let pass = Pass { system: self, input, split, place, detail };
            if place > 0 && self.offload_items == 0 {
                // What was known of latencies is less than what this station will know.
                watch.restart();
            }
            if !pass.is_lean() {
                scratch.enter(self, input, split, place);
            }
            let together = self.blocking_pools(place);
            let ended =
                if together > 1 { pass.run_bounded(together, scratch, watch) } else { pass.run(scratch, watch) };
            if ended != Ended::Complete {
                return ended;
            }
            place += together;
        }
        Ended::Complete
    }

    /// Pools from `place` on that must be simulated together since a later one may block an earlier one.
    fn blocking_pools(&self, place: usize) -> usize {
        let pools = self.stations[place..].iter().take_while(|station| station.unit == Unit::SubBatch).count();
        if self.buffer.is_some() { pools.max(1) } else { 1 }
    }

    /// Whether queries of `size` items come to the station at `place`.
    fn visits(&self, place: usize, size: u32) -> bool {
        self.offload_items == 0 || (size >= self.offload_items) == (place == 1)
    }

    fn keeps_history(&self, place: usize) -> bool {
        self.stations[place + 1..].iter().any(|later| later.slowed_by == SlowedBy::Station(place))
    }

    fn uses_sub_batches(&self) -> bool {
        self.stations.iter().any(|station| station.unit == Unit::SubBatch)
    }
}

/// `chain`: stages that have threads.
fn check_config(grid: &Grid, config: &Config, chain: &[usize]) -> Result<()> {
    if config.variant >= grid.variants() {
        return Err(Error::invalid("variant", format!("is {}; allowed are 0..{}", config.variant, grid.variants())));
    }
    if config.threads.len() != grid.stages() {
        let message = format!("has {} entries for {} stages", config.threads.len(), grid.stages());
        return Err(Error::invalid("threads", message));
    }
    for (s, threads) in config.threads.iter().enumerate() {
        if *threads > MAX_THREADS {
            return Err(Error::invalid(format!("threads[{s}]"), format!("is {threads}; the limit is {MAX_THREADS}")));
        }
    }
    if chain.is_empty() {
        return Err(Error::invalid("threads", "are all 0; at least one stage needs a thread"));
    }
    if let Some(buffer) = config.buffer {
        let passes_on = |pair: &[usize]| pair.iter().all(|s| grid.unit(*s) == Unit::SubBatch);
        if config.offload_items > 0 || !chain.windows(2).any(passes_on) {
            return Err(Error::invalid(
                "buffer",
                format!("is {buffer}; allowed is none without a pipeline of two pools"),
            ));
        }
    }
    if config.offload_items > 0 && chain.len() != 2 {
        let message =
            format!("is {}; allowed is 0 with {} stages in use: two are needed", config.offload_items, chain.len());
        return Err(Error::invalid("offload_items", message));
    }
    if config.batch == 0 {
        return Err(Error::invalid("batch", "is 0; at least 1 item is needed"));
    }
    let fuses = chain.iter().any(|s| grid.unit(*s) == Unit::Fused);
    let items = if fuses { config.fuse_items } else { 1 };
    Limits { items, queries: u32::MAX, max_wait_s: config.max_wait_s }.check("fuse_items", "max_wait_s")
}

//! The search's simulator: one scheduling configuration of a [`Grid`] as a chain of stations, one run of queries through
//! it, and an early end as soon as a latency target is surely missed.
//!
//! No event list is needed: each station is one pass of a recursion over its jobs in order of entry, so a simulated job
//! costs some tens of nanoseconds. The slow twin is `tests/reference/queue.py`.
//!
//! Reading order: [`input`] (one random run of queries), [`split`] (their sub-batches), [`threads`] and [`launch`] (the
//! state of a pool, the next batch of a device), [`System`] (the chain), [`pass`] (the recursions), [`watch`] (the early
//! end), [`scratch`] (what a run leaves), [`load`] (highest load under latency targets).
//!
//! Simultaneous events: completions first, then batch timers, then arrivals; within a kind, input order.

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

pub use input::{Input, Traffic};
pub use load::{Rules, Target};
pub use scratch::{Scratch, StageUse};
pub use split::Split;
pub use watch::{Allowance, Ended, Watch};

use crate::error::{Error, Result};
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
    stages: usize,
}

impl System {
    /// The chain that `config` makes of `grid` for queries of at most `max_size` items.
    pub fn from_grid(grid: &Grid, config: &Config, max_size: u32) -> Result<Self> {
        check_config(grid, config)?;
        let chain: Vec<usize> = (0..grid.stages()).filter(|s| config.threads[*s] > 0).collect();
        let limits = Limits { items: config.fuse_items, queries: u32::MAX, max_wait_s: config.max_wait_s };
        let mut stations = Vec::with_capacity(chain.len());
        for &stage in &chain {
            let unit = grid.unit(stage);
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
                Some(place) if table.depends_on_busy() => {
                    if chain[place] == stage {
                        SlowedBy::Itself
                    } else {
                        SlowedBy::Station(place)
                    }
                }
                _ => SlowedBy::Nobody,
            };
            let threads = config.threads[stage];
            stations.push(Station { stage, unit, threads, table, slowed_by, limits });
        }
        Ok(Self { stations, batch: config.batch, stages: grid.stages() })
    }

    pub fn stations(&self) -> &[Station] {
        &self.stations
    }

    /// Number of stages of the table, including those that this configuration leaves out.
    pub fn stages(&self) -> usize {
        self.stages
    }

    /// Upper bound of the throughput: the rate at which the busiest station never rests. Threads count as all busy;
    /// fusing devices as always running the batch that is cheapest per item.
    pub fn bottleneck_qps(&self, traffic: &Traffic) -> f64 {
        self.stations.iter().map(|station| self.station_capacity(station, traffic)).fold(f64::INFINITY, f64::min)
    }

    fn station_capacity(&self, station: &Station, traffic: &Traffic) -> f64 {
        let table = &station.table;
        let busy = table.columns();
        let full_batch_s = match station.unit {
            Unit::SubBatch if traffic.max_size() >= self.batch => table.seconds(self.batch, busy),
            _ => 0.0, // no query fills a batch
        };
        let fused_item_s = match station.unit {
            Unit::Fused => table.best_seconds_per_item(busy, table.max_items()),
            _ => 0.0,
        };
        let work = |size: u32| match station.unit {
            Unit::Query => table.seconds(size, busy),
            Unit::SubBatch => {
                let rest = size % self.batch;
                let full = f64::from(size / self.batch);
                let tail = if rest > 0 { table.seconds(rest, busy) } else { 0.0 };
                full * full_batch_s + tail
            }
            Unit::Fused if size >= station.limits.items => table.seconds(size, busy),
            Unit::Fused => f64::from(size) * fused_item_s,
        };
        let work_per_query: f64 = traffic.sizes().map(|(size, p)| p * work(size)).sum();
        f64::from(station.threads) / work_per_query
    }

    /// (latency, probability) of a query that finds the system empty, for every size that occurs.
    pub fn unloaded(&self, traffic: &Traffic, scratch: &mut Scratch) -> Vec<(f64, f64)> {
        let mut input = Input { unit_time: vec![0.0], size: vec![1] };
        let mut split = Split::default();
        let mut watch = Watch::blind();
        traffic
            .sizes()
            .map(|(size, p)| {
                input.size[0] = size;
                split.refill(self, &input);
                self.run(&input, &split, 1.0, scratch, &mut watch, Detail::Latency);
                (scratch.done[0], p)
            })
            .collect()
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
        for place in 0..self.stations.len() {
            let pass = Pass { system: self, input, split, place, detail };
            if !pass.is_lean() {
                scratch.enter(self, split, place);
            }
            watch.restart();
            let ended = pass.run(scratch, watch);
            if ended != Ended::Complete {
                return ended;
            }
        }
        Ended::Complete
    }

    fn keeps_history(&self, place: usize) -> bool {
        self.stations[place + 1..].iter().any(|later| later.slowed_by == SlowedBy::Station(place))
    }

    fn uses_sub_batches(&self) -> bool {
        self.stations.iter().any(|station| station.unit == Unit::SubBatch)
    }
}

fn check_config(grid: &Grid, config: &Config) -> Result<()> {
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
    if config.threads.iter().all(|threads| *threads == 0) {
        return Err(Error::invalid("threads", "are all 0; at least one stage needs a thread"));
    }
    if let Some(buffer) = config.buffer {
        return Err(Error::invalid("buffer", format!("is {buffer}; the search has no bounded buffers yet")));
    }
    if config.offload_items > 0 {
        let message = format!("is {}; the search has no offload yet", config.offload_items);
        return Err(Error::invalid("offload_items", message));
    }
    if config.batch == 0 {
        return Err(Error::invalid("batch", "is 0; at least 1 item is needed"));
    }
    let fuses = (0..grid.stages()).any(|s| config.threads[s] > 0 && grid.unit(s) == Unit::Fused);
    let items = if fuses { config.fuse_items } else { 1 };
    Limits { items, queries: u32::MAX, max_wait_s: config.max_wait_s }.check("fuse_items", "max_wait_s")
}

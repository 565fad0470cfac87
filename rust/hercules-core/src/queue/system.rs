//! A chain of stations and one simulated run through it.

use crate::control::Control;
use crate::error::{Error, Result};
use crate::queue::fusion::{Limits, next_launch};
use crate::queue::input::{Input, Traffic};
use crate::queue::law::Law;
use crate::queue::percentile;
use crate::queue::pool::{BusyCursor, Entry, Threads, push_sorted, push_sorted_time};
use crate::queue::table::{Grid, StageTable, Unit};
use crate::rng::Stream;

/// Largest number of threads (or devices) of one stage.
pub const MAX_THREADS: u32 = 4096;

/// Longest time that a fusing device may wait for company.
const MAX_WAIT_S: f64 = 3600.0;

/// Jobs between two looks at the cancel flag: well under a millisecond of work.
const POLL_JOBS: usize = 1 << 14;

/// The same in queries, each of which may be many jobs.
const POLL_QUERIES: usize = 64;

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
    /// Threads or devices of each stage; 0 takes the stage out of the chain.
    pub threads: Vec<u32>,
}

/// How long an execution takes.
#[derive(Debug, Clone)]
pub enum Service {
    Table(StageTable),
    /// `mean_s` times a draw, indexed by the job's number (for fusion: by the batch's).
    Law {
        law: Law,
        stream: Stream,
        mean_s: f64,
    },
    /// `base_s + per_item_s * items`.
    Affine {
        base_s: f64,
        per_item_s: f64,
    },
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
    pub service: Service,
    pub slowed_by: SlowedBy,
    pub limits: Limits,
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
            stations.push(Station { stage, unit, threads, service: Service::Table(table), slowed_by, limits });
        }
        Ok(Self { stations, batch: config.batch, stages: grid.stages() })
    }

    /// A chain of stations with laws of service, for work without a table. `batch` cuts queries at stations whose unit
    /// is a sub-batch.
    pub fn from_stations(stations: Vec<Station>, batch: u32) -> Result<Self> {
        if stations.is_empty() {
            return Err(Error::invalid("stations", "is empty; at least one is needed"));
        }
        for (i, station) in stations.iter().enumerate() {
            check_threads(&format!("stations[{i}].threads"), station.threads)?;
            if station.threads == 0 {
                return Err(Error::invalid(format!("stations[{i}].threads"), "is 0; at least 1 is needed"));
            }
            check_fusion(&station.limits, &format!("stations[{i}]."))?;
        }
        if batch == 0 {
            return Err(Error::invalid("batch", "is 0; at least 1 item is needed"));
        }
        let stages = stations.len();
        Ok(Self { stations, batch, stages })
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
    ///
    /// Infinite where a station has a law instead of a table.
    pub fn bottleneck_qps(&self, traffic: &Traffic) -> f64 {
        self.stations.iter().map(|station| self.station_capacity(station, traffic)).fold(f64::INFINITY, f64::min)
    }

    fn station_capacity(&self, station: &Station, traffic: &Traffic) -> f64 {
        let Service::Table(table) = &station.service else { return f64::INFINITY };
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
        check_threads(&format!("threads[{s}]"), *threads)?;
    }
    if config.threads.iter().all(|threads| *threads == 0) {
        return Err(Error::invalid("threads", "are all 0; at least one stage needs a thread"));
    }
    if config.batch == 0 {
        return Err(Error::invalid("batch", "is 0; at least 1 item is needed"));
    }
    let fuses = (0..grid.stages()).any(|s| config.threads[s] > 0 && grid.unit(s) == Unit::Fused);
    let items = if fuses { config.fuse_items } else { 1 };
    check_fusion(&Limits { items, queries: u32::MAX, max_wait_s: config.max_wait_s }, "")
}

fn check_threads(field: &str, threads: u32) -> Result<()> {
    if threads > MAX_THREADS {
        return Err(Error::invalid(field, format!("is {threads}; the limit is {MAX_THREADS}")));
    }
    Ok(())
}

fn check_fusion(limits: &Limits, prefix: &str) -> Result<()> {
    if limits.items == 0 || limits.queries == 0 {
        return Err(Error::invalid(format!("{prefix}fuse_items"), "is 0; at least 1 is needed"));
    }
    if !(limits.max_wait_s >= 0.0 && limits.max_wait_s <= MAX_WAIT_S) {
        let message = format!("is {}; allowed are 0 to {MAX_WAIT_S} seconds", limits.max_wait_s);
        return Err(Error::invalid(format!("{prefix}max_wait_s"), message));
    }
    Ok(())
}

/// Refuse a run whose sub-batches cannot be held. Its vectors grow as they need to, and a vector that cannot grow ends the
/// process; so all that they will need together is asked for once, and given back.
fn refuse_without_memory(jobs: usize) -> Result<()> {
    let bytes = jobs.saturating_mul(2 * size_of::<u32>() + 2 * size_of::<Entry>());
    Vec::<u8>::new().try_reserve_exact(bytes).map_err(|_| Error::Memory { bytes })
}

/// How queries fall into sub-batches: the same at every rate, so computed once per (input, batch).
#[derive(Debug, Default)]
pub struct Split {
    /// First sub-batch of each query, and the total at the end.
    first: Vec<u32>,
    query: Vec<u32>,
    items: Vec<u32>,
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

    fn refill(&mut self, system: &System, input: &Input) {
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

/// What a run should keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// Latencies and busy seconds.
    Latency,
    /// Energy too.
    Energy,
    /// Energy, and each job's wait at each station.
    Waits,
}

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
    warmup: usize,
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

    fn restart(&mut self) {
        self.reached = 0;
        for limit in &mut self.limits {
            limit.late = 0;
        }
    }

    fn cancelled(&self) -> bool {
        self.control.is_some_and(Control::cancelled)
    }

    /// The latency of `query` is known to be at least `after`, it was `before`. Gives the target that is now missed.
    #[inline]
    fn raised(&mut self, query: usize, before: f64, after: f64) -> Option<usize> {
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

/// What a station did in a run.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Tally {
    pub busy_s: f64,
    pub executions: u64,
    pub items: u64,
    pub energy_j: f64,
}

/// Working memory of runs, kept between them so that a probe allocates nothing.
#[derive(Debug, Default)]
pub struct Scratch {
    pub(crate) arrival: Vec<f64>,
    /// When each query's last part left the latest station.
    pub(crate) done: Vec<f64>,
    pub(crate) tally: Vec<Tally>,
    /// With [`Detail::Waits`]: per station, arrival at the station to start of service, for jobs after the warm-up.
    pub(crate) waits: Vec<Vec<f64>>,
    entries: Vec<Entry>,
    next: Vec<Entry>,
    histories: Vec<History>,
    threads: Threads,
}

/// Starts and ends of a station's executions, each sorted, for a later station that is slowed by it.
#[derive(Debug, Default)]
struct History {
    starts: Vec<f64>,
    ends: Vec<f64>,
}

impl Scratch {
    pub fn new() -> Self {
        Self::default()
    }

    fn reset(&mut self, system: &System, input: &Input, rate: f64) {
        let scale = 1.0 / rate;
        let stations = system.stations.len();
        self.arrival.clear();
        self.arrival.extend(input.unit_time.iter().map(|time| time * scale));
        self.done.clear();
        self.done.resize(self.arrival.len(), f64::NEG_INFINITY);
        self.tally.clear();
        self.tally.resize(stations, Tally::default());
        self.histories.resize_with(stations, History::default);
        self.waits.resize_with(stations, Vec::new);
        for (history, waits) in self.histories.iter_mut().zip(&mut self.waits) {
            history.starts.clear();
            history.ends.clear();
            waits.clear();
        }
    }

    /// Put the jobs of station `place` in line: arrivals for the first, else what the station before has finished.
    fn enter(&mut self, system: &System, split: &Split, place: usize) {
        let unit = system.stations[place].unit;
        let before = place.checked_sub(1).map(|p| system.stations[p].unit);
        self.entries.clear();
        if unit == Unit::SubBatch && before == Some(Unit::SubBatch) {
            std::mem::swap(&mut self.entries, &mut self.next);
        } else {
            let times = if place == 0 { &self.arrival } else { &self.done };
            for (query, time) in times.iter().enumerate() {
                push_sorted(&mut self.entries, Entry { time: *time, job: query as u32 });
            }
            if unit == Unit::SubBatch {
                self.next.clear();
                for entry in &self.entries {
                    let query = entry.job as usize;
                    let parts = split.first[query]..split.first[query + 1];
                    self.next.extend(parts.map(|job| Entry { time: entry.time, job }));
                }
                std::mem::swap(&mut self.entries, &mut self.next);
            }
        }
        self.next.clear();
        self.done.clear();
        self.done.resize(self.arrival.len(), f64::NEG_INFINITY);
    }

    /// Latencies in seconds of the queries after `warmup`, in order of arrival.
    pub fn latencies(&self, warmup: usize) -> Vec<f64> {
        self.done[warmup..].iter().zip(&self.arrival[warmup..]).map(|(done, arrival)| done - arrival).collect()
    }

    /// With [`Detail::Waits`]: mean and percentiles `ps` of the wait at each station.
    pub fn wait_statistics(&self, ps: &[f64]) -> Vec<(f64, Vec<f64>)> {
        let statistics = |waits: &Vec<f64>| {
            let mut waits = waits.clone();
            let mean = waits.iter().sum::<f64>() / waits.len() as f64;
            (mean, percentile::percentiles(&mut waits, ps))
        };
        self.waits.iter().map(statistics).collect()
    }

    /// First arrival to last completion.
    pub fn span_s(&self) -> f64 {
        self.done.iter().copied().fold(f64::NEG_INFINITY, f64::max) - self.arrival[0]
    }

    /// How fast latency grows, as a share of elapsed time, between the second and the last quarter of the queries.
    /// About 0 in a stable system; a system that is offered 1+x times what it can do falls behind by x.
    pub fn backlog_growth(&self) -> f64 {
        let n = self.arrival.len();
        if n < 8 {
            return 0.0;
        }
        let mean = |from: usize, to: usize| {
            let (mut latency, mut arrival) = (0.0, 0.0);
            for i in from..to {
                latency += self.done[i] - self.arrival[i];
                arrival += self.arrival[i];
            }
            (latency / (to - from) as f64, arrival / (to - from) as f64)
        };
        let (early, late) = (mean(n / 4, n / 2), mean(n - n / 4, n));
        if late.1 > early.1 { (late.0 - early.0) / (late.1 - early.1) } else { 0.0 }
    }
}

/// Seconds of one execution; the three kinds of [`Service`] are compiled into their own loops.
trait ServiceTime {
    fn seconds(&self, job: u32, items: u32, busy: u32) -> f64;
}

impl ServiceTime for StageTable {
    #[inline]
    fn seconds(&self, _job: u32, items: u32, busy: u32) -> f64 {
        StageTable::seconds(self, items, busy)
    }
}

struct LawTime<'a> {
    law: &'a Law,
    stream: Stream,
    mean_s: f64,
}

impl ServiceTime for LawTime<'_> {
    #[inline]
    fn seconds(&self, job: u32, _items: u32, _busy: u32) -> f64 {
        self.law.draw(self.stream, u64::from(job)) * self.mean_s
    }
}

struct AffineTime {
    base_s: f64,
    per_item_s: f64,
}

impl ServiceTime for AffineTime {
    #[inline]
    fn seconds(&self, _job: u32, items: u32, _busy: u32) -> f64 {
        self.base_s + self.per_item_s * f64::from(items)
    }
}

/// One station's pass over its jobs.
struct Pass<'a> {
    system: &'a System,
    input: &'a Input,
    split: &'a Split,
    place: usize,
    detail: Detail,
}

impl Pass<'_> {
    fn run(&self, scratch: &mut Scratch, watch: &mut Watch<'_>) -> Ended {
        match &self.station().service {
            Service::Table(table) => self.with_service(table, scratch, watch),
            Service::Law { law, stream, mean_s } => {
                self.with_service(&LawTime { law, stream: *stream, mean_s: *mean_s }, scratch, watch)
            }
            Service::Affine { base_s, per_item_s } => {
                self.with_service(&AffineTime { base_s: *base_s, per_item_s: *per_item_s }, scratch, watch)
            }
        }
    }

    fn station(&self) -> &Station {
        &self.system.stations[self.place]
    }

    fn with_service(&self, service: &impl ServiceTime, scratch: &mut Scratch, watch: &mut Watch<'_>) -> Ended {
        let station = self.station();
        let mut threads = std::mem::take(&mut scratch.threads);
        threads.reset(station.threads);
        let mut history = std::mem::take(&mut scratch.histories[self.place]);
        let ended = match station.slowed_by {
            SlowedBy::Nobody => self.with_busy(service, |_, _| 1, &mut threads, &mut history, scratch, watch),
            SlowedBy::Itself => {
                let own = |threads: &mut Threads, start: f64| threads.busy_at(start);
                self.with_busy(service, own, &mut threads, &mut history, scratch, watch)
            }
            SlowedBy::Station(other) => {
                let theirs = std::mem::take(&mut scratch.histories[other]);
                let mut cursor = BusyCursor::new(&theirs.starts, &theirs.ends);
                let ended = self.with_busy(
                    service,
                    |_, start| cursor.at(start).max(1),
                    &mut threads,
                    &mut history,
                    scratch,
                    watch,
                );
                scratch.histories[other] = theirs;
                ended
            }
        };
        scratch.histories[self.place] = history;
        scratch.threads = threads;
        ended
    }

    /// Whether this is the first station and nothing is asked of it but when queries leave: nearly all the work of a
    /// search.
    fn is_lean(&self) -> bool {
        self.place == 0
            && self.detail == Detail::Latency
            && self.station().unit != Unit::Fused
            && !self.feeds_jobs()
            && !self.system.keeps_history(0)
    }

    /// Whether the next station takes this one's sub-batches one by one.
    fn feeds_jobs(&self) -> bool {
        let later = self.system.stations.get(self.place + 1).map(|station| station.unit);
        self.station().unit == Unit::SubBatch && later == Some(Unit::SubBatch)
    }

    fn with_busy(
        &self,
        service: &impl ServiceTime,
        busy: impl FnMut(&mut Threads, f64) -> u32,
        threads: &mut Threads,
        history: &mut History,
        scratch: &mut Scratch,
        watch: &mut Watch<'_>,
    ) -> Ended {
        if self.is_lean() {
            let batch = if self.station().unit == Unit::SubBatch { self.system.batch } else { u32::MAX };
            return lean_pass(&self.input.size, batch, service, busy, threads, scratch, watch);
        }
        let energy = match &self.station().service {
            Service::Table(table) if self.detail != Detail::Latency => Some(table),
            _ => None,
        };
        let mut ledger = Ledger {
            arrival: &scratch.arrival,
            done: &mut scratch.done,
            watch,
            next: self.feeds_jobs().then_some(&mut scratch.next),
            history: self.system.keeps_history(self.place).then_some(history),
            waits: (self.detail == Detail::Waits).then_some(&mut scratch.waits[self.place]),
            energy,
            tally: Tally::default(),
        };
        let entries = &scratch.entries;
        let ended = match self.station().unit {
            Unit::SubBatch => {
                let (items, query) = (&self.split.items, &self.split.query);
                pool_pass(
                    entries,
                    |job| items[job as usize],
                    |job| query[job as usize],
                    service,
                    busy,
                    threads,
                    &mut ledger,
                )
            }
            Unit::Query => {
                pool_pass(entries, |job| self.input.size[job as usize], |job| job, service, busy, threads, &mut ledger)
            }
            Unit::Fused => {
                let limits = &self.station().limits;
                fused_pass(entries, |job| self.input.size[job as usize], limits, service, busy, threads, &mut ledger)
            }
        };
        scratch.tally[self.place] = ledger.tally;
        ended
    }
}

/// Where a pass writes what it found.
struct Ledger<'a, 'w> {
    arrival: &'a [f64],
    done: &'a mut [f64],
    watch: &'a mut Watch<'w>,
    next: Option<&'a mut Vec<Entry>>,
    history: Option<&'a mut History>,
    waits: Option<&'a mut Vec<f64>>,
    energy: Option<&'a StageTable>,
    tally: Tally,
}

impl Ledger<'_, '_> {
    /// One execution on one thread.
    #[inline]
    fn executed(&mut self, start: f64, seconds: f64, items: u32) {
        self.tally.busy_s += seconds;
        self.tally.executions += 1;
        self.tally.items += u64::from(items);
        if let Some(table) = self.energy {
            self.tally.energy_j += table.energy_j(items);
        }
        if let Some(history) = &mut self.history {
            history.starts.push(start);
            push_sorted_time(&mut history.ends, start + seconds);
        }
    }

    /// A part of `query`, ready at `ready`, was in service from `start` to `end`. Gives the target now surely missed.
    #[inline]
    fn finished(&mut self, query: u32, ready: f64, start: f64, end: f64) -> Option<usize> {
        let query = query as usize;
        if let Some(waits) = &mut self.waits
            && query >= self.watch.warmup
        {
            waits.push(start - ready);
        }
        let before = self.done[query];
        if end <= before {
            return None;
        }
        self.done[query] = end;
        let arrival = self.arrival[query];
        self.watch.raised(query, before - arrival, end - arrival)
    }
}

#[inline]
fn pool_pass(
    entries: &[Entry],
    items_of: impl Fn(u32) -> u32,
    query_of: impl Fn(u32) -> u32,
    service: &impl ServiceTime,
    mut busy: impl FnMut(&mut Threads, f64) -> u32,
    threads: &mut Threads,
    ledger: &mut Ledger<'_, '_>,
) -> Ended {
    for chunk in entries.chunks(POLL_JOBS) {
        if ledger.watch.cancelled() {
            return Ended::Cancelled;
        }
        for entry in chunk {
            let start = threads.start(entry.time);
            let busy_threads = busy(threads, start);
            let items = items_of(entry.job);
            let seconds = service.seconds(entry.job, items, busy_threads);
            let end = start + seconds;
            threads.occupy(end);
            ledger.executed(start, seconds, items);
            if let Some(next) = &mut ledger.next {
                push_sorted(next, Entry { time: end, job: entry.job });
            }
            let query = query_of(entry.job);
            if let Some(target) = ledger.finished(query, entry.time, start, end) {
                ledger.watch.reached = query as usize + 1;
                return Ended::Missed(target);
            }
        }
    }
    ledger.watch.reached = ledger.done.len();
    Ended::Complete
}

/// [`pool_pass`] for a first station of which only latencies and busy time are kept. Queries come in order and their
/// parts stand together, so no line of entries is made, and a query is looked at once, when its last part is placed.
#[inline]
fn lean_pass(
    sizes: &[u32],
    batch: u32,
    service: &impl ServiceTime,
    mut busy: impl FnMut(&mut Threads, f64) -> u32,
    threads: &mut Threads,
    scratch: &mut Scratch,
    watch: &mut Watch<'_>,
) -> Ended {
    let (mut tally, mut job) = (Tally::default(), 0);
    let queries = scratch.arrival.iter().zip(&mut scratch.done).zip(sizes).enumerate();
    for (query, ((&arrival, done), &size)) in queries {
        // A query has many parts at most, so a look at the flag for each few of them is often enough.
        if query % POLL_QUERIES == 0 && watch.cancelled() {
            return Ended::Cancelled;
        }
        let (mut left, mut last_end) = (size, f64::NEG_INFINITY);
        while left > 0 {
            let items = left.min(batch);
            let start = threads.start(arrival);
            let busy_threads = busy(threads, start);
            let seconds = service.seconds(job, items, busy_threads);
            let end = start + seconds;
            threads.occupy(end);
            tally.busy_s += seconds;
            tally.executions += 1;
            last_end = if end > last_end { end } else { last_end };
            left -= items;
            job += 1;
        }
        tally.items += u64::from(size);
        *done = last_end;
        if let Some(target) = watch.raised(query, f64::NEG_INFINITY, last_end - arrival) {
            watch.reached = query + 1;
            return Ended::Missed(target);
        }
    }
    watch.reached = sizes.len();
    scratch.tally[0] = tally;
    Ended::Complete
}

#[inline]
fn fused_pass(
    entries: &[Entry],
    size_of: impl Fn(u32) -> u32,
    limits: &Limits,
    service: &impl ServiceTime,
    mut busy: impl FnMut(&mut Threads, f64) -> u32,
    devices: &mut Threads,
    ledger: &mut Ledger<'_, '_>,
) -> Ended {
    let (mut first, mut batch, mut poll_at) = (0, 0, 0);
    while first < entries.len() {
        if first >= poll_at {
            if ledger.watch.cancelled() {
                return Ended::Cancelled;
            }
            poll_at = first + POLL_JOBS;
        }
        let launch = next_launch(entries, first, devices.earliest(), limits, &size_of);
        let busy_devices = busy(devices, launch.start);
        let seconds = service.seconds(batch, launch.items, busy_devices);
        let end = launch.start + seconds;
        devices.occupy(end);
        ledger.executed(launch.start, seconds, launch.items);
        for entry in &entries[first..launch.last] {
            if let Some(target) = ledger.finished(entry.job, entry.time, launch.start, end) {
                ledger.watch.reached = entry.job as usize + 1;
                return Ended::Missed(target);
            }
        }
        first = launch.last;
        batch += 1;
    }
    ledger.watch.reached = ledger.done.len();
    Ended::Complete
}

/// What a stage did, per query and per second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StageUse {
    /// Busy time / (threads * span); 0 for a stage that is not in the chain.
    pub utilisation: f64,
    pub executions_per_query: f64,
    /// NaN for a stage that is not in the chain.
    pub items_per_execution: f64,
    /// NaN where the table does not know; 0 for a stage that is not in the chain.
    pub energy_j_per_query: f64,
}

impl StageUse {
    pub const UNUSED: Self =
        Self { utilisation: 0.0, executions_per_query: 0.0, items_per_execution: f64::NAN, energy_j_per_query: 0.0 };
}

impl System {
    /// Use of every stage in the run that `scratch` holds (over the whole run, warm-up included).
    pub fn stage_use(&self, scratch: &Scratch) -> Vec<StageUse> {
        let queries = scratch.arrival.len() as f64;
        let span = scratch.span_s();
        let mut uses = vec![StageUse::UNUSED; self.stages];
        for (station, tally) in self.stations.iter().zip(&scratch.tally) {
            uses[station.stage] = StageUse {
                utilisation: tally.busy_s / (f64::from(station.threads) * span),
                executions_per_query: tally.executions as f64 / queries,
                items_per_execution: tally.items as f64 / tally.executions as f64,
                energy_j_per_query: tally.energy_j / queries,
            };
        }
        uses
    }
}

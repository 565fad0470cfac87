//! A whole run: how it is cut into segments, on which engine they run, what comes out.

use crate::control::Control;
use crate::cpu::Isa;
use crate::error::{Error, Result};
use crate::pool;
use crate::queue::engine::{Plan, Segment, Use};
use crate::queue::events;
use crate::queue::network::Network;
use crate::queue::record::{Cut, Histogram};
use crate::queue::recursion;
use crate::queue::source::Source;
use crate::queue::statistics::{self, Estimate};
use rayon::prelude::*;
use std::ops::Range;

/// Most queries of a run, and of a run that keeps something for each of them.
pub const MAX_QUERIES: u64 = 1 << 40;
pub const MAX_KEPT: u64 = 1 << 32;
/// Segments that a long run is cut into; fewer, and then one, where they would become too short.
const SEGMENTS: [usize; 4] = [64, 32, 16, 8];
/// Shortest segment of several, in queries, in warm-ups and in cycles of the arrival rate.
const SEGMENT_QUERIES: f64 = 50_000.0;
const SEGMENT_WARMUPS: f64 = 10.0;
const SEGMENT_CYCLES: f64 = 32.0;
/// Shortest segment of a run that holds too few cycles of a profile for that.
const LEAST_SEGMENT_QUERIES: f64 = 1000.0;
/// Cycles that a run must hold before it says how sure its percentiles are.
const INTERVAL_CYCLES: f64 = 100.0;
/// Most percentiles that are asked for.
const MAX_PERCENTILES: usize = 1024;
/// Batches of a run in all, and most queries of one: buckets count to 2^32.
const BATCHES: usize = 32;
const MAX_BATCH: u64 = 1 << 31;
/// Relaxation times that a system is given to forget that it began empty.
const WARMUP_RELAXATIONS: f64 = 10.0;
/// Relaxation times that a run must hold before it says how sure its percentiles are. In shorter ones the bursts that make
/// a percentile are too few: intervals of p99 of M/M/16 at 0.9 held the truth in 87 to 90 % of the runs of 3,000 of them,
/// in 95 % of those of 12,000 (`make check-queue`).
const INTERVAL_RELAXATIONS: f64 = 10_000.0;

/// Which engine runs a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// The recursions where they cover the network, else events.
    Auto,
    Recursion,
    Events,
}

impl Engine {
    pub fn parse(text: &str) -> Result<Self> {
        match text {
            "auto" => Ok(Self::Auto),
            "recursion" => Ok(Self::Recursion),
            "events" => Ok(Self::Events),
            _ => Err(Error::invalid("engine", format!("is {text:?}; allowed are auto, recursion, events"))),
        }
    }

    fn chosen(self, network: &Network) -> Result<Self> {
        let covered = recursion::covers(network);
        match self {
            Self::Recursion if !covered => Err(Error::invalid(
                "engine",
                "is recursion, which covers one pool (queries split or not) or a chain of pools of whole queries, without \
                 buffers, interference, fusion, capacity or drops",
            )),
            Self::Auto if covered => Ok(Self::Recursion),
            Self::Auto => Ok(Self::Events),
            other => Ok(other),
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Recursion => "recursion",
            Self::Events => "events",
        }
    }
}

/// What is asked of a run.
#[derive(Debug, Clone)]
pub struct Order {
    /// Queries in all; not looked at for a trace.
    pub queries: u64,
    /// Of each segment, else by rule.
    pub warmup: Option<u64>,
    pub segments: Option<usize>,
    pub percentiles: Vec<f64>,
    /// Latencies of which it matters how many queries took longer.
    pub limits_s: Vec<f64>,
    pub engine: Engine,
    pub keep: bool,
    /// Percentiles of the wait at each station too.
    pub waits: bool,
    pub isa: Option<Isa>,
}

/// Figures of one station over the part of the run after the warm-up.
#[derive(Debug, Clone)]
pub struct StationReport {
    pub utilisation: f64,
    /// Share of the threads' time in which they kept a result for want of a place.
    pub blocked_share: f64,
    pub mean_busy: f64,
    pub mean_queue: f64,
    pub mean_wait_s: f64,
    pub wait_percentiles_s: Vec<f64>,
    pub executions_per_query: f64,
    pub items_per_execution: f64,
}

/// Figures of a run.
#[derive(Debug)]
pub struct Report {
    pub engine: Engine,
    pub percentiles: Vec<Estimate>,
    /// Share of queries that took longer than each limit; share that was refused or dropped.
    pub above: Vec<Estimate>,
    pub lost: Estimate,
    pub mean: Estimate,
    pub qps: f64,
    pub throughput_qps: f64,
    pub queries: u64,
    pub warmup: u64,
    pub counted: u64,
    pub refused: u64,
    pub dropped: u64,
    pub segments: usize,
    pub batches: usize,
    /// Queries after the warm-up that intervals of all the percentiles need.
    pub interval_queries: u64,
    pub warmup_cut: Option<u64>,
    pub growth: f64,
    pub falls_behind: bool,
    pub mean_in_system: f64,
    pub stations: Vec<StationReport>,
    /// Latencies after the warm-up, segment after segment, if they were kept.
    pub latencies_s: Option<Vec<f64>>,
}

/// How long a system takes to forget, in queries: what a warm-up needs, and an interval.
struct Memory {
    warmup: f64,
    interval: f64,
}

fn memory(network: &Network, source: &Source<'_>, sizes: &[(u32, f64)], qps: f64) -> Memory {
    let mut memory = Memory { warmup: 0.0, interval: 0.0 };
    let cycle = (source.profile_s() + source.phases_s()) * qps;
    for (station, capacity) in network.stations().zip(network.capacities(sizes)) {
        let load = qps / capacity;
        // Relaxation of M/M/1 (Cohen), in arrivals, times the variability beside it; a pool behaves like one fast thread.
        let spread = f64::max(1.0, 0.5 * (source.scv() + station.service.scv()));
        // What refuses or drops queries never falls far behind.
        let sheds = network.capacity.is_some() || network.drop_after_s.is_some();
        let stable = load.min(if sheds { 0.95 } else { 0.9999 });
        let gap = 1.0 - stable.sqrt();
        let relaxation = spread * stable / (gap * gap);
        memory.warmup = memory.warmup.max(WARMUP_RELAXATIONS * (relaxation + f64::from(station.threads)));
        memory.interval = memory.interval.max(INTERVAL_RELAXATIONS * relaxation);
    }
    memory.interval = memory.interval.max(INTERVAL_CYCLES * cycle);
    memory
}

/// Segments of a run of so many queries by rule. A `cycle` (in queries; 0 without a profile of the rate) is a whole of which
/// parts say little: a segment holds many, or, where they are too long for that, segments lie evenly over the cycle.
fn segments_of(queries: u64, warmup: f64, cycle: f64) -> usize {
    let all = queries as f64;
    let least = SEGMENT_QUERIES.max(SEGMENT_WARMUPS * warmup).max(SEGMENT_CYCLES * cycle);
    if let Some(segments) = SEGMENTS.into_iter().find(|n| all >= least * *n as f64) {
        return segments;
    }
    let [most, .., fewest] = SEGMENTS;
    if cycle == 0.0 || all < LEAST_SEGMENT_QUERIES * fewest as f64 {
        return 1;
    }
    // Segments of a cycle or more, if there can be some: what a peak leaves over is worked off in the same segment.
    let cycles = if all >= cycle * fewest as f64 { all / cycle } else { f64::INFINITY };
    cycles.min(all / LEAST_SEGMENT_QUERIES.max(2.0 * warmup)).clamp(fewest as f64, most as f64) as usize
}

fn cuts(network: &Network, source: &Source<'_>, sizes: &[(u32, f64)], qps: f64, order: &Order) -> Result<Vec<Cut>> {
    // A random rate begins in a stationary phase, but without the backlog that the phases before left.
    let need = memory(network, source, sizes, qps).warmup + source.phases_s() * qps;
    let lengths = if let Some(parts) = source.parts() {
        parts
    } else {
        if order.queries == 0 || order.queries > MAX_QUERIES {
            let message = format!("is {}; allowed are 1 to {MAX_QUERIES}", order.queries);
            return Err(Error::invalid("queries", message));
        }
        let segments = order.segments.unwrap_or_else(|| segments_of(order.queries, need, source.profile_s() * qps));
        if segments == 0 || segments > 4096 || segments as u64 > order.queries {
            let message = format!("is {segments}; allowed are 1 to 4096, at most one for each query");
            return Err(Error::invalid("segments", message));
        }
        vec![order.queries.div_ceil(segments as u64); segments]
    };
    let segments = lengths.len();
    if order.keep && lengths.iter().sum::<u64>() > MAX_KEPT {
        return Err(Error::invalid("queries", format!("are too many to keep a latency of each; at most {MAX_KEPT}")));
    }
    let cut = |queries: u64| {
        let batches = (BATCHES.div_ceil(segments) as u64).max(queries.div_ceil(MAX_BATCH));
        let warmup = match order.warmup {
            Some(warmup) if warmup >= queries => {
                let message = format!("is {warmup}; must be below the {queries} queries of a segment");
                return Err(Error::invalid("warmup", message));
            }
            Some(warmup) => warmup,
            // A tenth, or more where the system is slow to forget, up to a half; whole blocks are quicker.
            None => {
                let rule = (queries / 10).max((need as u64).min(queries / 2));
                if rule >= 128 { rule / 128 * 128 } else { rule }
            }
        };
        Ok(Cut::new(queries, warmup, batches))
    };
    lengths.into_iter().map(cut).collect()
}

/// A job that is checked: what will be simulated, on which engine.
type Planned<'a> = (Plan<'a>, Engine, Isa);

/// What is worked on at once: segments of one job.
fn blocks_of((plan, engine, _): &Planned<'_>) -> Vec<Range<usize>> {
    let count = plan.cuts.len();
    // Lanes of one block take the same number of steps; parts of a trace may differ in length.
    let lanes = if *engine == Engine::Recursion && plan.source.parts().is_none() { recursion::LANES } else { 1 };
    (0..count).step_by(lanes).map(|from| from..count.min(from + lanes)).collect()
}

fn run_block((plan, engine, isa): &Planned<'_>, segments: Range<usize>, control: &Control) -> Result<Vec<Segment>> {
    let found = match engine {
        Engine::Recursion => recursion::run(plan, segments, *isa, control),
        _ => segments.map(|segment| events::run(plan, segment, control)).collect(),
    };
    control.advance();
    found
}

/// Segments and warm-up of a run of so many queries at `qps`, by rule: what runs at lower rates take too, so that they
/// see the same queries.
pub fn rule(network: &Network, source: &Source<'_>, qps: f64, order: &Order) -> Result<(usize, u64)> {
    let cuts = cuts(network, source, &source.sizes(), qps, order)?;
    Ok((cuts.len(), cuts[0].warmup))
}

/// Rates that may be simulated, in queries per second: their inverses and products with times stay finite.
const RATES: std::ops::RangeInclusive<f64> = 1e-12..=1e15;

/// Refuse a rate that cannot be simulated.
pub fn check_rate(field: &str, rate: f64) -> Result<f64> {
    let (least, most) = (RATES.start(), RATES.end());
    let refused = || Error::invalid(field, format!("is {rate}; allowed are {least:e} to {most:e} queries per second"));
    if RATES.contains(&rate) { Ok(rate) } else { Err(refused()) }
}

/// The mean rate of a run.
fn rate_of(source: &Source<'_>, qps: Option<f64>) -> Result<f64> {
    match (source.trace_qps(), qps) {
        (Some(_), Some(_)) => Err(Error::invalid("qps", "is set; a trace has its own, see rate_scale")),
        (Some(qps), None) => Ok(qps),
        (None, Some(qps)) => {
            source.check_cycle(check_rate("qps", qps)?)?;
            Ok(qps)
        }
        (None, None) => Err(Error::invalid("qps", "is missing; all but traces need a rate")),
    }
}

/// One run of several: a network, where its queries come from and at what rate, and what is asked.
#[derive(Debug)]
pub struct Job<'a> {
    pub network: &'a Network,
    pub source: &'a Source<'a>,
    pub qps: Option<f64>,
    pub order: &'a Order,
}

impl<'a> Job<'a> {
    /// Check everything and decide what will be simulated.
    fn plan(&self) -> Result<Planned<'a>> {
        let engine = self.order.engine.chosen(self.network)?;
        let qps = rate_of(self.source, self.qps)?;
        let asked = self.order.percentiles.len();
        if asked > MAX_PERCENTILES {
            return Err(Error::invalid("percentiles", format!("has {asked} entries; the limit is {MAX_PERCENTILES}")));
        }
        for (i, p) in self.order.percentiles.iter().enumerate() {
            crate::queue::percentile::check(&format!("percentiles[{i}]"), *p)?;
        }
        let sizes = self.source.sizes();
        let max_size = sizes.last().map_or(1, |(size, _)| *size);
        self.network.check_sizes(max_size)?;
        let cuts = cuts(self.network, self.source, &sizes, qps, self.order)?;
        let isa = Isa::chosen(self.order.isa)?;
        let (network, source, order) = (self.network, self.source, self.order);
        let (keep, waits) = (order.keep, order.waits);
        Ok((Plan { network, source, qps, cuts, sizes, max_size, keep, waits }, engine, isa))
    }
}

/// Simulate one run.
pub fn simulate(job: &Job<'_>, threads: usize, control: &Control) -> Result<Report> {
    let mut reports = Sweep::new(std::slice::from_ref(job))?.run(threads, control)?;
    reports.pop().ok_or_else(|| Error::Internal("a run without a report".to_owned()))
}

/// Several runs, all of their segments beside each other. Each is the same as alone.
#[derive(Debug)]
pub struct Sweep<'a> {
    plans: Vec<(Planned<'a>, &'a Order)>,
}

impl<'a> Sweep<'a> {
    /// Check all before any work starts.
    pub fn new(jobs: &[Job<'a>]) -> Result<Self> {
        let plans = jobs.iter().map(|job| Ok((job.plan()?, job.order))).collect::<Result<Vec<_>>>()?;
        refuse_without_memory(plans.iter().map(|((plan, ..), _)| plan))?;
        Ok(Self { plans })
    }

    /// How many times [`Sweep::run`] will report progress.
    pub fn blocks(&self) -> usize {
        self.plans.iter().map(|(planned, _)| blocks_of(planned).len()).sum()
    }

    pub fn run(&self, threads: usize, control: &Control) -> Result<Vec<Report>> {
        let is_serial = threads == 1 || self.blocks() == 1;
        // A job is reported where its last block ends, and its records go: they are far larger than the report.
        let run = |(planned, order): &(Planned<'a>, &Order)| {
            let block = |segments| run_block(planned, segments, control);
            let blocks = blocks_of(planned);
            let found: Result<Vec<Vec<Segment>>> = if is_serial {
                blocks.into_iter().map(block).collect()
            } else {
                blocks.into_par_iter().map(block).collect()
            };
            let segments: Vec<Segment> = found?.into_iter().flatten().collect();
            Ok(report(&planned.0, planned.1, order, &segments))
        };
        if is_serial {
            self.plans.iter().map(run).collect()
        } else {
            pool::install(threads, || self.plans.par_iter().map(run).collect())?
        }
    }
}

/// Refuse to keep latencies that cannot be held, before hours go into them: once segment by segment, once together.
fn refuse_without_memory<'a>(plans: impl Iterator<Item = &'a Plan<'a>>) -> Result<()> {
    let counted = |cut: &Cut| cut.queries - cut.warmup;
    let kept: u64 = plans.filter(|plan| plan.keep).flat_map(|plan| &plan.cuts).map(counted).sum();
    let bytes = (kept as usize).saturating_mul(2 * size_of::<f64>());
    Vec::<u8>::new().try_reserve_exact(bytes).map_err(|_| Error::Memory { bytes })
}

/// Arrival times and sizes of the first `queries` of `segment` of `segments`.
pub fn draw(
    source: &Source<'_>,
    qps: Option<f64>,
    queries: usize,
    segment: usize,
    segments: usize,
    control: &Control,
) -> Result<(Vec<f64>, Vec<i64>)> {
    let qps = rate_of(source, qps)?;
    let parts = source.parts().map_or(segments, |parts| parts.len());
    if segment >= parts {
        return Err(Error::invalid("segment", format!("is {segment}; allowed are 0 to {}", parts as i64 - 1)));
    }
    let mut stream = source.queries(qps, segment, parts);
    let (mut times, mut sizes) = (Vec::new(), Vec::new());
    let refused = |_| Error::Memory { bytes: queries.saturating_mul(size_of::<(f64, i64)>()) };
    times.try_reserve_exact(queries).map_err(refused)?;
    sizes.try_reserve_exact(queries).map_err(refused)?;
    for i in 0..queries as u64 {
        if i % 4096 == 0 && control.cancelled() {
            return Err(Error::Cancelled);
        }
        times.push(stream.next_time());
        sizes.push(i64::from(stream.size(i)));
    }
    Ok((times, sizes))
}

/// Whether the load is known to be carried, whatever a run of it looks like: pools without blocking and interference carry
/// all that their capacities are above. Recorded runs, and segments that see a part of a cycle only, must show it.
fn is_carried(plan: &Plan<'_>) -> bool {
    let cycle = plan.source.profile_s() * plan.qps;
    plan.source.parts().is_none()
        && plan.cuts.iter().all(|cut| cut.queries as f64 >= cycle)
        && recursion::covers(plan.network)
        && plan.network.capacities(&plan.sizes).into_iter().all(|capacity| plan.qps < capacity)
}

fn report(plan: &Plan<'_>, engine: Engine, order: &Order, segments: &[Segment]) -> Report {
    let sum = |of: &dyn Fn(&Segment) -> f64| segments.iter().map(of).sum::<f64>();
    let count = |of: &dyn Fn(&Segment) -> u64| segments.iter().map(of).sum::<u64>();
    let counted = count(&|s| s.record.batches.iter().map(|batch| batch.histogram.total()).sum());
    let (refused, dropped) = (count(&|s| s.record.refused), count(&|s| s.record.dropped));
    let (queries, seconds) = (count(&|s| s.queries), sum(&|s| s.seconds));
    let rate = if seconds > 0.0 { queries as f64 / seconds } else { f64::NAN };
    let after = counted + refused + dropped;
    let rare = order.percentiles.iter().map(|p| statistics::needed_for_interval(*p)).fold(0.0, f64::max);
    let interval_queries = memory(plan.network, plan.source, &plan.sizes, plan.qps).interval.max(rare).ceil() as u64;
    let is_long = counted >= interval_queries;
    let stations = plan.network.stations().enumerate().map(|(i, station)| {
        let mut all = Use::default();
        let mut waits = Histogram::default();
        for segment in segments {
            all.add(segment.uses[i]);
            if let Some(more) = segment.waits.get(i) {
                waits.merge(more);
            }
        }
        let thread_s = f64::from(station.threads) * seconds;
        StationReport {
            utilisation: all.busy_s / thread_s,
            blocked_share: all.blocked_s / thread_s,
            mean_busy: all.busy_s / seconds,
            mean_queue: (all.wait_s + all.lost_s) / seconds,
            mean_wait_s: all.wait_s / all.jobs as f64,
            wait_percentiles_s: order.percentiles.iter().map(|p| waits.quantile(*p)).collect(),
            executions_per_query: all.executions as f64 / queries as f64,
            items_per_execution: all.items as f64 / all.executions as f64,
        }
    });
    let latencies_s = order.keep.then(|| {
        let mut all = Vec::with_capacity(after as usize);
        for segment in segments {
            all.extend_from_slice(segment.record.kept.as_deref().unwrap_or_default());
        }
        all
    });
    Report {
        engine,
        percentiles: statistics::percentiles(segments, &order.percentiles, is_long),
        above: statistics::shares_above(segments, &order.limits_s, is_long),
        lost: statistics::lost(segments),
        mean: statistics::mean(segments, is_long),
        interval_queries,
        qps: plan.qps,
        throughput_qps: rate * counted as f64 / after as f64,
        queries: plan.cuts.iter().map(|cut| cut.queries).sum(),
        warmup: plan.cuts[0].warmup,
        counted,
        refused,
        dropped,
        segments: segments.len(),
        batches: segments.iter().map(|segment| segment.record.batches.len()).sum(),
        warmup_cut: statistics::warmup_cut(segments),
        growth: statistics::growth(segments, plan.qps),
        falls_behind: !is_carried(plan) && statistics::falls_behind(segments, plan.qps),
        mean_in_system: sum(&|s| s.inside_query_s) / seconds,
        stations: stations.collect(),
        latencies_s,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_hold_many_cycles_or_lie_evenly_over_one() {
        let of = |queries, warmup, cycle| segments_of(queries, warmup, cycle);
        assert_eq!([of(3_200_000, 100.0, 0.0), of(399_999, 100.0, 0.0), of(3_200_000, 40_000.0, 0.0)], [64, 1, 8]);
        // 32 cycles in each of 64, 32, ... 8 segments.
        assert_eq!(
            [of(3_200_000, 100.0, 1562.5), of(3_200_000, 100.0, 1600.0), of(3_200_000, 100.0, 12_500.0)],
            [64, 32, 8]
        );
        // Too long for that: segments of a cycle or more, then of less.
        assert_eq!([of(3_200_000, 100.0, 100_000.0), of(3_200_000, 100.0, 400_000.0)], [32, 8]);
        assert_eq!([of(3_200_000, 100.0, 400_001.0), of(3_200_000, 100.0, 1e9)], [64, 64]);
        // As many as there are queries for, of twice the warm-up.
        assert_eq!([of(64_000, 100.0, 1e9), of(20_000, 100.0, 1e9), of(64_000, 2000.0, 1e9)], [64, 20, 16]);
        assert_eq!([of(8000, 100.0, 1e9), of(7999, 100.0, 1e9), of(8000, 2000.0, 1e9)], [8, 1, 8]);
    }
}

//! Highest load of a described system that keeps its promises: every probe sees the same queries (common random numbers).
//!
//! Timers and interference can make a verdict come and go with the load, so a coarse grid is looked at first, and the
//! *last* step from kept to broken on it is narrowed down. Longer and longer runs follow, each only around what the one
//! before left open, until the uncertainty of the percentile, divided by its slope, is small enough in the load.

use crate::control::Control;
use crate::error::{Error, Result};
use crate::queue::law::Law;
use crate::queue::network::Network;
use crate::queue::percentile;
use crate::queue::run::{self, Engine, GROWTH_LIMIT, Job, Order, Report};
use crate::queue::source::{Process, Source};

/// Points of the coarse grid.
const GRID: usize = 16;
/// Queries of the shortest runs, and how many of them must lie beyond a percentile.
const LEAST_QUERIES: f64 = 65_536.0;
const LEAST_TAIL: f64 = 200.0;
/// Largest step of length from one round to the next.
const MAX_GROWTH: f64 = 64.0;
/// Probes of one round: each at least halves what is open.
const MAX_PROBES: usize = 24;
/// Below this share of the bound a system is said to carry nothing.
const LEAST_SHARE: f64 = 1e-3;

/// What is asked.
#[derive(Debug, Clone)]
pub struct Question {
    /// Percentiles (as shares) and the seconds that they must not exceed.
    pub targets: Vec<(f64, f64)>,
    /// Highest utilisation of any station.
    pub cap: f64,
    /// Relative half-width of the answer's 95 % interval that is aimed at.
    pub precision: f64,
    /// Most queries of a run.
    pub max_queries: u64,
    /// Most queries refused or dropped, as a share.
    pub loss: f64,
}

/// What keeps the load from being higher.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    Target(usize),
    /// Even a query alone misses the target.
    Unloaded(usize),
    UtilisationCap,
    Backlog,
    Loss,
}

impl Limit {
    /// Name, and which target.
    pub fn name(self) -> (&'static str, Option<usize>) {
        match self {
            Self::Target(i) => ("sla", Some(i)),
            Self::Unloaded(i) => ("unloaded latency", Some(i)),
            Self::UtilisationCap => ("utilisation cap", None),
            Self::Backlog => ("growing backlog", None),
            Self::Loss => ("loss", None),
        }
    }
}

/// The answer.
#[derive(Debug)]
pub struct Answer {
    /// 0 if no load keeps the targets.
    pub qps: f64,
    /// 95 % interval of the load at which the first target breaks.
    pub low_qps: f64,
    pub high_qps: f64,
    pub limit: Limit,
    /// The cap times the load at which the busiest station never rests; and that load.
    pub bound_qps: f64,
    pub collapse_qps: f64,
    pub unloaded_s: Vec<f64>,
    /// The run at `qps`; none if that is 0.
    pub report: Option<Report>,
    pub probes: u64,
    pub simulated_queries: u64,
}

/// One probe: the largest ratio of a percentile to its target, and what is broken.
struct Probe {
    ratio: f64,
    /// Half-width of that ratio.
    half_width: f64,
    broken: Option<Limit>,
    report: Report,
}

struct Search<'a> {
    network: &'a Network,
    source: &'a Source<'a>,
    question: &'a Question,
    order: Order,
    bound_qps: f64,
    threads: usize,
    control: &'a Control,
    probes: u64,
    simulated_queries: u64,
}

/// Find the highest load.
pub fn find(
    network: &Network,
    source: &Source<'_>,
    question: &Question,
    engine: Engine,
    threads: usize,
    control: &Control,
) -> Result<Answer> {
    check(question)?;
    if source.parts().is_some() {
        return Err(Error::invalid("source", "is a trace, which has one rate; its rate_scale may be varied"));
    }
    let sizes = source.sizes();
    network.check_sizes(sizes.last().map_or(1, |(size, _)| *size))?;
    let collapse_qps = network.capacities(&sizes).into_iter().fold(f64::INFINITY, f64::min);
    let bound_qps = question.cap * collapse_qps;
    let ps: Vec<f64> = question.targets.iter().map(|target| target.0).collect();
    let order = Order {
        queries: 0,
        warmup: None,
        segments: None,
        percentiles: ps,
        engine,
        keep: false,
        waits: false,
        isa: None,
    };
    let unloaded_s = unloaded(network, source, &order, collapse_qps, threads, control)?;
    let mut search =
        Search { network, source, question, order, bound_qps, threads, control, probes: 0, simulated_queries: 0 };
    let mut answer = Answer {
        qps: 0.0,
        low_qps: 0.0,
        high_qps: 0.0,
        limit: Limit::UtilisationCap,
        bound_qps,
        collapse_qps,
        unloaded_s,
        report: None,
        probes: 0,
        simulated_queries: 0,
    };
    let missed = answer.unloaded_s.iter().zip(&question.targets).position(|(latency, target)| latency > &target.1);
    if let Some(target) = missed {
        answer.limit = Limit::Unloaded(target);
        return Ok(answer);
    }
    search.run(&mut answer)?;
    (answer.probes, answer.simulated_queries) = (search.probes, search.simulated_queries);
    Ok(answer)
}

fn check(question: &Question) -> Result<()> {
    if question.targets.is_empty() {
        return Err(Error::invalid("targets", "is empty; at least one (percentile, seconds) is needed"));
    }
    for (i, &(p, seconds)) in question.targets.iter().enumerate() {
        percentile::check(&format!("targets[{i}].percentile"), p)?;
        if !(seconds > 0.0 && seconds.is_finite()) {
            let message = format!("is {seconds}; must be finite and above 0");
            return Err(Error::invalid(format!("targets[{i}].seconds"), message));
        }
        if LEAST_TAIL / (1.0 - p) > question.max_queries as f64 {
            let needed = (LEAST_TAIL / (1.0 - p)).ceil();
            let message = format!("is {}; this percentile needs at least {needed}", question.max_queries);
            return Err(Error::invalid("max_queries", message));
        }
    }
    if question.max_queries > run::MAX_QUERIES {
        let message = format!("is {}; allowed are up to {}", question.max_queries, run::MAX_QUERIES);
        return Err(Error::invalid("max_queries", message));
    }
    if !(question.cap >= 1e-3 && question.cap < 1.0) {
        return Err(Error::invalid("cap", format!("is {}; allowed is 0.001 <= cap < 1", question.cap)));
    }
    if !(question.precision >= 1e-5 && question.precision <= 0.5) {
        return Err(Error::invalid("precision", format!("is {}; allowed are 1e-5 to 0.5", question.precision)));
    }
    if !(0.0..1.0).contains(&question.loss) {
        return Err(Error::invalid("loss", format!("is {}; allowed is 0 <= loss < 1", question.loss)));
    }
    Ok(())
}

/// Percentiles of queries so far apart that none meets another.
pub fn unloaded(
    network: &Network,
    source: &Source<'_>,
    order: &Order,
    collapse_qps: f64,
    threads: usize,
    control: &Control,
) -> Result<Vec<f64>> {
    let tail = order.percentiles.iter().map(|p| LEAST_TAIL / (1.0 - p)).fold(0.0, f64::max);
    let order =
        Order { queries: tail.clamp(16_384.0, 1e7) as u64, segments: Some(1), warmup: Some(0), ..order.clone() };
    let alone = source.with_process(Process::Renewal(Law::Deterministic));
    let qps = Some((1e-4 * collapse_qps).clamp(1e-9, 1e9));
    let job = Job { network, source: &alone, qps, order: &order };
    let report = run::simulate(&job, threads, control)?;
    Ok(report.percentiles.iter().map(|estimate| estimate.value).collect())
}

impl Search<'_> {
    /// Runs at several loads on `queries` queries.
    fn probe(&mut self, loads: &[f64], queries: u64) -> Result<Vec<Probe>> {
        self.order.queries = queries;
        (self.order.segments, self.order.warmup) = (None, None);
        let (segments, warmup) = run::rule(self.network, self.source, self.bound_qps, &self.order)?;
        (self.order.segments, self.order.warmup) = (Some(segments), Some(warmup));
        let (network, source, order) = (self.network, self.source, &self.order);
        let jobs: Vec<_> = loads.iter().map(|qps| Job { network, source, qps: Some(*qps), order }).collect();
        let reports = run::sweep(&jobs, self.threads, self.control)?;
        self.probes += loads.len() as u64;
        self.simulated_queries += reports.iter().map(|report| report.queries).sum::<u64>();
        Ok(reports.into_iter().map(|report| self.judge(report)).collect())
    }

    fn probe_one(&mut self, qps: f64, queries: u64) -> Result<Probe> {
        let mut probes = self.probe(&[qps], queries)?;
        probes.pop().ok_or_else(|| Error::Internal("a run without a report".to_owned()))
    }

    fn judge(&self, report: Report) -> Probe {
        let mut probe = Probe { ratio: 0.0, half_width: 0.0, broken: None, report };
        for (i, (estimate, target)) in probe.report.percentiles.iter().zip(&self.question.targets).enumerate() {
            let ratio = estimate.value / target.1;
            // A percentile that cannot be given is one of too few queries: most of them were lost.
            if ratio > probe.ratio || ratio.is_nan() {
                (probe.ratio, probe.half_width) = (ratio, estimate.half_width / target.1);
                probe.broken = (ratio > 1.0 || ratio.is_nan()).then_some(Limit::Target(i));
            }
        }
        let report = &probe.report;
        let lost = (report.refused + report.dropped) as f64;
        if report.growth > GROWTH_LIMIT {
            probe.broken = Some(Limit::Backlog);
        } else if lost > self.question.loss * (lost + report.counted as f64) {
            probe.broken = Some(Limit::Loss);
        }
        probe
    }

    fn run(&mut self, answer: &mut Answer) -> Result<()> {
        let tail = self.question.targets.iter().map(|target| LEAST_TAIL / (1.0 - target.0)).fold(0.0, f64::max);
        let most = self.question.max_queries;
        let mut queries = (LEAST_QUERIES.max(tail) as u64).min(most);
        let bound = self.bound_qps;
        let grid: Vec<f64> = (1..=GRID).map(|i| bound * i as f64 / GRID as f64).collect();
        let seen = self.probe(&grid, queries)?;
        // The open stretch: what is kept at its lower end and broken at its upper.
        let (mut low, mut high) = match seen.iter().rposition(|probe| probe.broken.is_none()) {
            None => (0.0, grid[0]),
            Some(last) => (grid[last], grid.get(last + 1).copied().unwrap_or(bound)),
        };
        loop {
            let open = self.narrow(low, high, queries)?;
            let Some(open) = open else {
                answer.limit = self.probe_one(LEAST_SHARE * bound, queries)?.broken.unwrap_or(Limit::Backlog);
                return Ok(());
            };
            let qps = open.qps;
            let uncertainty = if open.limit == Limit::UtilisationCap { 0.0 } else { open.half_width_qps / qps };
            let last = queries >= most || uncertainty <= self.question.precision;
            if last {
                answer.qps = qps;
                answer.limit = open.limit;
                let width = if open.limit == Limit::UtilisationCap { 0.0 } else { open.half_width_qps };
                (answer.low_qps, answer.high_qps) = (qps - width, (qps + width).min(self.bound_qps));
                answer.report = Some(open.report);
                return Ok(());
            }
            let more = (1.2 * (uncertainty / self.question.precision).powi(2)).clamp(2.0, MAX_GROWTH);
            let more = if more.is_finite() { more } else { MAX_GROWTH };
            queries = ((queries as f64 * more) as u64).min(most);
            // What a longer run may find lies within twice the uncertainty of this one.
            let reach = if uncertainty.is_finite() { (2.0 * uncertainty).clamp(0.002, 0.2) } else { 0.2 };
            (low, high) = (qps * (1.0 - reach), (qps * (1.0 + reach)).min(bound));
        }
    }

    /// The load within low..=high where the targets break on runs of `queries` queries; `None` if none keeps them.
    /// The ends are looked at again, for they may stem from other runs, and moved if they do not hold.
    fn narrow(&mut self, low: f64, high: f64, queries: u64) -> Result<Option<Open>> {
        let bound = self.bound_qps;
        let (mut low, mut high) = (low, high);
        let mut kept: Option<(f64, Probe)> = None;
        let mut broken: Option<(f64, Probe)> = None;
        let tolerance = 0.2 * self.question.precision;
        let mut step = (high - low).max(1e-6 * bound);
        for _ in 0..MAX_PROBES {
            let next = match (&kept, &broken) {
                (None, None) => high,
                (Some((at, _)), None) => {
                    if *at >= bound {
                        let report = self.probe_one(bound, queries)?.report;
                        return Ok(Some(Open {
                            qps: bound,
                            half_width_qps: f64::NAN,
                            limit: Limit::UtilisationCap,
                            report,
                        }));
                    }
                    step *= 2.0;
                    (at + step).min(bound)
                }
                (None, Some((at, _))) => {
                    if *at < LEAST_SHARE * bound {
                        return Ok(None);
                    }
                    let next = if low < *at { low } else { at - step };
                    step *= 2.0;
                    if next <= 0.0 { 0.5 * at } else { next }
                }
                (Some((a, kept)), Some((b, broken))) => {
                    if b - a <= tolerance * b {
                        break;
                    }
                    between(*a, kept.ratio, *b, broken.ratio, broken.broken)
                }
            };
            let probe = self.probe_one(next, queries)?;
            if probe.broken.is_some() {
                high = next;
                broken = Some((next, probe));
                if kept.as_ref().is_some_and(|(at, _)| *at >= high) {
                    kept = None;
                }
            } else {
                low = next;
                kept = Some((next, probe));
                if broken.as_ref().is_some_and(|(at, _)| *at <= low) {
                    broken = None;
                }
            }
        }
        let (Some((qps, kept)), Some((upper, broken))) = (kept, broken) else { return Ok(None) };
        // The slope by a step that the run resolves: the last bracket may be as narrow as rounding.
        let slope = self.slope(qps, &kept, queries)?;
        let limit = broken.broken.unwrap_or(Limit::UtilisationCap);
        // Without an interval (too few queries for one) everything is open.
        let spread = if kept.half_width.is_nan() { f64::INFINITY } else { kept.half_width / slope };
        let half_width_qps = f64::max(upper - qps, spread);
        Ok(Some(Open { qps, half_width_qps, limit, report: kept.report }))
    }

    /// Growth of the ratio with the load just below `qps`.
    fn slope(&mut self, qps: f64, at: &Probe, queries: u64) -> Result<f64> {
        let step = 0.01;
        let below = self.probe_one(qps * (1.0 - step), queries)?;
        Ok(f64::max((at.ratio - below.ratio) / (step * qps), f64::MIN_POSITIVE))
    }
}

/// What a round found.
struct Open {
    qps: f64,
    half_width_qps: f64,
    limit: Limit,
    report: Report,
}

/// Where the ratio crosses 1 if its logarithm is a straight line, kept away from the ends; the middle where it is not.
fn between(a: f64, ratio_a: f64, b: f64, ratio_b: f64, broken: Option<Limit>) -> f64 {
    let middle = 0.5 * (a + b);
    if !matches!(broken, Some(Limit::Target(_))) || !(ratio_a > 0.0 && ratio_b > 1.0 && ratio_b.is_finite()) {
        return middle;
    }
    let share = -crate::rng::ln(ratio_a) / (crate::rng::ln(ratio_b) - crate::rng::ln(ratio_a));
    a + (b - a) * if share.is_finite() { share.clamp(0.02, 0.98) } else { 0.5 }
}

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
use crate::queue::run::{self, Engine, Job, Order, Report, Sweep};
use crate::queue::source::{Process, Source};
use crate::queue::table::Unit;
use crate::rng::ln;

/// Points of the coarse grid.
const GRID: usize = 16;
/// Queries of the shortest runs, and how many of them must lie beyond a percentile.
const LEAST_QUERIES: f64 = 65_536.0;
const LEAST_TAIL: f64 = 200.0;
/// Largest step of length from one round to the next.
const MAX_GROWTH: f64 = 64.0;
/// Probes of one round.
const MAX_PROBES: usize = 40;
/// First guess of d ln share / d ln load where a target breaks.
const STEEPNESS: f64 = 5.0;
/// A crossing is believed within this many tolerances of a load that is broken.
const BRACKET: f64 = 4.0;
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

/// One probe: what is used of what the promises allow, the most of all, and what is broken.
struct Probe {
    ratio: f64,
    /// Half-width of that ratio; NaN where the run is too short for one.
    half_width: f64,
    /// The promise that it belongs to.
    worst: Limit,
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
        limits_s: question.targets.iter().map(|target| target.1).collect(),
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
    // A device that waits for company may be quicker when there is some.
    let may_help = network.stations().any(|station| station.unit == Unit::Fused && station.limits.max_wait_s > 0.0);
    if missed.is_none() || may_help {
        search.run(&mut answer)?;
    }
    if answer.qps == 0.0
        && let Some(target) = missed
    {
        answer.limit = Limit::Unloaded(target);
    }
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
fn unloaded(
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
        let reports = Sweep::new(&jobs)?.run(self.threads, self.control)?;
        self.probes += loads.len() as u64;
        self.simulated_queries += reports.iter().map(|report| report.queries).sum::<u64>();
        Ok(reports.into_iter().map(|report| self.judge(report)).collect())
    }

    fn probe_one(&mut self, qps: f64, queries: u64) -> Result<Probe> {
        let mut probes = self.probe(&[qps], queries)?;
        probes.pop().ok_or_else(|| Error::Internal("a run without a report".to_owned()))
    }

    fn judge(&self, report: Report) -> Probe {
        let mut probe = Probe { ratio: 0.0, half_width: 0.0, worst: Limit::UtilisationCap, broken: None, report };
        let late = probe.report.above.iter().zip(&self.question.targets).enumerate();
        let late = late.map(|(i, (above, target))| (Limit::Target(i), above.value, above.half_width, 1.0 - target.0));
        let lost = &probe.report.lost;
        let lost = (Limit::Loss, lost.value, lost.half_width, self.question.loss);
        for (limit, share, half_width, allowed) in late.chain([lost]) {
            let ratio = if share == 0.0 { 0.0 } else { share / allowed };
            // No share at all: everybody was lost.
            if ratio > probe.ratio || ratio.is_nan() || probe.worst == Limit::UtilisationCap {
                (probe.ratio, probe.half_width, probe.worst) = (ratio, half_width / allowed, limit);
            }
        }
        if probe.report.falls_behind {
            probe.broken = Some(Limit::Backlog);
        } else if probe.ratio > 1.0 || probe.ratio.is_nan() {
            probe.broken = Some(probe.worst);
        }
        probe
    }

    fn run(&mut self, answer: &mut Answer) -> Result<()> {
        let tail = self.question.targets.iter().map(|target| LEAST_TAIL / (1.0 - target.0)).fold(0.0, f64::max);
        let most = self.question.max_queries;
        let mut queries = (LEAST_QUERIES.max(tail) as u64).min(most);
        let bound = self.bound_qps;
        let grid: Vec<f64> = (1..=GRID).map(|i| bound * i as f64 / GRID as f64).collect();
        let mut seen: Vec<(f64, Probe)> = grid.iter().copied().zip(self.probe(&grid, queries)?).collect();
        // The last step from kept to broken.
        let last = seen.iter().rposition(|(_, probe)| probe.broken.is_none());
        let mut round = Round::new(last.map_or(0.0, |last| seen[last].0), STEEPNESS);
        let from = last.unwrap_or(0);
        for (qps, probe) in seen.drain(from..).take(if last.is_some() { 2 } else { 1 }).rev() {
            round.add(qps, probe);
        }
        loop {
            // Short runs say little: no need to be more exact about what they find.
            let tolerance = if queries < most { self.question.precision } else { 0.1 * self.question.precision };
            let Some(mut open) = self.narrow(round, tolerance, queries)? else {
                answer.limit = self.probe_one(LEAST_SHARE * bound, queries)?.broken.unwrap_or(Limit::Backlog);
                return Ok(());
            };
            if open.uncertainty <= self.question.precision || queries >= most {
                if open.qps < bound {
                    let mut again = Round::new(open.qps, open.steepness);
                    again.add(open.qps, open.probe);
                    let Some(exact) = self.narrow(again, 0.1 * self.question.precision, queries)? else {
                        // A lower load is broken on the way: nothing is kept for sure.
                        answer.limit = open.limit;
                        return Ok(());
                    };
                    open = exact;
                }
                (answer.qps, answer.limit) = (open.qps, open.limit);
                (answer.low_qps, answer.high_qps) =
                    (open.qps * (1.0 - open.uncertainty), (open.qps * (1.0 + open.uncertainty)).min(bound));
                answer.report = Some(open.probe.report);
                return Ok(());
            }
            let more = 1.2 * (open.uncertainty / self.question.precision).powi(2);
            let more = if more.is_finite() { more.clamp(2.0, MAX_GROWTH) } else { MAX_GROWTH };
            queries = ((queries as f64 * more) as u64).min(most);
            round = Round::new(open.qps, open.steepness);
        }
    }

    /// The load where the targets break on runs of `queries` queries, within a relative `tolerance` below; `None` if no
    /// load keeps them.
    fn narrow(&mut self, mut round: Round, tolerance: f64, queries: u64) -> Result<Option<Open>> {
        for _ in 0..MAX_PROBES {
            if let Some(limit) = round.is_over(tolerance, self.bound_qps) {
                return Ok(self.found(round, limit, tolerance));
            }
            let next = round.next(tolerance, self.bound_qps);
            if next < LEAST_SHARE * self.bound_qps {
                return Ok(None);
            }
            let probe = self.probe_one(next, queries)?;
            round.add(next, probe);
        }
        // Not as near as was asked for: what is open is what lies between.
        let (width, limit) = match (&round.kept, &round.broken) {
            (Some((low, _)), Some((high, broken))) => (high / low - 1.0, broken.broken),
            _ => (f64::INFINITY, None),
        };
        Ok(self.found(round, limit.unwrap_or(Limit::Backlog), width.max(tolerance)))
    }

    /// The load that a round keeps and how sure it is; the crossing lies within a relative `width` above.
    fn found(&self, round: Round, limit: Limit, width: f64) -> Option<Open> {
        let (qps, probe) = round.kept?;
        let relative = probe.half_width / probe.ratio / round.steepness;
        // How far above the promises would break, if they do: at the cap they may never.
        let distance = -ln(probe.ratio) / round.steepness;
        let uncertainty = match limit {
            // Too few queries for an interval: everything is open.
            _ if probe.report.counted < probe.report.interval_queries => f64::INFINITY,
            Limit::UtilisationCap if probe.ratio == 0.0 || distance >= 2.0 * relative => 0.0,
            // The backlog grows, or nothing may be lost: there is no share to be unsure of.
            Limit::Backlog => width,
            Limit::Loss if self.question.loss == 0.0 => width,
            _ if relative.is_nan() => f64::INFINITY,
            _ => relative.max(width),
        };
        Some(Open { qps, probe, limit, uncertainty, steepness: round.steepness })
    }
}

/// What the probes of one length of run have shown.
struct Round {
    /// Where to begin.
    guess: f64,
    kept: Option<(f64, Probe)>,
    broken: Option<(f64, Probe)>,
    /// Load and ratio of the latest probe.
    latest: Option<(f64, f64)>,
    /// d ln ratio / d ln load where it crosses 1.
    steepness: f64,
    /// Relative step without a better idea.
    step: f64,
}

impl Round {
    fn new(guess: f64, steepness: f64) -> Self {
        Self { guess, kept: None, broken: None, latest: None, steepness, step: 0.01 }
    }

    fn add(&mut self, qps: f64, probe: Probe) {
        if let Some((before, ratio)) = self.latest {
            let rise = (ln(probe.ratio) - ln(ratio)) / (qps / before - 1.0);
            // Steps that the run does not resolve say nothing of the slope.
            if (qps / before - 1.0).abs() >= 1e-4 && rise.is_finite() {
                self.steepness = rise.clamp(0.1, 1e4);
            }
        }
        self.latest = Some((qps, probe.ratio));
        if probe.broken.is_some() {
            if self.kept.as_ref().is_some_and(|kept| kept.0 >= qps) {
                self.kept = None;
            }
            self.broken = Some((qps, probe));
        } else {
            if self.broken.as_ref().is_some_and(|broken| broken.0 <= qps) {
                self.broken = None;
            }
            self.kept = Some((qps, probe));
        }
    }

    /// What limits the load, once that is known well enough.
    fn is_over(&self, tolerance: f64, bound_qps: f64) -> Option<Limit> {
        let (qps, probe) = self.kept.as_ref()?;
        if *qps >= bound_qps {
            return Some(Limit::UtilisationCap);
        }
        let by = self.broken.as_ref().and_then(|broken| broken.1.broken);
        if let (Some((upper, _)), Some(by)) = (&self.broken, by)
            && upper - qps <= tolerance * upper
        {
            return Some(by);
        }
        // Next to the crossing by the slope, with a broken load not far above: the slope may be that of a plateau.
        let (upper, _) = self.broken.as_ref()?;
        by.filter(|_| self.is_near(probe, tolerance) && upper - qps <= BRACKET * tolerance * upper)
    }

    /// Whether the slope puts the crossing within the tolerance.
    fn is_near(&self, kept: &Probe, tolerance: f64) -> bool {
        kept.ratio > 0.0 && -ln(kept.ratio) <= tolerance * self.steepness
    }

    fn next(&mut self, tolerance: f64, bound_qps: f64) -> f64 {
        let Some((latest, ratio)) = self.latest else { return self.guess.min(bound_qps) };
        // Newton's step to a little below the crossing.
        let smooth = self.broken.as_ref().is_none_or(|broken| broken.1.broken != Some(Limit::Backlog));
        let to_root = -ln(ratio) / self.steepness;
        let newton = latest * (1.0 + to_root.clamp(-0.1, 0.1) - 0.5 * tolerance);
        let newton = (smooth && newton.is_finite()).then_some(newton);
        match (&self.kept, &self.broken) {
            (Some((low, kept)), Some((high, _))) => {
                let (low, high) = (*low, *high);
                let close = low * (1.0 + 0.5 * BRACKET * tolerance);
                if self.is_near(kept, tolerance) && close < high {
                    return close;
                }
                newton.filter(|next| *next > low && *next < high).unwrap_or(0.5 * (low + high))
            }
            (Some((low, kept)), None) => {
                if self.is_near(kept, tolerance) && self.step < 0.02 {
                    self.step *= 2.0;
                    return (low * (1.0 + 0.5 * BRACKET * tolerance)).min(bound_qps);
                }
                self.step *= 2.0;
                let next = newton.filter(|next| *next > *low).unwrap_or(low * (1.0 + self.step));
                next.min(bound_qps)
            }
            (None, Some((high, _))) => {
                self.step *= 2.0;
                newton.filter(|next| *next < *high).unwrap_or(high * f64::max(0.5, 1.0 - self.step))
            }
            (None, None) => self.guess.min(bound_qps),
        }
    }
}

/// What a round found: the highest load that keeps the targets, with the probe there.
struct Open {
    qps: f64,
    probe: Probe,
    limit: Limit,
    /// Relative half-width of the load's 95 % interval.
    uncertainty: f64,
    steepness: f64,
}

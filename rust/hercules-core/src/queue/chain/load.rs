//! Highest load that meets latency targets, on fixed runs of queries (common random numbers).

use crate::control::Control;
use crate::error::{Error, Result};
use crate::queue::chain::input::MAX_QUERIES;
use crate::queue::chain::{Allowance, Detail, Ended, Input, Scratch, Split, StageUse, System, Traffic, Watch};
use crate::queue::percentile;
use crate::queue::table::Unit;

/// A percentile and the latency that it must not exceed.
pub type Target = (f64, f64);

/// A run whose latency grows by more than this share of elapsed time falls behind its arrivals.
pub const BACKLOG_GROWTH_LIMIT: f64 = 0.05;

/// Order statistics that must lie above a percentile before it means anything.
const TAIL_SAMPLES: f64 = 10.0;

/// Below this share of its bound a system is said to carry nothing: the search for a rate must end somewhere.
const LEAST_SHARE: f64 = 1e-3;

/// Lowest cap of the utilisation that may be asked for.
const LEAST_CAP: f64 = 1e-3;

/// What "meets the targets" means, and how hard to look.
#[derive(Debug, Clone)]
pub struct Rules {
    pub targets: Vec<Target>,
    /// Queries per run.
    pub queries: usize,
    /// Queries dropped from the front.
    pub warmup: usize,
    /// Highest utilisation of any stage.
    pub cap: f64,
    /// Relative width of the final bracket of the rate.
    pub tolerance: f64,
}

impl Rules {
    /// Default warm-up: a tenth of the queries.
    pub fn warmup_of(queries: usize) -> usize {
        queries / 10
    }

    /// Late queries that the targets allow in `runs` runs together.
    pub fn allowances(&self, runs: usize) -> Vec<Allowance> {
        let counted = runs * (self.queries - self.warmup);
        self.targets.iter().map(|&target| Allowance::of(target, counted)).collect()
    }

    /// Refuse what cannot be decided, naming the field.
    pub fn check(&self) -> Result<()> {
        check_run(self.queries, self.warmup)?;
        if self.targets.is_empty() {
            return Err(Error::invalid("slas", "is empty; at least one (percentile, seconds) is needed"));
        }
        for (i, &(p, seconds)) in self.targets.iter().enumerate() {
            percentile::check(&format!("slas[{i}].percentile"), p)?;
            if !(seconds > 0.0 && seconds.is_finite()) {
                return Err(Error::invalid(
                    format!("slas[{i}].seconds"),
                    format!("is {seconds}; must be finite and above 0"),
                ));
            }
            check_tail(&format!("slas[{i}].percentile"), p, self.queries - self.warmup)?;
        }
        if !(self.cap >= LEAST_CAP && self.cap < 1.0) {
            return Err(Error::invalid("cap", format!("is {}; allowed is {LEAST_CAP} <= cap < 1", self.cap)));
        }
        if !(self.tolerance >= 1e-6 && self.tolerance <= 0.5) {
            return Err(Error::invalid("tolerance", format!("is {}; allowed are 1e-6 to 0.5", self.tolerance)));
        }
        Ok(())
    }
}

/// Refuse a run without queries after the warm-up.
pub fn check_run(queries: usize, warmup: usize) -> Result<()> {
    if queries == 0 || queries > MAX_QUERIES {
        return Err(Error::invalid("queries", format!("is {queries}; allowed are 1 to {MAX_QUERIES}")));
    }
    if warmup >= queries {
        return Err(Error::invalid("warmup", format!("is {warmup}; must be below queries = {queries}")));
    }
    Ok(())
}

/// Refuse a percentile that `counted` queries do not determine.
pub fn check_tail(field: &str, p: f64, counted: usize) -> Result<()> {
    if (counted as f64) * (1.0 - p) < TAIL_SAMPLES * (1.0 - 1e-9) {
        let needed = (TAIL_SAMPLES / (1.0 - p) - 1e-6).ceil();
        let message = format!("is {p}: {counted} queries after warm-up are too few; at least {needed} are needed");
        return Err(Error::invalid(field, message));
    }
    Ok(())
}

/// What keeps the load from being higher.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// The latency target with this index.
    Target(usize),
    UtilisationCap,
    /// The system falls behind although its bottleneck says that it should not (fused batches that do not fill).
    Backlog,
    /// More power would be drawn than there is.
    PowerBudget,
}

impl Limit {
    /// Name and, for the targets, which one.
    pub fn name(self) -> (&'static str, Option<usize>) {
        match self {
            Self::Target(i) => ("sla", Some(i)),
            Self::UtilisationCap => ("utilisation cap", None),
            Self::Backlog => ("growing backlog", None),
            Self::PowerBudget => ("power budget", None),
        }
    }
}

/// Statistics of one complete run.
#[derive(Debug, Clone)]
pub struct Summary {
    pub percentiles_s: Vec<f64>,
    pub mean_latency_s: f64,
    pub throughput_qps: f64,
    pub backlog_growth: f64,
    pub uses: Vec<StageUse>,
}

impl Summary {
    /// Read the run that `scratch` holds.
    pub fn of(system: &System, scratch: &Scratch, warmup: usize, ps: &[f64]) -> Self {
        let mut latencies = scratch.latencies(warmup);
        let mean_latency_s = latencies.iter().sum::<f64>() / latencies.len() as f64;
        Self {
            percentiles_s: percentile::percentiles(&mut latencies, ps),
            mean_latency_s,
            throughput_qps: scratch.arrival.len() as f64 / scratch.span_s(),
            backlog_growth: scratch.backlog_growth(),
            uses: system.stage_use(scratch),
        }
    }
}

/// Percentiles of a query that finds the system empty, one for each target, exact over the size law.
pub fn unloaded_percentiles(system: &System, traffic: &Traffic, targets: &[Target], scratch: &mut Scratch) -> Vec<f64> {
    let mut pairs = system.unloaded(traffic, scratch);
    targets.iter().map(|&(p, _)| percentile::weighted(&mut pairs, p)).collect()
}

/// First target that the unloaded percentiles miss.
pub fn missed_unloaded(unloaded_s: &[f64], targets: &[Target]) -> Option<usize> {
    unloaded_s.iter().zip(targets).position(|(latency, (_, limit))| latency > limit)
}

/// One system on one fixed run of queries, asked rate by rate.
#[derive(Debug)]
pub struct Prober<'a> {
    pub system: &'a System,
    input: &'a Input,
    pub rules: &'a Rules,
    control: Option<&'a Control>,
    split: Split,
    /// What its runs keep: energy costs time.
    pub detail: Detail,
    pub probes: u64,
    pub simulated_queries: u64,
}

impl<'a> Prober<'a> {
    pub fn new(system: &'a System, input: &'a Input, rules: &'a Rules, control: Option<&'a Control>) -> Result<Self> {
        let split = Split::of(system, input)?;
        Ok(Self { system, input, rules, control, split, detail: Detail::Latency, probes: 0, simulated_queries: 0 })
    }

    /// Does the system carry `qps`? `None` says yes, else what stands against it. Fails only when cancelled.
    pub fn probe(&mut self, qps: f64, scratch: &mut Scratch) -> Result<Option<Limit>> {
        let mut allowances = self.rules.allowances(1);
        if let Some(limit) = self.spend(qps, &mut allowances, scratch)? {
            return Ok(Some(limit));
        }
        Ok(self.strain(scratch).limit(self.rules.cap))
    }

    /// Run at `qps` and take the late queries off `allowances`, which several runs may share. Ends early with the target
    /// whose allowance is used up.
    pub fn spend(&mut self, qps: f64, allowances: &mut [Allowance], scratch: &mut Scratch) -> Result<Option<Limit>> {
        let mut watch = Watch::new(allowances, self.rules.warmup, self.control);
        if let Some(target) = self.run(qps, &mut watch, scratch, self.detail)? {
            return Ok(Some(Limit::Target(target)));
        }
        for (allowance, late) in allowances.iter_mut().zip(watch.late()) {
            allowance.queries -= late;
        }
        Ok(None)
    }

    /// Run at `qps` to the end, whatever the targets; the run is left in `scratch`.
    pub fn measure(&mut self, qps: f64, scratch: &mut Scratch) -> Result<()> {
        let mut watch = Watch::new(&[], self.rules.warmup, self.control);
        self.run(qps, &mut watch, scratch, self.detail).map(drop)
    }

    /// Gives the target that ended the run, if one did. Fails only when cancelled.
    fn run(&mut self, qps: f64, watch: &mut Watch<'_>, scratch: &mut Scratch, detail: Detail) -> Result<Option<usize>> {
        let ended = self.system.run(self.input, &self.split, qps, scratch, watch, detail);
        self.probes += 1;
        self.simulated_queries += watch.reached as u64;
        match ended {
            Ended::Complete => Ok(None),
            Ended::Missed(target) => Ok(Some(target)),
            Ended::Cancelled => Err(Error::Cancelled),
        }
    }

    /// What the complete run in `scratch` demanded of the system.
    pub fn strain(&self, scratch: &Scratch) -> Strain {
        let uses = self.system.stage_use(scratch);
        let pools = self.system.stations().iter().filter(|station| station.unit != Unit::Fused);
        let utilisation = pools.map(|station| uses[station.stage].utilisation).fold(0.0, f64::max);
        Strain { utilisation, backlog_growth: scratch.backlog_growth() }
    }

    /// Highest passing rate, and what limits it: [`highest`] over this prober's run.
    pub fn highest(&mut self, bracket: Bracket, scratch: &mut Scratch) -> Result<(f64, Limit)> {
        highest(bracket, |qps| self.probe(qps, scratch))
    }
}

/// What a run demanded of a system, apart from latencies.
#[derive(Debug, Clone, Copy)]
pub struct Strain {
    /// Of the busiest pool; fusing devices do not count, since they are busiest when they fuse least.
    pub utilisation: f64,
    pub backlog_growth: f64,
}

impl Strain {
    pub fn limit(self, cap: f64) -> Option<Limit> {
        if self.utilisation > cap {
            return Some(Limit::UtilisationCap);
        }
        (self.backlog_growth > BACKLOG_GROWTH_LIMIT).then_some(Limit::Backlog)
    }
}

/// Where to look for the highest rate that passes.
#[derive(Debug, Clone, Copy)]
pub struct Bracket {
    /// A rate known to pass, or 0.
    pub floor: f64,
    /// A rate to look near first, or 0.
    pub guess: f64,
    /// No rate above it passes.
    pub bound: f64,
    /// Relative width of the bracket when the search ends.
    pub tolerance: f64,
}

/// The highest rate within the bracket's tolerance that `probe` lets pass (`None`), and what stood against the lowest rate
/// that did not; 0 if nothing passes. Takes the verdict to be monotone in the rate.
pub fn highest(bracket: Bracket, mut probe: impl FnMut(f64) -> Result<Option<Limit>>) -> Result<(f64, Limit)> {
    let Bracket { floor, guess, bound, tolerance } = bracket;
    let (mut low, mut high, mut limit) = (floor, f64::INFINITY, Limit::UtilisationCap);
    // Close in from the guess in growing steps; without one, from the bound.
    let mut step = 2.0 * tolerance;
    let mut next = if guess > floor && guess < bound { guess } else { bound };
    if floor > 0.0 && guess <= floor {
        next = (floor * (1.0 + step)).min(bound);
    }
    loop {
        if let Some(reason) = probe(next)? {
            (high, limit) = (next, reason);
        } else {
            low = next;
            if next >= bound {
                return Ok((bound, Limit::UtilisationCap));
            }
        }
        if high.is_finite() && high - low <= tolerance * high {
            return Ok((low, limit));
        }
        if low == 0.0 && high < LEAST_SHARE * bound {
            return Ok((0.0, limit));
        }
        next = if high.is_infinite() {
            (low * (1.0 + step)).min(bound)
        } else {
            // Halfway, or one step below where the answer was expected.
            let below = if guess > 0.0 { high * (1.0 - step) } else { 0.0 };
            below.max(0.5 * (low + high))
        };
        step *= 2.0;
    }
}

//! What is known about each candidate, and the cheapest way to learn what the search asks.

use crate::control::Control;
use crate::error::{Error, Result};
use crate::queue::chain::load::{Bracket, Limit, Prober, missed_unloaded, unloaded_percentiles};
use crate::queue::chain::{Input, Rules, Scratch};
use crate::search::{Infeasible, Problem, Settings};
use rayon::prelude::*;
use std::ops::AddAssign;

/// Account of the work.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Candidates that were simulated under load at least once.
    pub evaluations: u64,
    /// Candidates whose highest load was determined.
    pub full_evaluations: u64,
    /// Runs of the simulator.
    pub probes: u64,
    pub simulated_queries: u64,
    /// Times a candidate was set aside because `cap` times its bottleneck does not beat the best.
    pub pruned_by_bound: u64,
    /// Times a candidate was set aside because even an empty system misses a target.
    pub pruned_by_unloaded: u64,
    /// Candidates that failed a single run at the load they had to beat.
    pub lost_race: u64,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, more: Self) {
        self.evaluations += more.evaluations;
        self.full_evaluations += more.full_evaluations;
        self.probes += more.probes;
        self.simulated_queries += more.simulated_queries;
        self.pruned_by_bound += more.pruned_by_bound;
        self.pruned_by_unloaded += more.pruned_by_unloaded;
        self.lost_race += more.lost_race;
    }
}

/// Most candidates looked at side by side. Fixed, so that what a search finds does not depend on its threads.
pub const LANES: usize = 4;

/// Knowledge of one candidate on the search's run of queries.
#[derive(Debug, Clone)]
struct Known {
    bound_qps: f64,
    unloaded_s: Option<Vec<f64>>,
    /// Highest rate seen to pass, lowest seen to fail.
    passes: f64,
    fails: f64,
    probed: bool,
    bisected: bool,
}

impl Known {
    /// What follows about `qps` without a run, of latencies in the empty system nothing.
    fn settles(&self, qps: f64) -> Option<bool> {
        if qps > self.bound_qps || self.fails <= qps {
            Some(false)
        } else if self.passes >= qps {
            Some(true)
        } else {
            None
        }
    }
}

/// What candidates are judged by.
struct Bench<'a> {
    problem: &'a Problem,
    rules: Rules,
    input: Input,
    control: &'a Control,
}

/// Working memory and account of one candidate at a time.
#[derive(Default)]
struct Lane {
    scratch: Scratch,
    counts: Counts,
}

impl Bench<'_> {
    fn poll(&self) -> Result<()> {
        if self.control.cancelled() { Err(Error::Cancelled) } else { Ok(()) }
    }

    fn bound_qps(&self, candidate: usize) -> f64 {
        self.rules.cap * self.problem.system(candidate).bottleneck_qps(&self.problem.traffic)
    }

    /// Percentiles of a query alone in the system, one for each target.
    fn unloaded_s<'k>(&self, candidate: usize, known: &'k mut Known, lane: &mut Lane) -> Result<&'k [f64]> {
        self.poll()?;
        Ok(known.unloaded_s.get_or_insert_with(|| {
            let (problem, system) = (self.problem, self.problem.system(candidate));
            unloaded_percentiles(&system, &problem.traffic, &problem.targets, &mut lane.scratch)
        }))
    }

    fn misses_unloaded(&self, candidate: usize, known: &mut Known, lane: &mut Lane) -> Result<bool> {
        let misses = missed_unloaded(self.unloaded_s(candidate, known, lane)?, &self.problem.targets).is_some();
        lane.counts.pruned_by_unloaded += u64::from(misses);
        Ok(misses)
    }

    fn carries(&self, candidate: usize, qps: f64, known: &mut Known, lane: &mut Lane) -> Result<bool> {
        self.poll()?;
        let passes = if let Some(passes) = known.settles(qps) {
            lane.counts.pruned_by_bound += u64::from(qps > known.bound_qps);
            passes
        } else {
            let against = self.with_prober(candidate, known, lane, |prober, scratch| prober.probe(qps, scratch))?;
            let passes = against.is_none();
            *(if passes { &mut known.passes } else { &mut known.fails }) = qps;
            lane.counts.lost_race += u64::from(!passes);
            passes
        };
        // Rare, and dearer than a lost race, hence last: a load may pass where the empty system does not (waiting for
        // company is shorter when there is more of it). Such a candidate is not feasible.
        Ok(passes && !self.misses_unloaded(candidate, known, lane)?)
    }

    fn rate(&self, candidate: usize, guess: f64, tolerance: f64, known: &mut Known, lane: &mut Lane) -> Result<f64> {
        if self.misses_unloaded(candidate, known, lane)? {
            return Ok(0.0);
        }
        if known.passes >= known.bound_qps || (known.bisected && known.fails - known.passes <= tolerance * known.fails)
        {
            return Ok(known.passes);
        }
        // What was bisected before is looked at again close above what passed.
        let guess = if known.bisected { 0.0 } else { guess };
        let bracket = Bracket { floor: known.passes, guess, bound: known.bound_qps, tolerance };
        let (qps, limit) =
            self.with_prober(candidate, known, lane, |prober, scratch| prober.highest(bracket, scratch))?;
        known.passes = qps;
        known.fails = if limit == Limit::UtilisationCap && qps >= known.bound_qps {
            f64::INFINITY
        } else {
            qps * (1.0 + tolerance)
        };
        lane.counts.full_evaluations += u64::from(!known.bisected);
        known.bisected = true;
        Ok(qps)
    }

    fn with_prober<R>(
        &self,
        candidate: usize,
        known: &mut Known,
        lane: &mut Lane,
        ask: impl FnOnce(&mut Prober<'_>, &mut Scratch) -> Result<R>,
    ) -> Result<R> {
        lane.counts.evaluations += u64::from(!known.probed);
        known.probed = true;
        let system = self.problem.system(candidate);
        let mut prober = Prober::new(&system, &self.input, &self.rules, Some(self.control))?;
        let answer = ask(&mut prober, &mut lane.scratch);
        lane.counts.probes += prober.probes;
        lane.counts.simulated_queries += prober.simulated_queries;
        answer
    }
}

pub struct Evaluator<'a> {
    pub problem: &'a Problem,
    pub counts: Counts,
    bench: Bench<'a>,
    lanes: [Lane; LANES],
    known: Vec<Option<Known>>,
    /// Load of the candidate that was measured last, as a share of its bound; 0 before the first.
    last_share: f64,
    /// Most candidates that may be simulated under load.
    allowed: u64,
}

impl<'a> Evaluator<'a> {
    pub fn new(problem: &'a Problem, settings: &Settings, control: &'a Control) -> Result<Self> {
        let rules = settings.rules(&problem.targets, settings.queries);
        let input = Input::draw(&problem.traffic, settings.queries, 0, Some(control))?;
        Ok(Self {
            problem,
            counts: Counts::default(),
            bench: Bench { problem, rules, input, control },
            lanes: Default::default(),
            known: vec![None; problem.candidates()],
            last_share: 0.0,
            allowed: settings.evaluations.unwrap_or(u64::MAX),
        })
    }

    fn known(&mut self, candidate: usize) -> &mut Known {
        let bench = &self.bench;
        self.known[candidate].get_or_insert_with(|| Known {
            bound_qps: bench.bound_qps(candidate),
            unloaded_s: None,
            passes: 0.0,
            fails: f64::INFINITY,
            probed: false,
            bisected: false,
        })
    }

    /// Do `work` for up to [`LANES`] different candidates side by side.
    fn side_by_side<R: Send>(
        &mut self,
        candidates: &[usize],
        work: impl Fn(&Bench<'a>, usize, &mut Known, &mut Lane) -> Result<R> + Sync,
    ) -> Result<Vec<R>> {
        let mut knowledge: Vec<Known> = candidates
            .iter()
            .map(|&candidate| {
                self.known(candidate);
                self.known[candidate].take().expect("just made, and the candidates differ")
            })
            .collect();
        let bench = &self.bench;
        let places = candidates.par_iter().with_max_len(1).zip(&mut knowledge).zip(&mut self.lanes[..candidates.len()]);
        let found: Vec<_> = places.map(|((&candidate, known), lane)| work(bench, candidate, known, lane)).collect();
        for (&candidate, known) in candidates.iter().zip(knowledge) {
            self.known[candidate] = Some(known);
        }
        for lane in &mut self.lanes {
            self.counts += std::mem::take(&mut lane.counts);
        }
        found.into_iter().collect()
    }

    fn one<R: Send>(
        &mut self,
        candidate: usize,
        work: impl Fn(&Bench<'a>, usize, &mut Known, &mut Lane) -> Result<R> + Sync,
    ) -> Result<R> {
        self.side_by_side(&[candidate], work).map(|mut found| found.pop().expect("one for one"))
    }

    /// No load of this candidate can be higher.
    pub fn bound_qps(&mut self, candidate: usize) -> f64 {
        self.known(candidate).bound_qps
    }

    /// Was it simulated under load?
    pub fn is_tried(&self, candidate: usize) -> bool {
        self.known[candidate].as_ref().is_some_and(|known| known.probed)
    }

    /// Is it open, without another run, whether it carries `qps`?
    pub fn may_carry(&mut self, candidate: usize, qps: f64) -> bool {
        let known = self.known(candidate);
        qps <= known.bound_qps && qps < known.fails
    }

    /// Those of `candidates` that may be simulated: tried ones, and new ones as far as evaluations are left.
    fn affordable(&self, candidates: &[usize]) -> Vec<usize> {
        let mut left = self.allowed - self.counts.evaluations;
        let mut may = |candidate: usize| {
            let is_new = !self.is_tried(candidate);
            let fits = !is_new || left > 0;
            left -= u64::from(is_new && fits);
            fits
        };
        candidates.iter().copied().filter(|&candidate| may(candidate)).collect()
    }

    /// May another candidate be simulated?
    pub fn is_spent(&self) -> bool {
        self.counts.evaluations >= self.allowed
    }

    /// Largest ratio of unloaded percentile to target: above 1, no load meets the targets.
    pub fn excess(&mut self, candidates: &[usize]) -> Result<Vec<f64>> {
        let mut found = Vec::with_capacity(candidates.len());
        for chunk in candidates.chunks(LANES) {
            found.extend(self.side_by_side(chunk, |bench, candidate, known, lane| {
                let unloaded = bench.unloaded_s(candidate, known, lane)?;
                let ratios = unloaded.iter().zip(&bench.problem.targets).map(|(latency, target)| latency / target.1);
                Ok(ratios.fold(0.0, f64::max))
            })?);
        }
        Ok(found)
    }

    /// Can the load be above `best_qps` at all? Costs no simulation under load.
    pub fn may_beat(&mut self, candidate: usize, best_qps: f64) -> Result<bool> {
        if self.known(candidate).bound_qps <= best_qps {
            self.counts.pruned_by_bound += 1;
            return Ok(false);
        }
        self.one(candidate, |bench, candidate, known, lane| Ok(!bench.misses_unloaded(candidate, known, lane)?))
    }

    /// Those of up to [`LANES`] candidates that carry `qps` (above 0). One run of each at that rate, given up as soon as
    /// it is lost, unless the answer follows from what is known. Candidates that lose cost no more.
    pub fn carrying(&mut self, candidates: &[usize], qps: f64) -> Result<Vec<usize>> {
        let asked = self.affordable(candidates);
        let carries =
            self.side_by_side(&asked, |bench, candidate, known, lane| bench.carries(candidate, qps, known, lane))?;
        Ok(asked.into_iter().zip(carries).filter_map(|(candidate, carries)| carries.then_some(candidate)).collect())
    }

    /// [`Evaluator::carrying`] of one.
    pub fn carries(&mut self, candidate: usize, qps: f64) -> Result<bool> {
        Ok(!self.carrying(&[candidate], qps)?.is_empty())
    }

    /// Highest load of each of up to [`LANES`] candidates within `tolerance`; 0 where even the empty system misses a
    /// target, or no evaluation is left. On candidates not probed before, the answer does not depend on what the evaluator has seen.
    pub fn rates(&mut self, candidates: &[usize], tolerance: f64) -> Result<Vec<f64>> {
        let affordable = self.affordable(candidates);
        let mut found = self
            .side_by_side(&affordable, |bench, candidate, known, lane| {
                bench.rate(candidate, 0.0, tolerance, known, lane)
            })?
            .into_iter();
        let rate = |candidate| if affordable.contains(candidate) { found.next().expect("one for each") } else { 0.0 };
        Ok(candidates.iter().map(rate).collect())
    }

    /// Highest load of one candidate as by [`Evaluator::rates`], looked for first where the last candidate's load would put
    /// this one: neighbours reach about the same share of their bounds. Cheaper, and within `tolerance` the same.
    pub fn rate_of_neighbour(&mut self, candidate: usize, tolerance: f64) -> Result<f64> {
        if self.affordable(&[candidate]).is_empty() {
            return Ok(0.0);
        }
        let guess = self.last_share * self.known(candidate).bound_qps;
        let qps =
            self.one(candidate, |bench, candidate, known, lane| bench.rate(candidate, guess, tolerance, known, lane))?;
        if qps > 0.0 {
            self.last_share = qps / self.known(candidate).bound_qps;
        }
        Ok(qps)
    }

    /// The best that can be said when nothing meets the targets.
    pub fn infeasible(&mut self) -> Result<Infeasible> {
        let targets = self.problem.targets.len();
        let mut best = Infeasible { best_unloaded_s: vec![f64::INFINITY; targets], candidates: vec![0; targets] };
        let all: Vec<usize> = (0..self.problem.candidates()).collect();
        for chunk in all.chunks(LANES) {
            let unloaded = self.side_by_side(chunk, |bench, candidate, known, lane| {
                bench.unloaded_s(candidate, known, lane).map(<[f64]>::to_vec)
            })?;
            for (&candidate, latencies) in chunk.iter().zip(unloaded) {
                for (i, latency) in latencies.into_iter().enumerate() {
                    if latency < best.best_unloaded_s[i] {
                        best.best_unloaded_s[i] = latency;
                        best.candidates[i] = candidate;
                    }
                }
            }
        }
        Ok(best)
    }
}

//! What is known about each candidate, and the cheapest way to learn what the search asks.

use crate::control::Control;
use crate::error::{Error, Result};
use crate::queue::chain::load::{Bracket, Limit, Prober, missed_unloaded, unloaded_percentiles};
use crate::queue::chain::{Input, Rules, Scratch};
use crate::search::{Infeasible, Problem, Settings};

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

pub struct Evaluator<'a> {
    pub problem: &'a Problem,
    pub counts: Counts,
    rules: Rules,
    input: Input,
    scratch: Scratch,
    control: &'a Control,
    known: Vec<Option<Known>>,
    /// Load of the candidate that was measured last, as a share of its bound; 0 before the first.
    last_share: f64,
}

impl<'a> Evaluator<'a> {
    pub fn new(problem: &'a Problem, settings: &Settings, control: &'a Control) -> Result<Self> {
        Ok(Self {
            problem,
            counts: Counts::default(),
            rules: settings.rules(&problem.targets, settings.queries),
            input: Input::draw(&problem.traffic, settings.queries, 0, Some(control))?,
            scratch: Scratch::new(),
            control,
            known: vec![None; problem.candidates()],
            last_share: 0.0,
        })
    }

    fn poll(&self) -> Result<()> {
        if self.control.cancelled() { Err(Error::Cancelled) } else { Ok(()) }
    }

    fn known(&mut self, candidate: usize) -> &mut Known {
        let (problem, cap) = (self.problem, self.rules.cap);
        self.known[candidate].get_or_insert_with(|| Known {
            bound_qps: cap * problem.system(candidate).bottleneck_qps(&problem.traffic),
            unloaded_s: None,
            passes: 0.0,
            fails: f64::INFINITY,
            probed: false,
            bisected: false,
        })
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

    /// Percentiles of a query alone in the system, one for each target.
    pub fn unloaded_s(&mut self, candidate: usize) -> Result<Vec<f64>> {
        self.poll()?;
        if self.known(candidate).unloaded_s.is_none() {
            let system = self.problem.system(candidate);
            let found = unloaded_percentiles(&system, &self.problem.traffic, &self.problem.targets, &mut self.scratch);
            self.known(candidate).unloaded_s = Some(found);
        }
        Ok(self.known(candidate).unloaded_s.clone().expect("just computed"))
    }

    /// Largest ratio of unloaded percentile to target: above 1, no load meets the targets.
    pub fn excess(&mut self, candidate: usize) -> Result<f64> {
        let unloaded = self.unloaded_s(candidate)?;
        Ok(unloaded.iter().zip(&self.problem.targets).map(|(latency, target)| latency / target.1).fold(0.0, f64::max))
    }

    fn misses_unloaded(&mut self, candidate: usize) -> Result<bool> {
        let unloaded = self.unloaded_s(candidate)?;
        let misses = missed_unloaded(&unloaded, &self.problem.targets).is_some();
        self.counts.pruned_by_unloaded += u64::from(misses);
        Ok(misses)
    }

    /// Can the load be above `best_qps` at all? Costs no simulation under load.
    pub fn may_beat(&mut self, candidate: usize, best_qps: f64) -> Result<bool> {
        if self.known(candidate).bound_qps <= best_qps {
            self.counts.pruned_by_bound += 1;
            return Ok(false);
        }
        Ok(!self.misses_unloaded(candidate)?)
    }

    /// Does the candidate carry `qps` (above 0)? One run at that rate, given up as soon as it is lost, unless the
    /// answer follows from what is known. Candidates that lose cost no more.
    pub fn carries(&mut self, candidate: usize, qps: f64) -> Result<bool> {
        self.poll()?;
        let known = self.known(candidate);
        if qps > known.bound_qps {
            self.counts.pruned_by_bound += 1;
            return Ok(false);
        }
        if known.fails <= qps {
            return Ok(false);
        }
        if known.passes < qps {
            let verdict = self.with_prober(candidate, |prober, scratch| prober.probe(qps, scratch))?;
            let known = self.known(candidate);
            if verdict.is_some() {
                known.fails = qps;
                self.counts.lost_race += 1;
                return Ok(false);
            }
            known.passes = qps;
        }
        // Rare, and dearer than a lost race, hence last: a load may pass where the empty system does not (waiting for
        // company is shorter when there is more of it). Such a candidate is not feasible.
        Ok(!self.misses_unloaded(candidate)?)
    }

    /// Highest load within `tolerance`; 0 if even the empty system misses a target. On a candidate not probed before, the
    /// answer does not depend on what the evaluator has seen.
    pub fn rate(&mut self, candidate: usize, tolerance: f64) -> Result<f64> {
        self.rate_near(candidate, 0.0, tolerance)
    }

    /// [`Evaluator::rate`] that looks first where the last candidate's load would put this one: neighbours reach about
    /// the same share of their bounds. Cheaper, and within `tolerance` the same.
    pub fn rate_of_neighbour(&mut self, candidate: usize, tolerance: f64) -> Result<f64> {
        let guess = self.last_share * self.known(candidate).bound_qps;
        self.rate_near(candidate, guess, tolerance)
    }

    fn rate_near(&mut self, candidate: usize, guess: f64, tolerance: f64) -> Result<f64> {
        if self.misses_unloaded(candidate)? {
            return Ok(0.0);
        }
        let known = self.known(candidate).clone();
        if known.passes >= known.bound_qps || (known.bisected && known.fails - known.passes <= tolerance * known.fails)
        {
            return Ok(known.passes);
        }
        // What was bisected before is looked at again close above what passed.
        let guess = if known.bisected { 0.0 } else { guess };
        let bracket = Bracket { floor: known.passes, guess, bound: known.bound_qps, tolerance };
        let (qps, limit) = self.with_prober(candidate, |prober, scratch| prober.highest(bracket, scratch))?;
        self.last_share = qps / known.bound_qps;
        let known = self.known(candidate);
        known.passes = qps;
        known.fails = if limit == Limit::UtilisationCap && qps >= known.bound_qps {
            f64::INFINITY
        } else {
            qps * (1.0 + tolerance)
        };
        self.counts.full_evaluations += u64::from(!known.bisected);
        self.known(candidate).bisected = true;
        Ok(qps)
    }

    fn with_prober<R>(
        &mut self,
        candidate: usize,
        ask: impl FnOnce(&mut Prober<'_>, &mut Scratch) -> Result<R>,
    ) -> Result<R> {
        let known = self.known(candidate);
        let first = !known.probed;
        known.probed = true;
        self.counts.evaluations += u64::from(first);
        let system = self.problem.system(candidate);
        let mut prober = Prober::new(&system, &self.input, &self.rules, Some(self.control))?;
        let answer = ask(&mut prober, &mut self.scratch);
        self.counts.probes += prober.probes;
        self.counts.simulated_queries += prober.simulated_queries;
        answer
    }

    /// The best that can be said when nothing meets the targets.
    pub fn infeasible(&mut self) -> Result<Infeasible> {
        let targets = self.problem.targets.len();
        let mut best = Infeasible { best_unloaded_s: vec![f64::INFINITY; targets], candidates: vec![0; targets] };
        for candidate in 0..self.problem.candidates() {
            for (i, latency) in self.unloaded_s(candidate)?.into_iter().enumerate() {
                if latency < best.best_unloaded_s[i] {
                    best.best_unloaded_s[i] = latency;
                    best.candidates[i] = candidate;
                }
            }
        }
        Ok(best)
    }
}

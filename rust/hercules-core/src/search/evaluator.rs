//! What is known about each candidate, and the cheapest way to learn what the search asks.

use crate::control::Control;
use crate::error::{Error, Result};
use crate::queue::chain::load::{Bracket, Limit, Prober, highest, missed_unloaded, unloaded_percentiles};
use crate::queue::chain::{Detail, Input, Rules, Scratch};
use crate::search::objective::{Goal, PowerModel};
use crate::search::{Infeasible, Problem, Settings, WALK_TOLERANCE};

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
    /// Times a candidate was set aside because its bound does not beat the best.
    pub pruned_by_bound: u64,
    /// Times a candidate was set aside because even an empty system misses a target.
    pub pruned_by_unloaded: u64,
    /// Candidates that failed a run at a load that they had to carry to win.
    pub lost_race: u64,
}

/// A complete run that met the targets, and the power that was drawn; NaN where nobody asked for it.
#[derive(Debug, Clone, Copy)]
struct Passed {
    qps: f64,
    power_w: f64,
}

const NOTHING: Passed = Passed { qps: 0.0, power_w: f64::NAN };

/// Knowledge of one candidate on the search's run of queries.
#[derive(Debug, Clone)]
struct Known {
    /// No load above it meets the targets, whatever the power.
    bound_qps: f64,
    /// No score is higher, under the present goal.
    bound: f64,
    /// Least busy seconds of each stage for a query; none where power is not looked at.
    least_busy_s: Vec<f64>,
    unloaded_s: Option<Vec<f64>>,
    /// Runs that met the targets, within the budget or not; none where power is not looked at.
    passed: Vec<Passed>,
    /// Lowest rate seen to miss a target.
    missed: f64,
    /// Under the present goal: highest passing run, lowest rate seen to fail.
    best: Passed,
    fails: f64,
    probed: bool,
    bisected: bool,
}

impl Known {
    /// Take note of a run that met the targets; gives whether it stays within `budget_w`.
    fn pass(&mut self, run: Passed, budget_w: f64) -> bool {
        let over = run.power_w > budget_w; // not known is not over
        if over {
            self.fails = self.fails.min(run.qps);
        } else if run.qps > self.best.qps {
            self.best = run;
        }
        if !run.power_w.is_nan() {
            self.passed.push(run);
        }
        !over
    }

    fn miss(&mut self, qps: f64) {
        self.missed = self.missed.min(qps);
        self.fails = self.fails.min(qps);
    }
}

pub struct Evaluator<'a> {
    pub problem: &'a Problem,
    pub counts: Counts,
    settings: &'a Settings,
    goal: Goal,
    /// Whether runs are asked for their power.
    with_power: bool,
    rules: Rules,
    input: Input,
    scratch: Scratch,
    control: &'a Control,
    known: Vec<Option<Known>>,
    /// Load of the candidate that was measured last, as a share of its bound; 0 before the first.
    last_share: f64,
    /// Why the search had to end before it was through.
    pub spent: Option<Spent>,
}

/// What a search has used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spent {
    Evaluations,
    Time,
}

/// Width of the bracket of the load that the budget bounds, as a share of the bound without it.
const BUDGET_BOUND_WIDTH: f64 = 1e-3;

/// Runs that a race makes for a score that depends on power, before it takes the candidate's full measure.
const RACE_RUNS: usize = 3;

impl<'a> Evaluator<'a> {
    pub fn new(problem: &'a Problem, settings: &'a Settings, control: &'a Control) -> Result<Self> {
        Ok(Self {
            problem,
            counts: Counts::default(),
            settings,
            goal: problem.goal,
            with_power: problem.goal.needs_power() || settings.front,
            rules: settings.rules(&problem.targets, settings.queries),
            input: Input::draw(&problem.traffic, settings.queries, 0, Some(control))?,
            scratch: Scratch::new(),
            control,
            known: vec![None; problem.candidates()],
            last_share: 0.0,
            spent: None,
        })
    }

    pub fn goal(&self) -> Goal {
        self.goal
    }

    /// Look for something else from now on. What was learned stays: runs that met the targets are held against the new
    /// budget, rates that missed one miss it under any goal. Only for problems that are searched for a front, whose runs
    /// all know their power.
    pub fn set_goal(&mut self, goal: Goal) {
        self.goal = goal;
        for candidate in 0..self.known.len() {
            let Some(mut known) = self.known[candidate].take() else { continue };
            let before = known.best.qps;
            known.bound = self.bound_of(candidate, known.bound_qps, &known.least_busy_s);
            (known.best, known.fails) = (NOTHING, known.missed);
            for run in std::mem::take(&mut known.passed) {
                known.pass(run, goal.power_budget_w);
            }
            // A new budget may let more pass, or less.
            known.bisected &= known.best.qps == before && known.fails.is_finite();
            self.known[candidate] = Some(known);
        }
    }

    /// `Err` when no more work is to be done: the caller's wish, or the time is over.
    fn poll(&mut self) -> Result<()> {
        if self.settings.is_late() {
            self.spent.get_or_insert(Spent::Time);
        }
        if self.spent.is_some() || self.control.cancelled() { Err(Error::Cancelled) } else { Ok(()) }
    }

    /// Highest score of a candidate that carries at most `bound_qps`: at the least power that this load can draw.
    fn bound_of(&self, candidate: usize, bound_qps: f64, least_busy_s: &[f64]) -> f64 {
        let Goal { objective, power_budget_w } = self.goal;
        if !self.goal.needs_power() {
            return objective.score(bound_qps, f64::NAN);
        }
        let least_w = |qps| self.least_w(candidate, qps, least_busy_s);
        let mut qps = bound_qps;
        if least_w(qps) > power_budget_w {
            let mut low = 0.0;
            while qps - low > BUDGET_BOUND_WIDTH * bound_qps {
                let middle = 0.5 * (low + qps);
                *(if least_w(middle) > power_budget_w { &mut qps } else { &mut low }) = middle;
            }
        }
        objective.score(qps, least_w(qps))
    }

    fn least_w(&self, candidate: usize, qps: f64, least_busy_s: &[f64]) -> f64 {
        let power = self.problem.power.as_ref().expect("checked when the search began");
        power.least_w(&self.problem.candidates[candidate], qps, least_busy_s)
    }

    fn known(&mut self, candidate: usize) -> &mut Known {
        if self.known[candidate].is_none() {
            let (system, traffic) = (self.problem.system(candidate), &self.problem.traffic);
            let bound_qps = self.rules.cap * system.bottleneck_qps(traffic);
            let least_busy_s = if self.with_power { system.least_busy_s(traffic) } else { Vec::new() };
            self.known[candidate] = Some(Known {
                bound_qps,
                bound: self.bound_of(candidate, bound_qps, &least_busy_s),
                least_busy_s,
                unloaded_s: None,
                passed: Vec::new(),
                missed: f64::INFINITY,
                best: NOTHING,
                fails: f64::INFINITY,
                probed: false,
                bisected: false,
            });
        }
        self.known[candidate].as_mut().expect("just made")
    }

    /// No score of this candidate can be higher.
    pub fn bound(&mut self, candidate: usize) -> f64 {
        self.known(candidate).bound
    }

    /// Highest load seen to pass; 0 before any.
    pub fn qps(&mut self, candidate: usize) -> f64 {
        self.known(candidate).best.qps
    }

    /// Power at [`Evaluator::qps`]; NaN where it is not looked at.
    pub fn power_w(&mut self, candidate: usize) -> f64 {
        self.known(candidate).best.power_w
    }

    /// Score at the highest load seen to pass.
    fn score_so_far(&mut self, candidate: usize) -> f64 {
        let objective = self.goal.objective;
        let best = self.known(candidate).best;
        if best.qps > 0.0 { objective.score(best.qps, best.power_w) } else { 0.0 }
    }

    /// Candidates whose highest load was determined under the present goal and is above 0, with that load, best score
    /// first.
    pub fn chosen(&mut self) -> Vec<(usize, f64)> {
        let measured = |known: &Option<Known>| known.as_ref().is_some_and(|k| k.bisected && k.best.qps > 0.0);
        let found: Vec<usize> = (0..self.known.len()).filter(|c| measured(&self.known[*c])).collect();
        let mut ranking: Vec<_> = found.into_iter().map(|c| (c, self.score_so_far(c))).collect();
        ranking.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        ranking.into_iter().map(|(candidate, _)| (candidate, self.qps(candidate))).collect()
    }

    /// Was it simulated under load?
    pub fn is_tried(&self, candidate: usize) -> bool {
        self.known[candidate].as_ref().is_some_and(|known| known.probed)
    }

    /// Is it open, without another run, whether its score can be `score`?
    pub fn may_reach(&mut self, candidate: usize, score: f64) -> bool {
        score <= self.bound(candidate) && self.load_for(candidate, score) < self.known(candidate).fails
    }

    /// The lowest load at which this candidate can have `score`, as far as is known: its power there is taken for the
    /// least, plus what it drew beyond that at the highest load that passed. (It draws more beyond at higher loads.)
    fn load_for(&mut self, candidate: usize, score: f64) -> f64 {
        let objective = self.goal.objective;
        if !objective.needs_power() {
            return objective.least_load(score, |_| f64::NAN);
        }
        self.known(candidate);
        let known = self.known[candidate].as_ref().expect("just made");
        let least_w = |qps| self.least_w(candidate, qps, &known.least_busy_s);
        let best = known.best;
        let beyond_w = if best.qps > 0.0 { (best.power_w - least_w(best.qps)).max(0.0) } else { 0.0 };
        objective.least_load(score, |qps| least_w(qps) + beyond_w)
    }

    /// Percentiles of a query alone in the system, one for each target.
    pub fn unloaded_s(&mut self, candidate: usize) -> Result<Vec<f64>> {
        self.poll()?;
        self.unloaded_anyway(candidate)
    }

    fn unloaded_anyway(&mut self, candidate: usize) -> Result<Vec<f64>> {
        if self.control.cancelled() {
            return Err(Error::Cancelled);
        }
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

    /// Can the score be above `best` at all? Costs no simulation under load.
    pub fn may_beat(&mut self, candidate: usize, best: f64) -> Result<bool> {
        if self.bound(candidate) <= best {
            self.counts.pruned_by_bound += 1;
            return Ok(false);
        }
        Ok(!self.misses_unloaded(candidate)?)
    }

    /// Is the candidate's score at least `score` (above 0)? One run at the lowest load at which it can be, given up as
    /// soon as it is lost, unless the answer follows from what is known. Candidates that lose cost no more. Where power
    /// counts, a run that passes tells it, and so the next load to try.
    pub fn reaches(&mut self, candidate: usize, score: f64) -> Result<bool> {
        self.poll()?;
        if score > self.bound(candidate) {
            self.counts.pruned_by_bound += 1;
            return Ok(false);
        }
        for _ in 0..RACE_RUNS {
            if self.score_so_far(candidate) >= score {
                break;
            }
            let qps = self.load_for(candidate, score);
            let known = self.known(candidate);
            if known.fails <= qps || qps > known.bound_qps {
                return Ok(false);
            }
            if known.best.qps >= qps {
                break; // rounding: at this load it has the score, but for a bit
            }
            if self.with_probe(candidate, |probe| probe(qps))?.is_some() {
                self.counts.lost_race += 1;
                return Ok(false);
            }
        }
        // Rare, and dearer than a lost race, hence last: a load may pass where the empty system does not (waiting for
        // company is shorter when there is more of it). Such a candidate is not feasible.
        if self.misses_unloaded(candidate)? {
            return Ok(false);
        }
        Ok(!self.goal.objective.needs_power() || self.score_of_neighbour(candidate, WALK_TOLERANCE)? >= score)
    }

    /// Score at the highest load, which is found within `tolerance`; 0 if even the empty system misses a target. On a
    /// candidate not probed before, the answer does not depend on what the evaluator has seen.
    pub fn score(&mut self, candidate: usize, tolerance: f64) -> Result<f64> {
        self.score_near(candidate, 0.0, tolerance)
    }

    /// [`Evaluator::score`] that looks first where the last candidate's load would put this one: neighbours reach about
    /// the same share of their bounds. Cheaper, and within `tolerance` the same.
    pub fn score_of_neighbour(&mut self, candidate: usize, tolerance: f64) -> Result<f64> {
        let guess = self.last_share * self.known(candidate).bound_qps;
        self.score_near(candidate, guess, tolerance)
    }

    fn score_near(&mut self, candidate: usize, guess: f64, tolerance: f64) -> Result<f64> {
        if self.misses_unloaded(candidate)? {
            return Ok(0.0);
        }
        let known = self.known(candidate).clone();
        let Passed { qps: passes, .. } = known.best;
        if passes >= known.bound_qps || (known.bisected && known.fails - passes <= tolerance * known.fails) {
            self.known(candidate).bisected = true;
            return Ok(self.score_so_far(candidate));
        }
        // What was bisected before is looked at again close above what passed.
        let guess = if known.bisected { 0.0 } else { guess };
        let bracket = Bracket { floor: passes, guess, bound: known.bound_qps, tolerance };
        let (qps, limit) = self.with_probe(candidate, |probe| highest(bracket, probe))?;
        self.last_share = qps / known.bound_qps;
        let known = self.known(candidate);
        known.fails = if limit == Limit::UtilisationCap && qps >= known.bound_qps {
            f64::INFINITY
        } else {
            qps * (1.0 + tolerance)
        };
        self.counts.full_evaluations += u64::from(!known.bisected);
        self.known(candidate).bisected = true;
        Ok(self.score_so_far(candidate))
    }

    /// Let `ask` make runs of the candidate: at a load, what stands against it. All that they tell is kept.
    fn with_probe<R>(
        &mut self,
        candidate: usize,
        ask: impl FnOnce(&mut dyn FnMut(f64) -> Result<Option<Limit>>) -> Result<R>,
    ) -> Result<R> {
        if !self.known(candidate).probed {
            if self.settings.evaluations.is_some_and(|most| self.counts.evaluations >= most) {
                self.spent = Some(Spent::Evaluations);
                return Err(Error::Cancelled);
            }
            self.counts.evaluations += 1;
            self.known(candidate).probed = true;
        }
        let (problem, budget_w) = (self.problem, self.goal.power_budget_w);
        let system = problem.system(candidate);
        let power = problem.power.as_ref().filter(|_| self.with_power);
        let mut prober = Prober::new(&system, &self.input, &self.rules, Some(self.control))?;
        if power.is_some() {
            prober.detail = Detail::Energy;
        }
        let (scratch, known) = (&mut self.scratch, self.known[candidate].as_mut().expect("asked for above"));
        let answer = ask(&mut |qps| {
            if let Some(limit) = prober.probe(qps, scratch)? {
                known.miss(qps);
                return Ok(Some(limit));
            }
            let drawn_w =
                |model: &PowerModel| model.power_w(&problem.candidates[candidate], qps, &system.stage_use(scratch));
            let run = Passed { qps, power_w: power.map_or(f64::NAN, drawn_w) };
            Ok((!known.pass(run, budget_w)).then_some(Limit::PowerBudget))
        });
        self.counts.probes += prober.probes;
        self.counts.simulated_queries += prober.simulated_queries;
        answer
    }

    /// The best that can be said when nothing meets the targets.
    pub fn infeasible(&mut self) -> Result<Infeasible> {
        let targets = self.problem.targets.len();
        let mut best = Infeasible { best_unloaded_s: vec![f64::INFINITY; targets], candidates: vec![0; targets] };
        for candidate in 0..self.problem.candidates() {
            for (i, latency) in self.unloaded_anyway(candidate)?.into_iter().enumerate() {
                if latency < best.best_unloaded_s[i] {
                    best.best_unloaded_s[i] = latency;
                    best.candidates[i] = candidate;
                }
            }
        }
        Ok(best)
    }
}

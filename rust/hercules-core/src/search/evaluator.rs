//! What is known about each candidate, and the cheapest way to learn what the search asks.
//!
//! There are two runs of queries to judge candidates on: a short one to walk by, and a longer one ([`Evaluator::sharpen`])
//! to choose among those that the short one cannot tell apart. Both are fixed, so that candidates differ by what they are.

use crate::control::Control;
use crate::error::{Error, Result};
use crate::queue::chain::load::{Bracket, Limit, Prober, highest, missed_unloaded, unloaded_percentiles};
use crate::queue::chain::{Detail, Input, Rules, Scratch, System};
use crate::search::objective::{Goal, PowerModel};
use crate::search::{Infeasible, Problem, Settings, WALK_TOLERANCE};
use rayon::prelude::*;
use std::ops::AddAssign;

/// Account of the work.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Candidates that were simulated under load at least once.
    pub evaluations: u64,
    /// Candidates whose highest load was determined, on either run.
    pub full_evaluations: u64,
    /// Runs of the simulator.
    pub probes: u64,
    pub simulated_queries: u64,
    /// Times a candidate was set aside because its bound does not beat the best.
    pub pruned_by_bound: u64,
    /// Times a candidate was set aside because even an empty system misses a target.
    pub pruned_by_unloaded: u64,
    /// Times a candidate failed a run at a load that it had to carry to win.
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

/// A complete run that met the targets, and the power that was drawn; NaN where nobody asked for it.
#[derive(Debug, Clone, Copy)]
struct Passed {
    qps: f64,
    power_w: f64,
}

const NOTHING: Passed = Passed { qps: 0.0, power_w: f64::NAN };

/// Knowledge of one candidate on one run of queries.
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
    /// Even the empty system misses a target.
    is_hopeless: bool,
}

impl Known {
    fn new(bound_qps: f64, bound: f64, least_busy_s: Vec<f64>, unloaded_s: Option<Vec<f64>>) -> Self {
        Self {
            bound_qps,
            bound,
            least_busy_s,
            unloaded_s,
            passed: Vec::new(),
            missed: f64::INFINITY,
            best: NOTHING,
            fails: f64::INFINITY,
            probed: false,
            bisected: false,
            is_hopeless: false,
        }
    }

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

/// One run of queries, what is asked of it, and what it told.
struct Ground {
    rules: Rules,
    input: Input,
    known: Vec<Option<Known>>,
}

impl Ground {
    fn new(problem: &Problem, settings: &Settings, queries: usize, control: &Control) -> Result<Self> {
        Ok(Self {
            rules: settings.rules(&problem.targets, queries),
            input: Input::draw(&problem.traffic, queries, 0, Some(control))?,
            known: vec![None; problem.candidates()],
        })
    }
}

/// What candidates are judged by.
#[derive(Clone, Copy)]
struct Bench<'a> {
    problem: &'a Problem,
    settings: &'a Settings,
    control: &'a Control,
    goal: Goal,
    /// Whether runs are asked for their power.
    with_power: bool,
    rules: &'a Rules,
    input: &'a Input,
    /// Load of the candidate that was measured last, as a share of its bound; 0 before the first.
    last_share: f64,
}

/// Working memory and account of one candidate at a time.
#[derive(Default)]
struct Lane {
    scratch: Scratch,
    counts: Counts,
}

/// Of a smaller lattice the search looks at a larger share.
const FEW: usize = 800;

/// A guess is at least this share of the bound, so that the order among poor candidates is that of their bounds.
const LEAST_NEAR: f64 = 0.05;

/// Width of the bracket of the load that the budget bounds, as a share of the bound without it.
const BUDGET_BOUND_WIDTH: f64 = 1e-3;

/// Runs that a race makes for a score that depends on power, before it takes the candidate's full measure.
const RACE_RUNS: usize = 3;

impl Bench<'_> {
    /// `Err` when no more work is to be done: the caller's wish, or the time is over.
    fn poll(&self) -> Result<()> {
        if self.control.cancelled() || self.settings.is_late() { Err(Error::Cancelled) } else { Ok(()) }
    }

    fn fresh(&self, candidate: usize, system: &System) -> Known {
        let traffic = &self.problem.traffic;
        let bound_qps = self.rules.cap * system.bottleneck_qps(traffic);
        let least_busy_s = if self.with_power { system.least_busy_s(traffic) } else { Vec::new() };
        let bound = self.bound(candidate, bound_qps, &least_busy_s);
        Known::new(bound_qps, bound, least_busy_s, None)
    }

    /// Highest score of a candidate that carries at most `bound_qps`: at the least power that this load can draw.
    fn bound(&self, candidate: usize, bound_qps: f64, least_busy_s: &[f64]) -> f64 {
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

    /// Score at the highest load seen to pass.
    fn score_so_far(&self, known: &Known) -> f64 {
        let best = known.best;
        if best.qps > 0.0 { self.goal.objective.score(best.qps, best.power_w) } else { 0.0 }
    }

    /// The lowest load at which this candidate can have `score`, as far as is known: its power there is taken for the
    /// least, plus what it drew beyond that at the highest load that passed. (It draws more beyond at higher loads.)
    fn load_for(&self, candidate: usize, score: f64, known: &Known) -> f64 {
        let objective = self.goal.objective;
        if !objective.needs_power() {
            return objective.least_load(score, |_| f64::NAN);
        }
        let least_w = |qps| self.least_w(candidate, qps, &known.least_busy_s);
        let best = known.best;
        let beyond_w = if best.qps > 0.0 { (best.power_w - least_w(best.qps)).max(0.0) } else { 0.0 };
        objective.least_load(score, |qps| least_w(qps) + beyond_w)
    }

    /// Percentiles of a query alone in the system, one for each target.
    fn unloaded_s<'k>(&self, candidate: usize, known: &'k mut Known, lane: &mut Lane) -> Result<&'k [f64]> {
        if self.control.cancelled() {
            return Err(Error::Cancelled);
        }
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

    fn reaches(&self, candidate: usize, score: f64, known: &mut Known, lane: &mut Lane) -> Result<bool> {
        self.poll()?;
        if known.is_hopeless {
            lane.counts.pruned_by_unloaded += 1;
            return Ok(false);
        }
        if score > known.bound {
            lane.counts.pruned_by_bound += 1;
            return Ok(false);
        }
        for _ in 0..RACE_RUNS {
            if self.score_so_far(known) >= score {
                break;
            }
            let qps = self.load_for(candidate, score, known);
            if known.fails <= qps || qps > known.bound_qps {
                return Ok(false);
            }
            if known.best.qps >= qps {
                break; // rounding: at this load it has the score, but for a bit
            }
            if self.with_probe(candidate, known, lane, |probe| probe(qps))?.is_some() {
                lane.counts.lost_race += 1;
                return Ok(false);
            }
        }
        // Rare, and dearer than a lost race, hence last: a load may pass where the empty system does not (waiting for
        // company is shorter when there is more of it). Such a candidate is not feasible.
        if self.misses_unloaded(candidate, known, lane)? {
            return Ok(false);
        }
        let needs_power = self.goal.objective.needs_power();
        Ok(!needs_power || self.score(candidate, self.last_share, WALK_TOLERANCE, known, lane)? >= score)
    }

    /// Score at the highest load, which is looked for first at `share` of the bound (0: anywhere).
    fn score(&self, candidate: usize, share: f64, tolerance: f64, known: &mut Known, lane: &mut Lane) -> Result<f64> {
        self.poll()?;
        if known.is_hopeless || self.misses_unloaded(candidate, known, lane)? {
            return Ok(0.0);
        }
        let passes = known.best.qps;
        if passes >= known.bound_qps || (known.bisected && known.fails - passes <= tolerance * known.fails) {
            known.bisected = true;
            return Ok(self.score_so_far(known));
        }
        // What was bisected before is looked at again close above what passed.
        let guess = if known.bisected { 0.0 } else { share * known.bound_qps };
        let bracket = Bracket { floor: passes, guess, bound: known.bound_qps, tolerance };
        let (qps, limit) = self.with_probe(candidate, known, lane, |probe| highest(bracket, probe))?;
        known.fails = if limit == Limit::UtilisationCap && qps >= known.bound_qps {
            f64::INFINITY
        } else {
            qps * (1.0 + tolerance)
        };
        lane.counts.full_evaluations += u64::from(!known.bisected);
        known.bisected = true;
        Ok(self.score_so_far(known))
    }

    /// Let `ask` make runs of the candidate: at a load, what stands against it. All that they tell is kept.
    fn with_probe<R>(
        &self,
        candidate: usize,
        known: &mut Known,
        lane: &mut Lane,
        ask: impl FnOnce(&mut dyn FnMut(f64) -> Result<Option<Limit>>) -> Result<R>,
    ) -> Result<R> {
        known.probed = true;
        let (problem, budget_w) = (self.problem, self.goal.power_budget_w);
        let system = problem.system(candidate);
        let power = problem.power.as_ref().filter(|_| self.with_power);
        let mut prober = Prober::new(&system, self.input, self.rules, Some(self.control))?;
        if power.is_some() {
            prober.detail = Detail::Energy;
        }
        let scratch = &mut lane.scratch;
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
        lane.counts.probes += prober.probes;
        lane.counts.simulated_queries += prober.simulated_queries;
        answer
    }
}

pub struct Evaluator<'a> {
    pub problem: &'a Problem,
    pub counts: Counts,
    settings: &'a Settings,
    control: &'a Control,
    goal: Goal,
    with_power: bool,
    /// The short run, and the long one once it was asked for.
    grounds: Vec<Ground>,
    /// Which of them is stood on.
    level: usize,
    /// Candidates that were simulated under load on either.
    tried: Vec<bool>,
    lanes: [Lane; LANES],
    last_share: f64,
    /// Most candidates that may be simulated under load by now.
    allowed: u64,
    /// Whether the time was over before the search was through.
    pub is_late: bool,
}

impl<'a> Evaluator<'a> {
    pub fn new(problem: &'a Problem, settings: &'a Settings, control: &'a Control) -> Result<Self> {
        Ok(Self {
            problem,
            counts: Counts::default(),
            settings,
            control,
            goal: problem.goal,
            with_power: problem.goal.needs_power() || settings.front,
            grounds: vec![Ground::new(problem, settings, settings.queries, control)?],
            level: 0,
            tried: vec![false; problem.candidates()],
            lanes: Default::default(),
            last_share: 0.0,
            allowed: settings.evaluations.unwrap_or(u64::MAX),
            is_late: false,
        })
    }

    /// Judge on the long run from now on, knowing nothing of how candidates do there.
    pub fn sharpen(&mut self) -> Result<()> {
        if self.grounds.len() == 1 {
            self.grounds.push(Ground::new(self.problem, self.settings, self.settings.polish_queries, self.control)?);
        }
        self.level = 1;
        Ok(())
    }

    /// Back to the short run and what was learned on it.
    pub fn blunt(&mut self) {
        self.level = 0;
    }

    pub fn goal(&self) -> Goal {
        self.goal
    }

    fn bench(&self) -> Bench<'_> {
        let Ground { rules, input, .. } = &self.grounds[self.level];
        let Self { problem, settings, control, goal, with_power, last_share, .. } = *self;
        Bench { problem, settings, control, goal, with_power, rules, input, last_share }
    }

    /// Look for something else from now on. What was learned stays: runs that met the targets are held against the new
    /// budget, rates that missed one miss it under any goal. Only for problems that are searched for a front, whose runs
    /// all know their power.
    pub fn set_goal(&mut self, goal: Goal) {
        self.goal = goal;
        for ground in 0..self.grounds.len() {
            for candidate in 0..self.problem.candidates() {
                let Some(mut known) = self.grounds[ground].known[candidate].take() else { continue };
                let before = known.best.qps;
                known.bound = self.bench().bound(candidate, known.bound_qps, &known.least_busy_s);
                (known.best, known.fails) = (NOTHING, known.missed);
                for run in std::mem::take(&mut known.passed) {
                    known.pass(run, goal.power_budget_w);
                }
                // A new budget may let more pass, or less.
                known.bisected &= known.best.qps == before && known.fails.is_finite();
                self.grounds[ground].known[candidate] = Some(known);
            }
        }
    }

    fn known(&mut self, candidate: usize) -> &mut Known {
        if self.grounds[self.level].known[candidate].is_none() {
            // Bounds and the empty system do not depend on the run.
            let shared = |known: &Known| Known {
                is_hopeless: known.is_hopeless,
                ..Known::new(known.bound_qps, known.bound, known.least_busy_s.clone(), known.unloaded_s.clone())
            };
            let elsewhere = self.grounds.iter().find_map(|ground| ground.known[candidate].as_ref()).map(shared);
            let known = elsewhere.unwrap_or_else(|| self.bench().fresh(candidate, &self.problem.system(candidate)));
            self.grounds[self.level].known[candidate] = Some(known);
        }
        self.grounds[self.level].known[candidate].as_mut().expect("just made")
    }

    /// Do `work` for up to [`LANES`] different candidates side by side.
    fn side_by_side<R: Send>(
        &mut self,
        candidates: &[usize],
        work: impl Fn(&Bench<'_>, usize, &mut Known, &mut Lane) -> Result<R> + Sync,
    ) -> Result<Vec<R>> {
        let mut knowledge: Vec<Known> = candidates
            .iter()
            .map(|&candidate| {
                self.known(candidate);
                self.grounds[self.level].known[candidate].take().expect("just made, and the candidates differ")
            })
            .collect();
        let mut lanes = std::mem::take(&mut self.lanes);
        let bench = self.bench();
        let places = candidates.par_iter().with_max_len(1).zip(&mut knowledge).zip(&mut lanes[..candidates.len()]);
        let found: Vec<_> = places.map(|((&candidate, known), lane)| work(&bench, candidate, known, lane)).collect();
        for (&candidate, known) in candidates.iter().zip(knowledge) {
            if known.probed && !std::mem::replace(&mut self.tried[candidate], true) {
                self.counts.evaluations += 1;
            }
            self.grounds[self.level].known[candidate] = Some(known);
        }
        for lane in &mut lanes {
            self.counts += std::mem::take(&mut lane.counts);
        }
        self.lanes = lanes;
        let found = found.into_iter().collect();
        self.is_late |= matches!(found, Err(Error::Cancelled)) && !self.control.cancelled();
        found
    }

    fn one<R: Send>(
        &mut self,
        candidate: usize,
        work: impl Fn(&Bench<'_>, usize, &mut Known, &mut Lane) -> Result<R> + Sync,
    ) -> Result<R> {
        self.side_by_side(&[candidate], work).map(|mut found| found.pop().expect("one for one"))
    }

    /// No score of this candidate can be higher.
    pub fn bound(&mut self, candidate: usize) -> f64 {
        self.known(candidate).bound
    }

    /// A rough guess of the score, for an order to look in; 0 where even the empty system surely misses a target. With less
    /// room between its empty latency and a target, a candidate comes less near its bound: in a queue that works off
    /// `bound` queries per second, the tail of the wait falls off at the rate `bound - qps` (M/M/1), so
    /// `ln(1 / (1 - p)) / (bound - qps)` must fit into the room.
    pub fn guess(&mut self, candidate: usize) -> f64 {
        let problem = self.problem;
        let system = problem.system(candidate);
        if self.grounds[self.level].known[candidate].is_none() {
            self.grounds[self.level].known[candidate] = Some(self.bench().fresh(candidate, &system));
        }
        let Known { bound, bound_qps, .. } = *self.known(candidate);
        let scratch = &mut self.lanes[0].scratch;
        let mut guess = bound;
        for &(p, seconds) in &problem.targets {
            let empty_s = system.unloaded_at((p, seconds), &problem.traffic, scratch);
            if empty_s == f64::INFINITY {
                self.known(candidate).is_hopeless = true;
                return 0.0;
            }
            let near = 1.0 - (1.0 / (1.0 - p)).ln() / (bound_qps * (seconds - empty_s).max(0.0));
            guess = guess.min(bound * near.max(LEAST_NEAR));
        }
        guess
    }

    /// Highest load seen to pass; 0 before any.
    pub fn qps(&mut self, candidate: usize) -> f64 {
        self.known(candidate).best.qps
    }

    /// Highest load of a candidate that was measured; 0 where even the empty system misses a target.
    pub fn carried_qps(&mut self, candidate: usize) -> f64 {
        let known = self.known(candidate);
        if known.bisected { known.best.qps } else { 0.0 }
    }

    /// Power at [`Evaluator::qps`]; NaN where it is not looked at.
    pub fn power_w(&mut self, candidate: usize) -> f64 {
        self.known(candidate).best.power_w
    }

    /// Candidates whose highest load was determined under the present goal and is above 0, with that load, best score
    /// first.
    pub fn chosen(&self) -> Vec<(usize, f64)> {
        let bench = self.bench();
        let known = self.grounds[self.level].known.iter().enumerate();
        let mut ranking: Vec<_> = known
            .filter_map(|(candidate, known)| known.as_ref().map(|known| (candidate, known)))
            .filter(|(_, known)| known.bisected && known.best.qps > 0.0)
            .map(|(candidate, known)| (candidate, known.best.qps, bench.score_so_far(known)))
            .collect();
        ranking.sort_by(|a, b| b.2.total_cmp(&a.2).then(a.0.cmp(&b.0)));
        ranking.into_iter().map(|(candidate, qps, _)| (candidate, qps)).collect()
    }

    /// Was it simulated under load?
    pub fn is_tried(&self, candidate: usize) -> bool {
        self.tried[candidate]
    }

    /// Is it open, without another run, whether its score can be `score`?
    pub fn may_reach(&mut self, candidate: usize, score: f64) -> bool {
        let known = self.known(candidate);
        if score > known.bound || known.is_hopeless {
            return false;
        }
        let known = self.grounds[self.level].known[candidate].as_ref().expect("made above");
        self.bench().load_for(candidate, score, known) < known.fails
    }

    /// Those of `candidates` that may be simulated: tried ones, and new ones as far as evaluations are left.
    fn affordable(&self, candidates: &[usize]) -> Vec<usize> {
        let mut left = self.allowed.saturating_sub(self.counts.evaluations);
        let mut may = |candidate: usize| {
            let is_new = !self.tried[candidate];
            let fits = !is_new || left > 0;
            left -= u64::from(is_new && fits);
            fits
        };
        candidates.iter().copied().filter(|&candidate| may(candidate)).collect()
    }

    /// From now on, let this share of the candidates be simulated under load, few candidates counted as [`FEW`], if the
    /// settings do not allow less.
    pub fn allow(&mut self, share: f64) {
        let most = (self.problem.candidates().max(FEW) as f64 * share) as u64;
        self.allowed = self.settings.evaluations.map_or(most, |least| least.min(most));
    }

    /// Have all evaluations been spent?
    pub fn is_spent(&self) -> bool {
        self.counts.evaluations >= self.allowed
    }

    /// Largest ratio of unloaded percentile to target: above 1, no load meets the targets.
    pub fn excess(&mut self, candidates: &[usize]) -> Result<Vec<f64>> {
        let mut found = Vec::with_capacity(candidates.len());
        for heat in candidates.chunks(LANES) {
            found.extend(self.side_by_side(heat, |bench, candidate, known, lane| {
                bench.poll()?;
                let unloaded = bench.unloaded_s(candidate, known, lane)?;
                let ratios = unloaded.iter().zip(&bench.problem.targets).map(|(latency, target)| latency / target.1);
                Ok(ratios.fold(0.0, f64::max))
            })?);
        }
        Ok(found)
    }

    /// Those of up to [`LANES`] candidates whose score is at least `score` (above 0). One run of each at the lowest load at
    /// which it can be, given up as soon as it is lost, unless the answer follows from what is known. Candidates that lose
    /// cost no more. Where power counts, a run that passes tells it, and so the next load to try.
    pub fn reaching(&mut self, candidates: &[usize], score: f64) -> Result<Vec<usize>> {
        let asked = self.affordable(candidates);
        let reaches =
            self.side_by_side(&asked, |bench, candidate, known, lane| bench.reaches(candidate, score, known, lane))?;
        Ok(asked.into_iter().zip(reaches).filter_map(|(candidate, reaches)| reaches.then_some(candidate)).collect())
    }

    /// [`Evaluator::reaching`] of one.
    pub fn reaches(&mut self, candidate: usize, score: f64) -> Result<bool> {
        Ok(!self.reaching(&[candidate], score)?.is_empty())
    }

    /// Score of each of up to [`LANES`] candidates at its highest load, which is found within `tolerance`; 0 where even the
    /// empty system misses a target, or no evaluation is left. On candidates not probed before, the answer does not depend
    /// on what the evaluator has seen.
    pub fn scores(&mut self, candidates: &[usize], tolerance: f64) -> Result<Vec<f64>> {
        let affordable = self.affordable(candidates);
        let mut found = self
            .side_by_side(&affordable, |bench, candidate, known, lane| {
                bench.score(candidate, 0.0, tolerance, known, lane)
            })?
            .into_iter();
        let score = |candidate| if affordable.contains(candidate) { found.next().expect("one for each") } else { 0.0 };
        Ok(candidates.iter().map(score).collect())
    }

    /// Score of one candidate as by [`Evaluator::scores`], its load looked for first where the last candidate's would put
    /// it: neighbours reach about the same share of their bounds. Cheaper, and within `tolerance` the same.
    pub fn score_of_neighbour(&mut self, candidate: usize, tolerance: f64) -> Result<f64> {
        if self.affordable(&[candidate]).is_empty() {
            return Ok(0.0);
        }
        let score = self.one(candidate, |bench, candidate, known, lane| {
            bench.score(candidate, bench.last_share, tolerance, known, lane)
        })?;
        let known = self.known(candidate);
        if known.best.qps > 0.0 {
            self.last_share = known.best.qps / known.bound_qps;
        }
        Ok(score)
    }

    /// The best that can be said when nothing meets the targets, also when the time is over.
    pub fn infeasible(&mut self) -> Result<Infeasible> {
        let targets = self.problem.targets.len();
        let mut best = Infeasible { best_unloaded_s: vec![f64::INFINITY; targets], candidates: vec![0; targets] };
        let all: Vec<usize> = (0..self.problem.candidates()).collect();
        for heat in all.chunks(LANES) {
            let unloaded = self.side_by_side(heat, |bench, candidate, known, lane| {
                bench.unloaded_s(candidate, known, lane).map(<[f64]>::to_vec)
            })?;
            for (&candidate, latencies) in heat.iter().zip(unloaded) {
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

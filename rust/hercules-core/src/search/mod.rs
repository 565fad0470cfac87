//! Search for the scheduling configuration with the highest load under latency targets.
//!
//! A [`Problem`] is data: a service table, traffic, a list of candidate configurations with lattice coordinates, and
//! targets. [`gradient`] looks from above and walks the lattice from a few starts, [`exhaustive`] looks at every
//! candidate; both probe on fixed runs of queries, so that candidates differ by what they are and not by luck. [`hill`],
//! [`lines`] and [`random`] are what others do. The winner is then judged anew on independent runs ([`answer`]), which the
//! search has not seen and so has not fitted.

pub mod answer;
pub mod evaluator;
pub mod exhaustive;
pub mod gradient;
pub mod hill;
pub mod lattice;
pub mod lines;
pub mod objective;
pub mod random;
#[cfg(test)]
mod tests;

use crate::control::Control;
use crate::error::{Error, Result};
use crate::pool;
use crate::queue::Grid;
use crate::queue::chain::load::check_run;
use crate::queue::chain::{Config, Rules, System, Target, Traffic};
use answer::Answer;
use evaluator::{Counts, Evaluator, LANES};
use lattice::Lattice;
use objective::{Goal, Objective, PowerModel};
use rayon::prelude::*;
use std::sync::Arc;
use std::time::Instant;

/// One (server, workload) pair to be searched.
#[derive(Debug, Clone)]
pub struct Problem {
    pub(crate) grid: Arc<Grid>,
    pub(crate) traffic: Arc<Traffic>,
    pub(crate) candidates: Vec<Config>,
    pub(crate) lattice: Lattice,
    pub(crate) starts: Vec<usize>,
    /// For [`Method::Lines`]: the first line, and for each of its entries the line that follows it.
    pub(crate) lines: Vec<Vec<usize>>,
    pub(crate) targets: Vec<Target>,
    pub(crate) power: Option<PowerModel>,
    pub(crate) goal: Goal,
}

impl Problem {
    /// `coords` is `[N, axes]` row-major; column 0 is the kind, which no move changes. Every candidate must be a valid
    /// configuration of `grid` for the sizes of `traffic`.
    pub fn new(
        grid: Arc<Grid>,
        traffic: Arc<Traffic>,
        candidates: Vec<Config>,
        coords: Vec<i64>,
        starts: Vec<usize>,
        lines: Vec<Vec<usize>>,
        targets: Vec<Target>,
    ) -> Result<Self> {
        if candidates.is_empty() {
            return Err(Error::invalid("candidates", "is empty; at least one configuration is needed"));
        }
        let max_size = traffic.max_size();
        for (i, config) in candidates.iter().enumerate() {
            System::from_grid(&grid, config, max_size).map_err(|error| match error {
                Error::Invalid { field, message } => Error::invalid(format!("candidates[{i}].{field}"), message),
                other => other,
            })?;
        }
        if starts.is_empty() {
            return Err(Error::invalid("starts", "is empty; at least one candidate to start from is needed"));
        }
        if let Some(i) = starts.iter().position(|start| *start >= candidates.len()) {
            let message = format!("is {}; allowed are 0..{}", starts[i], candidates.len());
            return Err(Error::invalid(format!("starts[{i}]"), message));
        }
        for (k, line) in lines.iter().enumerate() {
            if let Some(i) = line.iter().position(|entry| *entry >= candidates.len()) {
                let message = format!("is {}; allowed are 0..{}", line[i], candidates.len());
                return Err(Error::invalid(format!("lines[{k}][{i}]"), message));
            }
        }
        let lattice = Lattice::new(coords, candidates.len())?;
        Ok(Self { grid, traffic, candidates, lattice, starts, lines, targets, power: None, goal: Goal::QPS })
    }

    /// The same problem with another goal, and the power model that it may need.
    pub fn with_goal(self, power: Option<PowerModel>, goal: Goal) -> Result<Self> {
        goal.check()?;
        if let Some(power) = &power {
            power.check(self.grid.variants(), self.grid.stages())?;
        } else if goal.needs_power() {
            return Err(Error::invalid("power", "is missing; an objective or a budget of power needs a model of it"));
        }
        Ok(Self { power, goal, ..self })
    }

    pub fn candidates(&self) -> usize {
        self.candidates.len()
    }

    pub(crate) fn system(&self, candidate: usize) -> System {
        System::from_grid(&self.grid, &self.candidates[candidate], self.traffic.max_size())
            .expect("checked when the problem was made")
    }
}

/// How candidates are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    Gradient,
    /// Every candidate that the bounds do not exclude.
    Exhaustive,
    /// Every candidate, bounds or not: the twin of the other two.
    ExhaustiveUnpruned,
    Hill,
    Lines,
    Random,
}

impl Method {
    pub fn parse(text: &str) -> Result<Self> {
        match text {
            "gradient" => Ok(Self::Gradient),
            "exhaustive" => Ok(Self::Exhaustive),
            "exhaustive-unpruned" => Ok(Self::ExhaustiveUnpruned),
            "hill" => Ok(Self::Hill),
            "deeprecsys" => Ok(Self::Lines),
            "random" => Ok(Self::Random),
            _ => Err(Error::invalid(
                "method",
                format!("is {text:?}; allowed are gradient, exhaustive, exhaustive-unpruned, hill, deeprecsys, random"),
            )),
        }
    }
}

/// How much work a search spends.
#[derive(Debug, Clone)]
pub struct Settings {
    pub method: Method,
    /// Queries per probe of the walk.
    pub queries: usize,
    /// Queries per probe of the choice among the best.
    pub polish_queries: usize,
    /// Queries per replication of the final answer.
    pub final_queries: usize,
    pub replications: usize,
    /// Highest utilisation of any stage.
    pub cap: f64,
    /// Relative width of the final answer's bracket of the load.
    pub tolerance: f64,
    /// Half-width of the final answer's interval, as a share of it, up to which replications are added (doubled)...
    pub precision: f64,
    /// ... while there are no more of them than this.
    pub most_replications: usize,
    /// Most candidates that are simulated under load.
    pub evaluations: Option<u64>,
    /// No new work is begun after it; the best so far is judged by the first replications.
    pub deadline: Option<Instant>,
    /// How many of the best are judged.
    pub top: usize,
    /// Whether to look for the best load at powers between those of the best load and the best load per watt.
    pub front: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            method: Method::Gradient,
            queries: 4096,
            polish_queries: 32768,
            final_queries: 16384,
            replications: 5,
            cap: 0.95,
            tolerance: POLISH_TOLERANCE,
            precision: 0.01,
            most_replications: 640,
            evaluations: None,
            deadline: None,
            top: 1,
            front: false,
        }
    }
}

/// Largest number of replications.
const MAX_REPLICATIONS: usize = 1 << 12;

/// Power budgets between the ends of a front.
const FRONT_BUDGETS: usize = 6;

/// Relative width of the rate's bracket during the walk and in the last polish.
pub(crate) const WALK_TOLERANCE: f64 = 0.01;
pub(crate) const POLISH_TOLERANCE: f64 = 0.0025;

/// Candidates whose score on the short run is within this share of the best may be the best on the long one.
pub(crate) const CONTENDERS: f64 = 0.05;

impl Settings {
    /// Probing rules for `targets` with `queries` per run.
    pub(crate) fn rules(&self, targets: &[Target], queries: usize) -> Rules {
        Rules {
            targets: targets.to_vec(),
            queries,
            warmup: Rules::warmup_of(queries),
            cap: self.cap,
            tolerance: self.tolerance,
        }
    }

    /// Is the time over?
    pub(crate) fn is_late(&self) -> bool {
        self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }

    fn check(&self, problems: &[Arc<Problem>]) -> Result<()> {
        check_run(self.queries, 0)?;
        if self.replications == 0 || self.replications > MAX_REPLICATIONS {
            let message = format!("is {}; allowed are 1 to {MAX_REPLICATIONS}", self.replications);
            return Err(Error::invalid("replications", message));
        }
        if !(self.replications..=MAX_REPLICATIONS).contains(&self.most_replications) {
            let message = format!(
                "is {}; allowed are replications = {} to {MAX_REPLICATIONS}",
                self.most_replications, self.replications
            );
            return Err(Error::invalid("most_replications", message));
        }
        if self.precision.is_nan() || self.precision <= 0.0 {
            return Err(Error::invalid("precision", format!("is {}; must be above 0", self.precision)));
        }
        for (name, count) in [("evaluations", self.evaluations), ("top", Some(self.top as u64))] {
            if count == Some(0) {
                return Err(Error::invalid(name, "is 0; must be from 1"));
            }
        }
        for (i, problem) in problems.iter().enumerate() {
            if self.front && problem.power.is_none() {
                let message = "has no power model; a front of load against power needs one";
                return Err(Error::invalid(format!("problems[{i}]"), message));
            }
            self.rules(&problem.targets, self.queries).check()?;
            self.rules(&problem.targets, self.polish_queries).check()?;
            self.rules(&problem.targets, self.final_queries).check()?;
        }
        Ok(())
    }
}

/// How the walk came to a candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Step {
    Start = 0,
    /// One coordinate to the next value.
    Axis = 1,
    /// One coordinate up, another down.
    Diagonal = 2,
    /// Found by the expanded sweep.
    Far = 3,
    /// Found by the last polish.
    Polish = 4,
    /// Nothing meets the targets here: towards a lower unloaded latency.
    Feasibility = 5,
    /// A candidate from elsewhere that won its race against the best.
    Race = 6,
    /// Among the highest upper bounds.
    Bound = 7,
    /// Best of the short run on the long one.
    Sharpen = 8,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PathPoint {
    pub candidate: usize,
    /// Load on the search's run of queries; 0 while infeasible.
    pub qps: f64,
    pub score: f64,
    pub step: Step,
}

/// Nothing meets the targets: for each target the best unloaded percentile and the candidate that has it.
#[derive(Debug, Clone, PartialEq)]
pub struct Infeasible {
    pub best_unloaded_s: Vec<f64>,
    pub candidates: Vec<usize>,
}

#[derive(Debug, Clone)]
pub struct Outcome {
    pub verdict: std::result::Result<Answer, Infeasible>,
    /// The best by the search's scores, as many as were asked for and measured, each judged; by falling score of these
    /// judgements, since they are the surer ones.
    pub top: Vec<Answer>,
    /// By falling load: answers of which none has both more load and less power than another.
    pub front: Vec<Answer>,
    /// False if the time was over before the search was through.
    pub complete: bool,
    pub counts: Counts,
    pub path: Vec<PathPoint>,
}

/// Search every problem, in parallel over problems and in order in the result. `None` stands for a problem that was
/// not finished when `control` asked to stop, or not begun when the time was over.
pub fn run(
    problems: &[Arc<Problem>],
    settings: &Settings,
    threads: usize,
    found: &(dyn Fn(usize, &Outcome) + Sync),
    control: &Control,
) -> Result<Vec<Option<Outcome>>> {
    settings.check(problems)?;
    pool::install(threads, || {
        problems
            .par_iter()
            .enumerate()
            .with_max_len(1)
            .map(|(index, problem)| {
                if settings.is_late() {
                    return Ok(None);
                }
                match solve(problem, settings, control) {
                    Ok(outcome) => {
                        found(index, &outcome);
                        control.advance();
                        Ok(Some(outcome))
                    }
                    Err(Error::Cancelled) => Ok(None),
                    Err(error) => Err(error),
                }
            })
            .collect()
    })?
}

/// Highest load of each of `candidates` on the search's run of queries, 0 where one carries none: the landscape that all
/// methods move on.
pub fn rates(
    problem: &Problem,
    candidates: &[usize],
    settings: &Settings,
    threads: usize,
    control: &Control,
) -> Result<Vec<f64>> {
    settings.rules(&problem.targets, settings.queries).check()?;
    if let Some(i) = candidates.iter().position(|candidate| *candidate >= problem.candidates()) {
        let message = format!("is {}; allowed are 0..{}", candidates[i], problem.candidates());
        return Err(Error::invalid(format!("candidates[{i}]"), message));
    }
    let mut distinct = candidates.to_vec();
    distinct.sort_unstable();
    distinct.dedup();
    pool::install(threads, || {
        let mut evaluator = Evaluator::new(problem, settings, control)?;
        for heat in distinct.chunks(LANES) {
            evaluator.scores(heat, POLISH_TOLERANCE)?;
            for _ in heat {
                control.advance();
            }
        }
        Ok(candidates.iter().map(|&candidate| evaluator.carried_qps(candidate)).collect())
    })?
}

fn solve(problem: &Problem, settings: &Settings, control: &Control) -> Result<Outcome> {
    let mut evaluator = Evaluator::new(problem, settings, control)?;
    let mut path = Vec::new();
    let best = find(&mut evaluator, &problem.starts, settings, &mut path)?;
    let mut chosen = evaluator.chosen();
    if let Some(best) = best {
        // The method's own answer leads, which may have been measured more finely than the rest.
        chosen.retain(|(candidate, _)| *candidate != best);
        chosen.insert(0, (best, evaluator.qps(best)));
    }
    // In reserve: what only the short run knows.
    evaluator.blunt();
    for reserve in evaluator.chosen() {
        if chosen.iter().all(|known| known.0 != reserve.0) {
            chosen.push(reserve);
        }
    }
    let ends = if settings.front { front_winners(&mut evaluator, best, settings)? } else { Vec::new() };
    let complete = !evaluator.is_late;
    let mut judged =
        |goal: Goal, found: (usize, f64)| answer::judge(problem, settings, goal, found, &mut evaluator.counts, control);
    let mut top = Vec::new();
    for (tried, found) in chosen.into_iter().enumerate() {
        // One that carries nothing after all, being a lucky draw, makes room for the next.
        if top.len() == settings.top || (tried >= settings.top && settings.is_late()) {
            break;
        }
        top.extend(judged(problem.goal, found)?);
    }
    top.sort_by(|a, b| b.score.total_cmp(&a.score));
    let mut front: Vec<Answer> = top.first().cloned().into_iter().filter(|_| settings.front).collect();
    for (goal, found) in ends {
        front.extend(judged(goal, found)?);
    }
    // A search for another goal may have come upon a better answer to this one, or one as good for less power.
    for answer in &front {
        let score = problem.goal.objective.score(answer.qps, answer.power_w);
        let is_better = |best: &Answer| (score, -answer.power_w) > (best.score, -best.power_w);
        if top.first().is_none_or(is_better) && answer.power_w <= problem.goal.power_budget_w {
            top.retain(|known| known.candidate != answer.candidate);
            top.insert(0, Answer { score, ..answer.clone() });
            top.truncate(settings.top);
        }
    }
    let verdict = match top.first() {
        Some(answer) => Ok(answer.clone()),
        None => Err(evaluator.infeasible()?),
    };
    Ok(Outcome { verdict, top, front: undominated(front), complete, counts: evaluator.counts, path })
}

/// The best candidate under the evaluator's goal, by the method that was asked for; where a search had to end early, the
/// best that it had measured.
fn find(
    evaluator: &mut Evaluator<'_>,
    starts: &[usize],
    settings: &Settings,
    path: &mut Vec<PathPoint>,
) -> Result<Option<usize>> {
    let found = match settings.method {
        Method::Gradient => gradient::search(evaluator, starts, path),
        Method::Exhaustive => exhaustive::search(evaluator, true),
        Method::ExhaustiveUnpruned => exhaustive::search(evaluator, false),
        Method::Hill => hill::search(evaluator, path),
        Method::Lines => lines::search(evaluator, path),
        Method::Random => random::search(evaluator, path),
    };
    match found {
        Ok(best) => Ok(best.map(|best| best.0)),
        Err(Error::Cancelled) if evaluator.is_late => {
            if evaluator.chosen().is_empty() {
                evaluator.blunt();
            }
            Ok(evaluator.chosen().first().map(|best| best.0))
        }
        Err(error) => Err(error),
    }
}

/// Goals and their winners from the best load per watt to the best load: those two, and the best loads at powers between
/// theirs. What one search learned serves the next.
fn front_winners(
    evaluator: &mut Evaluator<'_>,
    best: Option<usize>,
    settings: &Settings,
) -> Result<Vec<(Goal, (usize, f64))>> {
    let given = evaluator.goal();
    let mut found: Vec<(Goal, (usize, f64))> = Vec::new();
    let mut starts: Vec<usize> = evaluator.problem.starts.iter().copied().chain(best).collect();
    let mut ends_w = Vec::new();
    for objective in [Objective::QPS_PER_WATT, Objective::QPS] {
        let goal = Goal { objective, ..given };
        evaluator.set_goal(goal);
        let Some(winner) = find(evaluator, &starts, settings, &mut Vec::new())? else { return Ok(Vec::new()) };
        found.push((goal, (winner, evaluator.qps(winner))));
        ends_w.push(evaluator.power_w(winner));
        starts.push(winner);
    }
    let (low_w, high_w) = (ends_w[0], ends_w[1]);
    let mut winners: Vec<usize> = found.iter().map(|(_, (winner, _))| *winner).collect();
    for k in 1..=FRONT_BUDGETS {
        let power_budget_w = high_w + (low_w - high_w) * k as f64 / (FRONT_BUDGETS + 1) as f64;
        if low_w >= high_w {
            break;
        }
        let goal = Goal { objective: Objective::QPS, power_budget_w };
        evaluator.set_goal(goal);
        if let Some(winner) = find(evaluator, &winners, settings, &mut Vec::new())? {
            found.push((goal, (winner, evaluator.qps(winner))));
            winners.push(winner);
        }
    }
    evaluator.set_goal(given);
    Ok(found)
}

/// By falling load, without any that another one makes useless, or that is nearly the same as the one before.
fn undominated(mut answers: Vec<Answer>) -> Vec<Answer> {
    answers.sort_by(|a, b| b.qps.total_cmp(&a.qps).then(a.power_w.total_cmp(&b.power_w)));
    let mut kept: Vec<Answer> = Vec::new();
    for answer in answers {
        let apart = |last: &Answer| {
            let is_near = |a: f64, b: f64| a - b <= POLISH_TOLERANCE * a;
            let is_same = is_near(last.qps, answer.qps) && is_near(last.power_w, answer.power_w);
            answer.power_w < last.power_w && !is_same
        };
        if kept.last().is_none_or(apart) {
            kept.push(answer);
        }
    }
    kept
}

//! Search for the scheduling configuration with the highest load under latency targets.
//!
//! A [`Problem`] is data: a service table, traffic, a list of candidate configurations with lattice coordinates, and
//! targets. [`gradient`] walks the lattice from a few starts, [`exhaustive`] looks at every candidate; both probe on
//! one fixed run of queries, so that candidates differ by what they are and not by luck. The winner is then judged
//! anew on independent runs ([`answer`]), which the search has not seen and so has not fitted.

pub mod answer;
pub mod evaluator;
pub mod exhaustive;
pub mod gradient;
pub mod hill;
pub mod lattice;
pub mod lines;
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
use rayon::prelude::*;
use std::sync::Arc;

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
        Ok(Self { grid, traffic, candidates, lattice, starts, lines, targets })
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
    /// Queries per probe.
    pub queries: usize,
    /// Queries per replication of the final answer.
    pub final_queries: usize,
    pub replications: usize,
    /// Highest utilisation of any stage.
    pub cap: f64,
    /// Relative width of the final answer's bracket of the load.
    pub tolerance: f64,
    /// Most candidates that are simulated under load; what was found by then is the answer.
    pub evaluations: Option<u64>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            method: Method::Gradient,
            queries: 4096,
            final_queries: 16384,
            replications: 5,
            cap: 0.95,
            tolerance: POLISH_TOLERANCE,
            evaluations: None,
        }
    }
}

/// Largest number of replications.
const MAX_REPLICATIONS: usize = 1000;

/// Relative width of the rate's bracket during the walk and in the last polish.
pub(crate) const WALK_TOLERANCE: f64 = 0.01;
pub(crate) const POLISH_TOLERANCE: f64 = 0.0025;

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

    fn check(&self, problems: &[Arc<Problem>]) -> Result<()> {
        check_run(self.queries, 0)?;
        if self.evaluations == Some(0) {
            return Err(Error::invalid("evaluations", "is 0; at least 1 is needed"));
        }
        if self.replications == 0 || self.replications > MAX_REPLICATIONS {
            let message = format!("is {}; allowed are 1 to {MAX_REPLICATIONS}", self.replications);
            return Err(Error::invalid("replications", message));
        }
        for problem in problems {
            self.rules(&problem.targets, self.queries).check()?;
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
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PathPoint {
    pub candidate: usize,
    /// Load on the search's run of queries; 0 while infeasible.
    pub qps: f64,
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
    pub counts: Counts,
    pub path: Vec<PathPoint>,
}

/// Search every problem, in parallel over problems and in order in the result. `None` stands for a problem that was
/// not finished when `control` asked to stop. `finished` is told each outcome, with its position, as soon as it is there
/// and on the thread that found it.
pub fn run(
    problems: &[Arc<Problem>],
    settings: &Settings,
    threads: usize,
    finished: &(dyn Fn(usize, &Outcome) + Sync),
    control: &Control,
) -> Result<Vec<Option<Outcome>>> {
    settings.check(problems)?;
    pool::install(threads, || {
        problems
            .par_iter()
            .with_max_len(1)
            .enumerate()
            .map(|(index, problem)| match solve(problem, settings, control) {
                Ok(outcome) => {
                    finished(index, &outcome);
                    control.advance();
                    Ok(Some(outcome))
                }
                Err(Error::Cancelled) => Ok(None),
                Err(error) => Err(error),
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
            evaluator.rates(heat, POLISH_TOLERANCE)?;
            for _ in heat {
                control.advance();
            }
        }
        // Known by now: nothing is simulated again.
        candidates.iter().map(|&candidate| Ok(evaluator.rates(&[candidate], POLISH_TOLERANCE)?[0])).collect()
    })?
}

fn solve(problem: &Problem, settings: &Settings, control: &Control) -> Result<Outcome> {
    let mut evaluator = Evaluator::new(problem, settings, control)?;
    let mut path = Vec::new();
    let best = match settings.method {
        Method::Gradient => gradient::search(&mut evaluator, &mut path)?,
        Method::Exhaustive => exhaustive::search(&mut evaluator, true)?,
        Method::ExhaustiveUnpruned => exhaustive::search(&mut evaluator, false)?,
        Method::Hill => hill::search(&mut evaluator, &mut path)?,
        Method::Lines => lines::search(&mut evaluator, &mut path)?,
        Method::Random => random::search(&mut evaluator, &mut path)?,
    };
    let answer = match best {
        Some((candidate, qps)) => answer::judge(problem, settings, candidate, qps, &mut evaluator.counts, control)?,
        None => None,
    };
    let verdict = match answer {
        Some(answer) => Ok(answer),
        None => Err(evaluator.infeasible()?),
    };
    Ok(Outcome { verdict, counts: evaluator.counts, path })
}

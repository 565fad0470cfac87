//! All intervals of a timeline: from basis to basis, chunk by chunk, on several threads.
//!
//! The timeline is cut into chunks of a fixed length. The first interval of each chunk is solved from the first of the
//! chunk before, one after the other; then the chunks go on by themselves, in any order. So the way to each answer, and
//! with it its last bit, depends on the timeline only.

use super::fleet::{COSTS, DEMANDS, Fleet, Interval, PENALTIES};
use super::pricing::{Columns, Costs};
use super::solver::{Answer, Solver, shed_penalties};
use crate::control::Control;
use crate::error::{Error, Result};
use std::borrow::Cow;
use std::sync::{Mutex, PoisonError};

/// Intervals that follow each other's basis.
const CHUNK: usize = 12;
/// Chunks that may be begun before the first of them is done: each keeps a basis.
const WAVE: usize = 32;

/// What the intervals of a timeline ask for; arrays are interval by interval.
#[derive(Clone, Copy, Debug)]
pub struct Timeline<'a> {
    /// `[intervals, workloads]`.
    pub demand: &'a [f64],
    /// `[intervals, types]`, or `[types]` where it stays.
    pub stock: &'a [u32],
    /// `[intervals, workloads]`; `None`: chosen, and raised until the least load is shed.
    pub penalty: Option<&'a [f64]>,
    /// `[intervals, types]`.
    pub watt_cost: Option<&'a [f64]>,
    /// `[intervals, types]`.
    pub machine_cost: Option<&'a [f64]>,
}

impl<'a> Timeline<'a> {
    fn intervals(&self, fleet: &Fleet<'_>) -> usize {
        self.demand.len() / fleet.workloads()
    }

    /// Interval `t` with `penalty`, its shape checked by [`Timeline::check`].
    pub(super) fn interval<'b>(&self, fleet: &Fleet<'_>, t: usize, penalty: &'b [f64]) -> Interval<'b>
    where
        'a: 'b,
    {
        let (types, workloads) = (fleet.types(), fleet.workloads());
        let by_type = |values: &'a [f64]| &values[t * types..(t + 1) * types];
        Interval {
            demand: &self.demand[t * workloads..(t + 1) * workloads],
            stock: if self.stock.len() == types { self.stock } else { &self.stock[t * types..(t + 1) * types] },
            penalty,
            watt_cost: self.watt_cost.map(by_type),
            machine_cost: self.machine_cost.map(by_type),
        }
    }

    /// Whether shapes and values fit `fleet`; the number of intervals.
    pub(super) fn check(&self, fleet: &Fleet<'_>) -> Result<usize> {
        let (types, workloads) = (fleet.types(), fleet.workloads());
        let n = self.intervals(fleet);
        if n == 0 || self.demand.len() != n * workloads {
            let message = format!("has {} entries; must have some intervals of {workloads}", self.demand.len());
            return Err(Error::invalid("demand", message));
        }
        if self.stock.len() != types && self.stock.len() != n * types {
            let message = format!("has {} entries; must have {types}, or {n} x {types}", self.stock.len());
            return Err(Error::invalid("stock", message));
        }
        for (field, values, width, range) in [
            ("demand", Some(self.demand), workloads, DEMANDS),
            ("penalty", self.penalty, workloads, PENALTIES),
            ("watt_cost", self.watt_cost, types, COSTS),
            ("machine_cost", self.machine_cost, types, COSTS),
        ] {
            let Some(values) = values else { continue };
            if values.len() != n * width {
                return Err(Error::invalid(field, format!("has {} entries; must have {n} x {width}", values.len())));
            }
            range.check(field, values, width)?;
        }
        Ok(n)
    }

    /// Whether costs, and with them chosen penalties, may differ between two intervals.
    fn costs_vary(&self) -> bool {
        self.watt_cost.is_some() || self.machine_cost.is_some()
    }
}

/// The optimum of every interval; `None` for those that were not reached before the caller asked to stop.
pub fn solve(fleet: Fleet<'_>, timeline: &Timeline<'_>, control: &Control) -> Result<Vec<Option<Answer>>> {
    let n = timeline.check(&fleet)?;
    let columns = Columns::new(fleet)?;
    let penalties = Penalties::new(&columns, timeline);
    let solve_at = |solver: &mut Solver<'_>, t: usize| -> Result<Option<Answer>> {
        if control.cancelled() {
            return Ok(None);
        }
        let penalty = penalties.at(&columns, timeline, t);
        let interval = timeline.interval(&fleet, t, &penalty);
        match solver.solve(&interval, timeline.penalty.is_some(), timeline.costs_vary(), control) {
            Ok(answer) => {
                control.advance();
                Ok(Some(answer))
            }
            Err(Error::Cancelled) => Ok(None),
            Err(Error::Unsolved(message)) => Err(Error::Unsolved(format!("interval {t}: {message}"))),
            Err(error) => Err(error),
        }
    };

    if n == 1 {
        return Ok(vec![solve_at(&mut Solver::new(&columns), 0)?]); // on the caller's thread, whether of a pool or not
    }
    let mut answers = vec![None; n];
    let failed = Mutex::new(None);
    let mut solver = Solver::new(&columns);
    for (wave, answers) in answers.chunks_mut(WAVE * CHUNK).enumerate() {
        rayon::scope(|scope| {
            for (chunk, answers) in answers.chunks_mut(CHUNK).enumerate() {
                let begin = (wave * WAVE + chunk) * CHUNK;
                let Some((first, rest)) = answers.split_first_mut() else { continue };
                match solve_at(&mut solver, begin) {
                    Ok(answer) => *first = answer,
                    Err(error) => return keep_first(&failed, begin, error),
                }
                // The rest of the chunk goes on by itself while the next chunk is begun.
                let mut solver = solver.clone();
                let (solve_at, failed) = (&solve_at, &failed);
                scope.spawn(move |_| {
                    for (t, answer) in (begin + 1..).zip(rest) {
                        match solve_at(&mut solver, t) {
                            Ok(found) => *answer = found,
                            Err(error) => return keep_first(failed, t, error),
                        }
                    }
                });
            }
        });
        if let Some((_, error)) = failed.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return Err(error);
        }
    }
    Ok(answers)
}

/// Keep the error of the earliest interval: the same one, whichever thread met its own first.
fn keep_first(failed: &Mutex<Option<(usize, Error)>>, t: usize, error: Error) {
    let mut failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
    if failed.as_ref().is_none_or(|(first, _)| t < *first) {
        *failed = Some((t, error));
    }
}

/// What a q/s that is shed costs in each interval, before raises.
enum Penalties<'a> {
    Given(&'a [f64]),
    Common(Vec<f64>),
    /// Costs vary: chosen by interval, over the types that are in stock in some interval.
    Chosen(Vec<u32>),
}

impl<'a> Penalties<'a> {
    fn new(columns: &Columns<'_>, timeline: &Timeline<'a>) -> Self {
        let fleet = columns.fleet();
        if let Some(given) = timeline.penalty {
            return Self::Given(given);
        }
        let types = fleet.types();
        let most: Vec<u32> =
            (0..types).map(|h| timeline.stock.iter().skip(h).step_by(types).copied().max().unwrap_or(0)).collect();
        if timeline.costs_vary() {
            return Self::Chosen(most);
        }
        Self::Common(shed_penalties(columns, Costs::of(&timeline.interval(fleet, 0, &[])), &most))
    }

    fn at(&self, columns: &Columns<'_>, timeline: &Timeline<'_>, t: usize) -> Cow<'_, [f64]> {
        let fleet = columns.fleet();
        match self {
            Self::Given(all) => Cow::Borrowed(&all[t * fleet.workloads()..(t + 1) * fleet.workloads()]),
            Self::Common(penalty) => Cow::Borrowed(penalty),
            Self::Chosen(most) => {
                Cow::Owned(shed_penalties(columns, Costs::of(&timeline.interval(fleet, t, &[])), most))
            }
        }
    }
}

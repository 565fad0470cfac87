//! All intervals of a timeline: from basis to basis, chunk by chunk, on several threads.
//!
//! The timeline is cut into chunks of a fixed length. The first interval of each chunk is solved from the first of the
//! chunk before, one after the other; then the chunks go on by themselves, in any order. So the way to each answer, and
//! with it its last bit, depends on the timeline only.

use super::fleet::{Fleet, Interval};
use super::pricing::{Columns, Costs};
use super::solver::{Answer, Solver, shed_penalties};
use crate::control::Control;
use crate::error::{Error, Result};
use std::sync::{Mutex, PoisonError};

/// Intervals that follow each other's basis.
const CHUNK: usize = 12;

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

    /// Interval `t` with `penalty`, its shape checked by [`Interval::check`].
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

    /// Whether shapes fit `fleet`; the number of intervals.
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
        for (field, values, width) in [
            ("penalty", self.penalty, workloads),
            ("watt_cost", self.watt_cost, types),
            ("machine_cost", self.machine_cost, types),
        ] {
            if let Some(values) = values
                && values.len() != n * width
            {
                return Err(Error::invalid(field, format!("has {} entries; must have {n} x {width}", values.len())));
            }
        }
        Ok(n)
    }

    /// Whether costs or stock-dependent penalties may differ between two intervals.
    fn costs_vary(&self) -> bool {
        self.watt_cost.is_some() || self.machine_cost.is_some()
    }
}

/// The optimum of every interval; `None` for those that were not reached before the caller asked to stop.
pub fn solve(fleet: Fleet<'_>, timeline: &Timeline<'_>, control: &Control) -> Result<Vec<Option<Answer>>> {
    let n = timeline.check(&fleet)?;
    let columns = Columns::new(fleet)?;
    let common = match timeline.penalty {
        None if !timeline.costs_vary() => {
            let some = timeline.interval(&fleet, 0, &[]);
            let most: Vec<u32> = (0..fleet.types())
                .map(|h| timeline.stock.iter().skip(h).step_by(fleet.types()).copied().max().unwrap_or(0))
                .collect();
            Some(shed_penalties(&columns, Costs::of(&some), &most))
        }
        _ => None,
    };
    let solve_at = |solver: &mut Solver<'_>, t: usize| -> Result<Option<Answer>> {
        let own;
        let workloads = fleet.workloads();
        let penalty = match (timeline.penalty, &common) {
            (Some(penalty), _) => &penalty[t * workloads..(t + 1) * workloads],
            (None, Some(common)) => common.as_slice(),
            (None, None) => {
                let unpriced = timeline.interval(&fleet, t, &[]);
                own = shed_penalties(&columns, Costs::of(&unpriced), unpriced.stock);
                &own
            }
        };
        let interval = timeline.interval(&fleet, t, penalty);
        interval.check(&fleet)?;
        if control.cancelled() {
            return Ok(None);
        }
        match solver.solve(&interval, timeline.penalty.is_some(), timeline.costs_vary(), control) {
            Ok(answer) => {
                control.advance();
                Ok(Some(answer))
            }
            Err(Error::Cancelled) => Ok(None),
            Err(error) => Err(error),
        }
    };

    if n == 1 {
        return Ok(vec![solve_at(&mut Solver::new(&columns), 0)?]); // on the caller's thread, whether of a pool or not
    }
    let mut answers = vec![None; n];
    let failed = Mutex::new(None);
    rayon::scope(|scope| {
        let mut solver = Solver::new(&columns);
        for (chunk, answers) in answers.chunks_mut(CHUNK).enumerate() {
            let Some((first, rest)) = answers.split_first_mut() else { continue };
            match solve_at(&mut solver, chunk * CHUNK) {
                Ok(answer) => *first = answer,
                Err(error) => return keep(&failed, error),
            }
            // The rest of the chunk goes on by itself while the next chunk is begun.
            let mut solver = solver.clone();
            let (solve_at, failed) = (&solve_at, &failed);
            scope.spawn(move |_| {
                for (place, answer) in rest.iter_mut().enumerate() {
                    match solve_at(&mut solver, chunk * CHUNK + 1 + place) {
                        Ok(found) => *answer = found,
                        Err(error) => return keep(failed, error),
                    }
                }
            });
        }
    });
    match failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(error) => Err(error),
        None => Ok(answers),
    }
}

fn keep(failed: &Mutex<Option<Error>>, error: Error) {
    failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
}

//! The usual hill climbing over configurations, for comparison: from one start of each kind, every neighbour along an axis
//! is measured in full, and the best of them is the next to stand on, until none is better. Model Analyzer's quick search
//! climbs so over instances and batch sizes.

use crate::error::Result;
use crate::search::evaluator::{Evaluator, LANES};
use crate::search::{PathPoint, Step, WALK_TOLERANCE};
use std::collections::BTreeSet;

/// Best candidate found and its load; none if no start leads to a candidate that carries any.
pub fn search(evaluator: &mut Evaluator<'_>, path: &mut Vec<PathPoint>) -> Result<Option<(usize, f64)>> {
    let problem = evaluator.problem;
    let mut kinds = BTreeSet::new();
    let mut best: Option<(usize, f64)> = None;
    for &start in problem.starts.iter().filter(|start| kinds.insert(problem.lattice.kind(**start))) {
        let (mut here, mut step) = (start, Step::Start);
        let mut qps = evaluator.rates(&[here], WALK_TOLERANCE)?[0];
        loop {
            path.push(PathPoint { candidate: here, qps, step });
            let around: Vec<usize> = problem
                .lattice
                .neighbours(here)
                .into_iter()
                .filter(|(_, s)| *s == Step::Axis)
                .map(|(c, _)| c)
                .collect();
            let mut next = None;
            for heat in around.chunks(LANES) {
                for (&candidate, rate) in heat.iter().zip(evaluator.rates(heat, WALK_TOLERANCE)?) {
                    if rate > qps {
                        (next, qps) = (Some(candidate), rate);
                    }
                }
            }
            match next {
                Some(candidate) => (here, step) = (candidate, Step::Axis),
                None => break,
            }
        }
        if qps > best.map_or(0.0, |best| best.1) {
            best = Some((here, qps));
        }
    }
    Ok(best)
}

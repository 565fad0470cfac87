//! Every candidate: what the gradient search is held against.

use crate::error::Result;
use crate::search::POLISH_TOLERANCE;
use crate::search::evaluator::{Evaluator, LANES};

/// Best candidate and its load; none if no candidate carries any. With `prune`, candidates are taken by falling bound
/// until none exceeds the best so far, which cannot change the load that is found.
pub fn search(evaluator: &mut Evaluator<'_>, prune: bool) -> Result<Option<(usize, f64)>> {
    let mut order: Vec<usize> = (0..evaluator.problem.candidates()).collect();
    if prune {
        order.sort_by(|a, b| evaluator.bound_qps(*b).total_cmp(&evaluator.bound_qps(*a)));
    }
    let mut best: Option<(usize, f64)> = None;
    for heat in order.chunks(LANES) {
        if prune && best.is_some_and(|best| evaluator.bound_qps(heat[0]) <= best.1) {
            break;
        }
        for (&candidate, qps) in heat.iter().zip(evaluator.rates(heat, POLISH_TOLERANCE)?) {
            if qps > best.map_or(0.0, |best| best.1) {
                best = Some((candidate, qps));
            }
        }
    }
    Ok(best)
}

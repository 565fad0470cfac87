//! Candidates drawn at random, each measured in full, for comparison.

use crate::error::Result;
use crate::rng::{Purpose, Stream};
use crate::search::evaluator::{Evaluator, LANES};
use crate::search::{PathPoint, Problem, Step, WALK_TOLERANCE};

/// All candidates in a random order that depends on the seed alone.
pub fn order(problem: &Problem) -> Vec<usize> {
    let stream = Stream::new(problem.traffic.seed(), Purpose::Search, 0);
    let mut order: Vec<usize> = (0..problem.candidates()).collect();
    order.sort_by_key(|candidate| (stream.bits(*candidate as u64), *candidate));
    order
}

/// Best of the first candidates in random order, as many as may be evaluated; none if none carries any load.
pub fn search(evaluator: &mut Evaluator<'_>, path: &mut Vec<PathPoint>) -> Result<Option<(usize, f64)>> {
    let mut best: Option<(usize, f64)> = None;
    for heat in order(evaluator.problem).chunks(LANES) {
        if evaluator.is_spent() {
            break;
        }
        for (&candidate, qps) in heat.iter().zip(evaluator.rates(heat, WALK_TOLERANCE)?) {
            if qps > best.map_or(0.0, |best| best.1) {
                path.push(PathPoint { candidate, qps, step: Step::Race });
                best = Some((candidate, qps));
            }
        }
    }
    Ok(best)
}

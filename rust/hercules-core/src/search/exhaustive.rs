//! Every candidate in order: what the gradient search is held against.

use crate::error::Result;
use crate::search::POLISH_TOLERANCE;
use crate::search::evaluator::Evaluator;

/// Best candidate and its score; none if no candidate carries any load. With `prune`, candidates whose bound does not
/// exceed the best so far are skipped, which cannot change the answer.
pub fn search(evaluator: &mut Evaluator<'_>, prune: bool) -> Result<Option<(usize, f64)>> {
    let mut best: Option<(usize, f64)> = None;
    for candidate in 0..evaluator.problem.candidates() {
        let to_beat = best.map_or(0.0, |best| best.1);
        if prune && !evaluator.may_beat(candidate, to_beat)? {
            continue;
        }
        let score = evaluator.score(candidate, POLISH_TOLERANCE)?;
        if score > to_beat {
            best = Some((candidate, score));
        }
    }
    Ok(best)
}

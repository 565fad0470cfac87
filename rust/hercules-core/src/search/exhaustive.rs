//! Every candidate: what the gradient search is held against.

use crate::error::Result;
use crate::search::evaluator::{Evaluator, LANES};
use crate::search::{CONTENDERS, POLISH_TOLERANCE};

/// Best candidate found and its score; none if no candidate carries any load. All are measured on the short run; those
/// that come within [`CONTENDERS`] of the best are measured again on the long one. With `prune`, candidates are taken by
/// falling bound until none can come so near, and the second time only those that win a race are measured.
pub fn search(evaluator: &mut Evaluator<'_>, prune: bool) -> Result<Option<(usize, f64)>> {
    let mut order: Vec<usize> = (0..evaluator.problem.candidates()).collect();
    if prune {
        order.sort_by(|a, b| evaluator.bound(*b).total_cmp(&evaluator.bound(*a)));
    }
    evaluator.blunt();
    let mut best: f64 = 0.0;
    let mut measured: Vec<(usize, f64)> = Vec::new();
    for heat in order.chunks(LANES) {
        if prune && evaluator.bound(heat[0]) < best * (1.0 - CONTENDERS) {
            break;
        }
        for (&candidate, score) in heat.iter().zip(evaluator.scores(heat, POLISH_TOLERANCE)?) {
            measured.push((candidate, score));
            best = best.max(score);
        }
    }
    measured.retain(|(_, score)| *score > 0.0 && *score >= best * (1.0 - CONTENDERS));
    measured.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    let contenders: Vec<usize> = measured.into_iter().map(|(candidate, _)| candidate).collect();
    evaluator.sharpen()?;
    let mut best: Option<(usize, f64)> = None;
    for heat in contenders.chunks(LANES) {
        let to_beat = best.map_or(0.0, |best| best.1);
        let winners = match best {
            Some(_) if prune => evaluator.reaching(heat, to_beat * (1.0 + POLISH_TOLERANCE))?,
            _ => heat.to_vec(),
        };
        for (&candidate, score) in winners.iter().zip(evaluator.scores(&winners, POLISH_TOLERANCE)?) {
            if score > best.map_or(0.0, |best| best.1) {
                best = Some((candidate, score));
            }
        }
    }
    Ok(best)
}

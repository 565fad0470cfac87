//! One line of candidates after another, each left at the first that is worse than the one before it: how DeepRecSys tunes
//! the batch size on the processor and then, with that batch, the size from which queries go to the accelerator.

use crate::error::Result;
use crate::search::evaluator::Evaluator;
use crate::search::{PathPoint, Step, WALK_TOLERANCE};

/// Walk `lines[0]`; then the line that belongs to its winner, `lines[1 + k]` for its k-th entry. Best candidate seen
/// and its load; none if no candidate on the way carries any.
pub fn search(evaluator: &mut Evaluator<'_>, path: &mut Vec<PathPoint>) -> Result<Option<(usize, f64)>> {
    let lines = &evaluator.problem.lines;
    let Some(first) = lines.first() else { return Ok(None) };
    let Some((place, qps)) = walk(evaluator, first, path)? else { return Ok(None) };
    let best = (first[place], qps);
    let second = lines.get(1 + place).map(|line| Ok((line, walk(evaluator, line, path)?))).transpose()?;
    Ok(Some(match second {
        Some((line, Some((place, qps)))) if qps > best.1 => (line[place], qps),
        _ => best,
    }))
}

/// Place and load of the best on `line` up to the first that is worse than its predecessor.
fn walk(evaluator: &mut Evaluator<'_>, line: &[usize], path: &mut Vec<PathPoint>) -> Result<Option<(usize, f64)>> {
    let mut best: Option<(usize, f64)> = None;
    for (place, &candidate) in line.iter().enumerate() {
        let qps = evaluator.rates(&[candidate], WALK_TOLERANCE)?[0];
        path.push(PathPoint { candidate, qps, step: if place == 0 { Step::Start } else { Step::Axis } });
        if best.is_some_and(|best| qps < best.1) {
            break;
        }
        if qps > best.map_or(0.0, |best| best.1) {
            best = Some((place, qps));
        }
    }
    Ok(best)
}

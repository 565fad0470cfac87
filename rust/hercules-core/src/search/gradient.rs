//! Steepest ascent on the lattice from several starts, then races against scattered candidates.

use crate::error::Result;
use crate::rng::{Purpose, Stream};
use crate::search::evaluator::Evaluator;
use crate::search::{POLISH_TOLERANCE, PathPoint, Step, WALK_TOLERANCE};
use std::collections::BTreeSet;

/// A step must gain this share, else scores within the bracket's width would be taken for progress.
const LEAST_GAIN: f64 = 0.01;
const POLISH_GAIN: f64 = 0.0025;

/// Share of the candidates, and least number, that are raced against the best after the walks. A lost race ends after
/// the first few late queries, so this insurance against hills that no start leads to costs little work.
const SCATTER_SHARE: f64 = 0.04;
const LEAST_SCATTER: usize = 8;

/// Climb from `starts`. Best candidate found and its score; none if no candidate carries any load.
pub fn search(
    evaluator: &mut Evaluator<'_>,
    starts: &[usize],
    path: &mut Vec<PathPoint>,
) -> Result<Option<(usize, f64)>> {
    let scatter_left = LEAST_SCATTER.max((evaluator.problem.candidates() as f64 * SCATTER_SHARE) as usize);
    let mut walk = Walk { evaluator, path, trodden: BTreeSet::new(), scatter_left, best: None };
    for start in starts {
        walk.climb(*start, Step::Start)?;
    }
    if walk.best.is_none()
        && let Some(start) = walk.least_excess()?
    {
        walk.climb(start, Step::Start)?;
    }
    walk.scatter(LEAST_GAIN)?;
    walk.polish()?;
    walk.scatter(POLISH_GAIN)?;
    walk.polish()?;
    Ok(walk.best)
}

struct Walk<'w, 'a> {
    evaluator: &'w mut Evaluator<'a>,
    path: &'w mut Vec<PathPoint>,
    /// Points that a walk has stood on: a later walk that meets one would only repeat the rest of it.
    trodden: BTreeSet<usize>,
    /// Untried candidates that may still be raced.
    scatter_left: usize,
    best: Option<(usize, f64)>,
}

impl Walk<'_, '_> {
    fn climb(&mut self, start: usize, how: Step) -> Result<()> {
        let (mut here, mut step, mut came_from) = (start, how, None);
        while self.trodden.insert(here) {
            let score = self.evaluator.score_of_neighbour(here, WALK_TOLERANCE)?;
            self.stand_on(here, score, step);
            let next =
                if score > 0.0 { self.onward_or_uphill(came_from, here, score)? } else { self.towards_feasible(here)? };
            match next {
                Some(found) => {
                    came_from = Some(here);
                    (here, step) = found;
                }
                None => break,
            }
        }
        Ok(())
    }

    /// The last move once more while it gains: a straight climb needs no look to the sides.
    fn onward_or_uphill(&mut self, came_from: Option<usize>, here: usize, score: f64) -> Result<Option<(usize, Step)>> {
        let onward = came_from.and_then(|from| self.evaluator.problem.lattice.onward(from, here));
        if let Some((next, step)) = onward
            && self.evaluator.reaches(next, score * (1.0 + LEAST_GAIN))?
        {
            return Ok(Some((next, step)));
        }
        self.uphill(here, score, LEAST_GAIN, WALK_TOLERANCE)
    }

    fn stand_on(&mut self, candidate: usize, score: f64, step: Step) {
        self.path.push(PathPoint { candidate, qps: self.evaluator.qps(candidate), score, step });
        if score > self.best.map_or(0.0, |best| best.1) {
            self.best = Some((candidate, score));
        }
    }

    /// The best neighbour that gains at least `gain`, looked for nearby and, from the best hill so far, farther away.
    fn uphill(&mut self, here: usize, score: f64, gain: f64, tolerance: f64) -> Result<Option<(usize, Step)>> {
        let lattice = &self.evaluator.problem.lattice;
        let near = self.best_of(lattice.neighbours(here), score * (1.0 + gain), tolerance)?;
        let is_best_hill = self.best.is_none_or(|best| score >= best.1);
        if near.is_some() || !is_best_hill {
            return Ok(near);
        }
        self.best_of(lattice.far_neighbours(here), score * (1.0 + gain), tolerance)
    }

    /// Race the neighbours: each must reach the score of the best so far, and only one that does is measured. Those
    /// with the highest bound go first, for an early winner makes the others lose early.
    fn best_of(
        &mut self,
        neighbours: Vec<(usize, Step)>,
        mut threshold: f64,
        tolerance: f64,
    ) -> Result<Option<(usize, Step)>> {
        let mut order: Vec<_> = neighbours.into_iter().map(|(c, step)| (self.evaluator.bound(c), c, step)).collect();
        order.sort_by(|a, b| b.0.total_cmp(&a.0));
        let mut best = None;
        for (_, candidate, step) in order {
            if self.evaluator.reaches(candidate, threshold)? {
                let score = self.evaluator.score_of_neighbour(candidate, tolerance)?;
                threshold = score * (1.0 + tolerance);
                best = Some((candidate, step));
            }
        }
        Ok(best)
    }

    /// Where even the empty system is too slow there is no load to climb by: go to the neighbour that is least too slow.
    fn towards_feasible(&mut self, here: usize) -> Result<Option<(usize, Step)>> {
        let lattice = &self.evaluator.problem.lattice;
        let mut least = self.evaluator.excess(here)?;
        for neighbours in [lattice.neighbours(here), lattice.far_neighbours(here)] {
            let mut best = None;
            for (candidate, _) in neighbours {
                let excess = self.evaluator.excess(candidate)?;
                if excess < least {
                    least = excess;
                    best = Some((candidate, Step::Feasibility));
                }
            }
            if best.is_some() {
                return Ok(best);
            }
        }
        Ok(None)
    }

    /// Of all candidates the one that is fastest when empty, if that meets the targets.
    fn least_excess(&mut self) -> Result<Option<usize>> {
        let mut best = None;
        let mut least = f64::INFINITY;
        for candidate in 0..self.evaluator.problem.candidates() {
            let excess = self.evaluator.excess(candidate)?;
            if excess < least {
                least = excess;
                best = Some(candidate);
            }
        }
        Ok(best.filter(|candidate| least <= 1.0 && !self.trodden.contains(candidate)))
    }

    /// Race candidates from all over the lattice against the best, and climb from any that wins by `gain`.
    fn scatter(&mut self, gain: f64) -> Result<()> {
        let candidates = self.evaluator.problem.candidates();
        let stream = Stream::new(self.evaluator.problem.traffic.seed(), Purpose::Search, 0);
        let mut order: Vec<usize> = (0..candidates).collect();
        order.sort_by_key(|candidate| (stream.bits(*candidate as u64), *candidate));
        for candidate in order {
            let Some((_, best)) = self.best else { return Ok(()) };
            let to_beat = best * (1.0 + gain);
            if !self.evaluator.may_reach(candidate, to_beat) {
                continue;
            }
            if !self.evaluator.is_tried(candidate) {
                if self.scatter_left == 0 {
                    continue;
                }
                self.scatter_left -= 1;
            }
            if self.evaluator.reaches(candidate, to_beat)? {
                self.climb(candidate, Step::Scatter)?;
            }
        }
        Ok(())
    }

    /// Measure the best more finely and take the small gains that the walk passed over.
    fn polish(&mut self) -> Result<()> {
        let Some((mut here, _)) = self.best else { return Ok(()) };
        let mut stood = BTreeSet::from([here]);
        let mut score = self.evaluator.score_of_neighbour(here, POLISH_TOLERANCE)?;
        self.best = Some((here, score));
        while let Some((next, _)) = self.uphill(here, score, POLISH_GAIN, POLISH_TOLERANCE)? {
            if !stood.insert(next) {
                break;
            }
            here = next;
            score = self.evaluator.score_of_neighbour(here, POLISH_TOLERANCE)?;
            self.stand_on(here, score, Step::Polish);
        }
        Ok(())
    }
}

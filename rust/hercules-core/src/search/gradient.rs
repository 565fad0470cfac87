//! From above, then uphill: the candidates with the highest upper bounds first, which often ends the search at once; else
//! steepest ascent on the lattice from several starts, then races of what the bounds leave open against the best.

use crate::error::Result;
use crate::search::evaluator::{Evaluator, LANES};
use crate::search::{POLISH_TOLERANCE, PathPoint, Step, WALK_TOLERANCE, random};
use std::collections::BTreeSet;

/// A step must gain this share, else rates within the bracket's width would be taken for progress.
const LEAST_GAIN: f64 = 0.01;
const POLISH_GAIN: f64 = 0.0025;

/// Candidates looked at from above before any walk.
const FROM_ABOVE: usize = 3 * LANES;

/// Share of the candidates, and least number, that are raced against the best after the walks: half of them those with
/// the highest bounds, half scattered. A lost race ends after the first few late queries, so this insurance against hills
/// that no start leads to costs little work.
const RACE_SHARE: f64 = 0.04;
const LEAST_RACES: usize = 8;

/// Best candidate found and its load; none if no candidate carries any.
pub fn search(evaluator: &mut Evaluator<'_>, path: &mut Vec<PathPoint>) -> Result<Option<(usize, f64)>> {
    let candidates = evaluator.problem.candidates();
    let races = LEAST_RACES.max((candidates as f64 * RACE_SHARE) as usize);
    let mut by_bound: Vec<usize> = (0..candidates).collect();
    by_bound.sort_by(|a, b| evaluator.bound_qps(*b).total_cmp(&evaluator.bound_qps(*a)));
    let scattered = random::order(evaluator.problem);
    let mut walk = Walk { evaluator, path, trodden: BTreeSet::new(), races_left: 0, best: None };
    if !walk.look_from_above(&by_bound)? {
        for start in walk.evaluator.problem.starts.clone() {
            walk.climb(start, Step::Start)?;
        }
        if walk.best.is_none()
            && let Some(start) = walk.least_excess()?
        {
            walk.climb(start, Step::Start)?;
        }
        for gain in [LEAST_GAIN, POLISH_GAIN] {
            for order in [&by_bound, &scattered] {
                walk.races_left += races / 4;
                walk.race(order, gain)?;
            }
            walk.polish()?;
        }
    }
    Ok(walk.best)
}

struct Walk<'w, 'a> {
    evaluator: &'w mut Evaluator<'a>,
    path: &'w mut Vec<PathPoint>,
    /// Points that a walk has stood on: a later walk that meets one would only repeat the rest of it.
    trodden: BTreeSet<usize>,
    /// Untried candidates that may still be raced.
    races_left: usize,
    best: Option<(usize, f64)>,
}

impl Walk<'_, '_> {
    /// Measure candidates by falling bound. True if no bound is left above the best: then it is the best of all.
    fn look_from_above(&mut self, by_bound: &[usize]) -> Result<bool> {
        for heat in by_bound.chunks(LANES).take(FROM_ABOVE / LANES) {
            let to_beat = self.best.map_or(0.0, |best| best.1);
            if self.evaluator.bound_qps(heat[0]) <= to_beat {
                break;
            }
            for (&candidate, qps) in heat.iter().zip(self.evaluator.rates(heat, POLISH_TOLERANCE)?) {
                if qps > self.best.map_or(0.0, |best| best.1) {
                    self.stand_on(candidate, qps, Step::Bound);
                }
            }
        }
        let Some((_, best_qps)) = self.best else { return Ok(false) };
        Ok(!by_bound.iter().any(|&candidate| self.evaluator.may_carry(candidate, best_qps * (1.0 + POLISH_TOLERANCE))))
    }

    fn climb(&mut self, start: usize, how: Step) -> Result<()> {
        let (mut here, mut step, mut came_from) = (start, how, None);
        while self.trodden.insert(here) {
            let qps = self.evaluator.rate_of_neighbour(here, WALK_TOLERANCE)?;
            self.stand_on(here, qps, step);
            let next =
                if qps > 0.0 { self.onward_or_uphill(came_from, here, qps)? } else { self.towards_feasible(here)? };
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
    fn onward_or_uphill(&mut self, came_from: Option<usize>, here: usize, qps: f64) -> Result<Option<(usize, Step)>> {
        let onward = came_from.and_then(|from| self.evaluator.problem.lattice.onward(from, here));
        if let Some((next, step)) = onward
            && self.evaluator.carries(next, qps * (1.0 + LEAST_GAIN))?
        {
            return Ok(Some((next, step)));
        }
        self.uphill(here, qps, LEAST_GAIN, WALK_TOLERANCE)
    }

    fn stand_on(&mut self, candidate: usize, qps: f64, step: Step) {
        self.path.push(PathPoint { candidate, qps, step });
        if qps > self.best.map_or(0.0, |best| best.1) {
            self.best = Some((candidate, qps));
        }
    }

    /// The best neighbour that gains at least `gain`, looked for nearby and, from the best hill so far, farther away.
    fn uphill(&mut self, here: usize, qps: f64, gain: f64, tolerance: f64) -> Result<Option<(usize, Step)>> {
        let lattice = &self.evaluator.problem.lattice;
        let near = self.best_of(lattice.neighbours(here), qps * (1.0 + gain), tolerance)?;
        let is_best_hill = self.best.is_none_or(|best| qps >= best.1);
        if near.is_some() || !is_best_hill {
            return Ok(near);
        }
        self.best_of(lattice.far_neighbours(here), qps * (1.0 + gain), tolerance)
    }

    /// Race the neighbours: each must carry the load of the best so far, and only one that does is measured. Those
    /// with the highest bound go first, for an early winner makes the others lose early.
    fn best_of(
        &mut self,
        neighbours: Vec<(usize, Step)>,
        mut threshold: f64,
        tolerance: f64,
    ) -> Result<Option<(usize, Step)>> {
        let mut order: Vec<_> =
            neighbours.into_iter().map(|(c, step)| (self.evaluator.bound_qps(c), c, step)).collect();
        order.sort_by(|a, b| b.0.total_cmp(&a.0));
        let mut best = None;
        for heat in order.chunks(LANES) {
            let racing: Vec<usize> = heat.iter().map(|entry| entry.1).collect();
            for winner in self.evaluator.carrying(&racing, threshold)? {
                // The first winner raises the bar for the others.
                if best.is_none() || self.evaluator.carries(winner, threshold)? {
                    let qps = self.evaluator.rate_of_neighbour(winner, tolerance)?;
                    threshold = qps * (1.0 + tolerance);
                    best = heat.iter().find(|entry| entry.1 == winner).map(|entry| (winner, entry.2));
                }
            }
        }
        Ok(best)
    }

    /// Where even the empty system is too slow there is no load to climb by: go to the neighbour that is least too slow.
    fn towards_feasible(&mut self, here: usize) -> Result<Option<(usize, Step)>> {
        let lattice = &self.evaluator.problem.lattice;
        let mut least = self.evaluator.excess(&[here])?[0];
        for neighbours in [lattice.neighbours(here), lattice.far_neighbours(here)] {
            let mut best = None;
            let candidates: Vec<usize> = neighbours.into_iter().map(|(candidate, _)| candidate).collect();
            for (&candidate, excess) in candidates.iter().zip(self.evaluator.excess(&candidates)?) {
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
        let all: Vec<usize> = (0..self.evaluator.problem.candidates()).collect();
        for (candidate, excess) in self.evaluator.excess(&all)?.into_iter().enumerate() {
            if excess < least {
                least = excess;
                best = Some(candidate);
            }
        }
        Ok(best.filter(|candidate| least <= 1.0 && !self.trodden.contains(candidate)))
    }

    /// Race candidates in `order` against the best, and climb from any that wins by `gain`.
    fn race(&mut self, order: &[usize], gain: f64) -> Result<()> {
        let mut order = order.iter().copied();
        loop {
            let Some((_, best_qps)) = self.best else { return Ok(()) };
            let to_beat = best_qps * (1.0 + gain);
            let heat: Vec<usize> = order.by_ref().filter(|&c| self.may_race(c, to_beat)).take(LANES).collect();
            if heat.is_empty() {
                return Ok(());
            }
            for winner in self.evaluator.carrying(&heat, to_beat)? {
                self.climb(winner, Step::Race)?;
            }
        }
    }

    /// Whether a candidate may still beat the bar, and there is leave to try it.
    fn may_race(&mut self, candidate: usize, to_beat: f64) -> bool {
        if !self.evaluator.may_carry(candidate, to_beat) {
            return false;
        }
        if !self.evaluator.is_tried(candidate) {
            if self.races_left == 0 {
                return false;
            }
            self.races_left -= 1;
        }
        true
    }

    /// Measure the best more finely and take the small gains that the walk passed over.
    fn polish(&mut self) -> Result<()> {
        let Some((mut here, _)) = self.best else { return Ok(()) };
        let mut stood = BTreeSet::from([here]);
        let mut qps = self.evaluator.rate_of_neighbour(here, POLISH_TOLERANCE)?;
        self.best = Some((here, qps));
        while let Some((next, _)) = self.uphill(here, qps, POLISH_GAIN, POLISH_TOLERANCE)? {
            if !stood.insert(next) {
                break;
            }
            here = next;
            qps = self.evaluator.rate_of_neighbour(here, POLISH_TOLERANCE)?;
            self.stand_on(here, qps, Step::Polish);
        }
        Ok(())
    }
}

//! From above, then uphill: the candidates with the highest guesses and bounds first, which often ends the search; else
//! steepest ascent on the lattice from several starts, then races of what the bounds leave open against the best. All that
//! on the short run of queries; the best few are then judged on the long one, and what they gained is polished there.

use crate::error::Result;
use crate::search::evaluator::{Evaluator, LANES};
use crate::search::{CONTENDERS, POLISH_TOLERANCE, PathPoint, Step, WALK_TOLERANCE, random};
use std::collections::BTreeSet;

/// A step must gain this share, else scores within the bracket's width would be taken for progress.
const LEAST_GAIN: f64 = 0.01;
const POLISH_GAIN: f64 = 0.0025;

/// Shares of the candidates that may have been simulated under load by the end of each part of the search; the searches of
/// a front share them.
const FROM_ABOVE: f64 = 0.03;
const CLIMBS: f64 = 0.06;
const RACES: f64 = 0.08;
const ALL: f64 = 0.095;

/// A start below this share of the best is not climbed from.
const HOPELESS: f64 = 0.5;

/// Candidates, best on the short run first, that are raced on the long one.
const FINALISTS: usize = 3 * LANES;

/// Climb from `starts`. Best candidate found and its score; none if no candidate carries any load.
pub fn search(
    evaluator: &mut Evaluator<'_>,
    starts: &[usize],
    path: &mut Vec<PathPoint>,
) -> Result<Option<(usize, f64)>> {
    evaluator.blunt();
    let promising = promising(evaluator);
    let scattered = random::order(evaluator.problem);
    let mut walk = Walk { evaluator, path, trodden: BTreeSet::new(), screen: None, best: None };
    walk.evaluator.allow(FROM_ABOVE);
    walk.look_from_above(&promising)?;
    let proven = walk.is_proven(&promising);
    if !proven {
        walk.explore(starts, &promising, &scattered)?;
    }
    walk.sharpen()?;
    if !walk.is_proven(&promising) {
        // On the short run nothing seemed to be left, on the long one there is.
        if proven {
            walk.explore(starts, &promising, &scattered)?;
        }
        walk.evaluator.allow(ALL);
        walk.polish()?;
        walk.race(&promising, POLISH_GAIN)?;
        walk.polish()?;
    }
    Ok(walk.best)
}

/// All candidates, those with the highest guesses and those with the highest bounds in turn: the guess leads to good ones
/// soon, the bound to a proof.
fn promising(evaluator: &mut Evaluator<'_>) -> Vec<usize> {
    let all = 0..evaluator.problem.candidates();
    let figures: Vec<(f64, f64)> = all.clone().map(|c| (evaluator.guess(c), evaluator.bound(c))).collect();
    let (mut by_guess, mut by_bound): (Vec<usize>, Vec<usize>) = (all.clone().collect(), all.collect());
    by_guess.sort_by(|a, b| figures[*b].0.total_cmp(&figures[*a].0));
    by_bound.sort_by(|a, b| figures[*b].1.total_cmp(&figures[*a].1));
    let mut seen = vec![false; figures.len()];
    let in_turn = by_guess.into_iter().zip(by_bound).flat_map(|(guess, bound)| [guess, bound]);
    in_turn.filter(|candidate| !std::mem::replace(&mut seen[*candidate], true)).collect()
}

struct Walk<'w, 'a> {
    evaluator: &'w mut Evaluator<'a>,
    path: &'w mut Vec<PathPoint>,
    /// Points that a walk has stood on: a later walk that meets one would only repeat the rest of it.
    trodden: BTreeSet<usize>,
    /// On the long run: what a candidate must reach on the short one to be raced at all.
    screen: Option<f64>,
    best: Option<(usize, f64)>,
}

impl Walk<'_, '_> {
    /// Race the most promising candidates, as many as may be tried.
    fn look_from_above(&mut self, promising: &[usize]) -> Result<()> {
        let mut order = promising.iter().copied();
        loop {
            let best = self.best.map_or(0.0, |best| best.1);
            let heat: Vec<usize> = order
                .by_ref()
                .filter(|&c| self.evaluator.may_reach(c, best * (1.0 + POLISH_TOLERANCE)))
                .take(LANES)
                .collect();
            if heat.is_empty() || self.evaluator.is_spent() {
                return Ok(());
            }
            let racing = if best > 0.0 { self.reaching(&heat, best * (1.0 + POLISH_TOLERANCE))? } else { heat };
            for (&candidate, score) in racing.iter().zip(self.evaluator.scores(&racing, POLISH_TOLERANCE)?) {
                if score > self.best.map_or(0.0, |best| best.1) {
                    self.stand_on(candidate, score, Step::Bound);
                }
            }
        }
    }

    /// Climb, then race what the bounds leave open: those with the highest bounds and scattered ones in turn.
    fn explore(&mut self, starts: &[usize], promising: &[usize], scattered: &[usize]) -> Result<()> {
        self.evaluator.allow(CLIMBS);
        self.climb_from(starts)?;
        for (share, order) in [(0.5 * (CLIMBS + RACES), promising), (RACES, scattered)] {
            self.evaluator.allow(share);
            self.race(order, LEAST_GAIN)?;
        }
        self.polish()
    }

    /// Those of up to [`LANES`] candidates that reach `score`; on the long run only after the short one let them pass.
    fn reaching(&mut self, candidates: &[usize], score: f64) -> Result<Vec<usize>> {
        let Some(least) = self.screen else { return self.evaluator.reaching(candidates, score) };
        self.evaluator.blunt();
        let screened = self.evaluator.reaching(candidates, least);
        self.evaluator.sharpen()?;
        self.evaluator.reaching(&screened?, score)
    }

    /// Is no candidate left that may beat the best by more than the tolerance?
    fn is_proven(&mut self, candidates: &[usize]) -> bool {
        let Some((_, best)) = self.best else { return false };
        !candidates.iter().any(|&candidate| self.evaluator.may_reach(candidate, best * (1.0 + POLISH_TOLERANCE)))
    }

    /// Climb from the starts, the best of them first, as far as they are worth it.
    fn climb_from(&mut self, starts: &[usize]) -> Result<()> {
        let mut ranked = Vec::with_capacity(starts.len());
        for heat in starts.chunks(LANES) {
            ranked.extend(heat.iter().copied().zip(self.evaluator.scores(heat, WALK_TOLERANCE)?));
        }
        ranked.sort_by(|a, b| b.1.total_cmp(&a.1));
        for (start, score) in ranked {
            if score >= HOPELESS * self.best.map_or(0.0, |best| best.1) {
                self.climb(start, Step::Start)?;
            }
        }
        if self.best.is_none()
            && let Some(start) = self.least_excess()?
        {
            self.climb(start, Step::Start)?;
        }
        Ok(())
    }

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
            && !self.reaching(&[next], score * (1.0 + LEAST_GAIN))?.is_empty()
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
        // What cannot beat the best of all is no way to it either.
        let bar = self.best.map_or(0.0, |best| best.1);
        order.retain(|entry| entry.0 > bar && self.evaluator.may_reach(entry.1, bar));
        order.sort_by(|a, b| b.0.total_cmp(&a.0));
        let mut best = None;
        for heat in order.chunks(LANES) {
            let racing: Vec<usize> = heat.iter().map(|entry| entry.1).collect();
            for winner in self.reaching(&racing, threshold)? {
                // A winner raises the bar for those after it.
                if best.is_none() || self.evaluator.reaches(winner, threshold)? {
                    let score = self.evaluator.score_of_neighbour(winner, tolerance)?;
                    threshold = score * (1.0 + tolerance);
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
            let Some((_, best)) = self.best else { return Ok(()) };
            let to_beat = best * (1.0 + gain);
            let spent = self.evaluator.is_spent();
            let may_race = |c: &usize| self.evaluator.may_reach(*c, to_beat) && (!spent || self.evaluator.is_tried(*c));
            let heat: Vec<usize> = order.by_ref().filter(may_race).take(LANES).collect();
            if heat.is_empty() {
                return Ok(());
            }
            for winner in self.reaching(&heat, to_beat)? {
                self.climb(winner, Step::Race)?;
            }
        }
    }

    /// Go over to the long run: the best of the short one race on it.
    fn sharpen(&mut self) -> Result<()> {
        let finalists: Vec<usize> = self.evaluator.chosen().into_iter().map(|found| found.0).take(FINALISTS).collect();
        self.screen = self.best.map(|best| best.1 * (1.0 - CONTENDERS));
        self.evaluator.sharpen()?;
        self.trodden.clear();
        self.best = None;
        let Some((first, others)) = finalists.split_first() else { return Ok(()) };
        let score = self.evaluator.score_of_neighbour(*first, POLISH_TOLERANCE)?;
        self.stand_on(*first, score, Step::Sharpen);
        for heat in others.chunks(LANES) {
            let bar = self.best.map_or(f64::MIN_POSITIVE, |best| best.1 * (1.0 + POLISH_TOLERANCE));
            for winner in self.evaluator.reaching(heat, bar)? {
                let score = self.evaluator.score_of_neighbour(winner, POLISH_TOLERANCE)?;
                if score > self.best.map_or(0.0, |best| best.1) {
                    self.stand_on(winner, score, Step::Sharpen);
                }
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

//! The winner judged on independent runs of queries that the search has not seen, as many as its interval needs.
//!
//! Replications are numbered from 1; 0 is the search's. The highest load at which the first few, taken together, meet the
//! targets is bracketed by runs that end early. Around it every replication says by how much it keeps or breaks each
//! promise (its *margins*), and two loads beside it say how fast the mean margins grow with load. So each replication has
//! a load of its own, to first order, without a search of its own; their spread is the error of the common one
//! (sectioning by the delta method), and the common load of more replications is known before it is claimed. A
//! replication more costs about three runs: one for its margins, one for the verdict, a share of the looks around.

use crate::control::Control;
use crate::error::Result;
use crate::queue::chain::load::{BACKLOG_GROWTH_LIMIT, Bracket, Limit, Prober, Strain, highest};
use crate::queue::chain::{Detail, Input, Rules, Scratch, StageUse, System};
use crate::queue::{percentile, statistics};
use crate::search::evaluator::Counts;
use crate::search::objective::Goal;
use crate::search::{Problem, Settings};
use rayon::prelude::*;
use std::ops::Range;

/// Two-sided 95 % points of Student's t for 1 to 30 degrees of freedom.
const T_95: [f64; 30] = [
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120,
    2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
];

/// The loads beside the answer, as shares of it, between which margins are taken to grow linearly.
const BESIDE: f64 = 0.02;

/// Intervals are this much wider than Student's. Late queries come in bursts, so replications without one look alike and
/// good, and the rule that stops at a narrow interval prefers them: at 1, queues whose exact answer is known were
/// covered in 82 to 94 of 100 cases instead of 95.
const WIDER: f64 = 1.4;

/// Runs that a verdict on many replications may need, each at a lower load than the one before.
const VERDICTS: i32 = 12;

/// The first of these loads is at least this share of the one that the first replications carry, and each step down at
/// most that of the expected one.
const LEAST_EXPECTED: f64 = 0.5;
const LONGEST_STEP: f64 = 0.5;

#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    pub candidate: usize,
    /// Load on the run of queries that the search used.
    pub search_qps: f64,
    /// Highest load at which the replications, taken together, meet the targets.
    pub qps: f64,
    /// 95 % interval from the spread of the replications' own highest loads around `qps` (sectioning); NaN with one
    /// replication.
    pub qps_lo: f64,
    pub qps_hi: f64,
    /// Percentiles of the targets at `qps`, over all replications together.
    pub achieved_s: Vec<f64>,
    pub mean_latency_s: f64,
    /// Means over replications at `qps`, one for each stage of the table.
    pub uses: Vec<StageUse>,
    /// What stands against a load just above `qps`, over all replications together.
    pub limit: Limit,
    /// Power at `qps`; NaN for a problem without a power model.
    pub power_w: f64,
    pub score: f64,
    pub replications: usize,
    /// Whether the interval is as narrow as was asked for.
    pub precise: bool,
}

/// Judge `candidate`, which carried `search_qps` in the search.
///
/// None if the replications together meet the targets at no load: the search's run was a lucky draw of a candidate whose
/// unloaded percentile lies at its target.
pub fn judge(
    problem: &Problem,
    settings: &Settings,
    goal: Goal,
    (candidate, search_qps): (usize, f64),
    counts: &mut Counts,
    control: &Control,
) -> Result<Option<Answer>> {
    let system = problem.system(candidate);
    let bound = settings.cap * system.bottleneck_qps(&problem.traffic);
    let rules = settings.rules(&problem.targets, settings.final_queries);
    let mut trial = Trial { problem, settings, goal, candidate, system, rules, bound, control, counts };
    let first = settings.replications;
    let (qps, limit) = trial.bracket(search_qps, first)?;
    if qps == 0.0 {
        return Ok(None);
    }
    let sections = trial.sections(0..first, qps, Detail::Energy)?;
    let slopes = trial.slopes(qps, first)?;
    let half = trial.half_width(qps, qps, &sections, &slopes);
    if half.is_nan() || trial.suffices(half, qps) || !trial.may_add(first) {
        return Ok(Some(trial.answer(search_qps, qps, (qps, half), limit, &sections)));
    }
    trial.refine(search_qps, qps, half, sections, slopes)
}

/// One replication at one load, run to its end.
struct Section {
    /// For each promise, by how much it is broken (above 0) or kept.
    margins: Vec<f64>,
    /// For each target.
    late: Vec<usize>,
    strain: Strain,
    uses: Vec<StageUse>,
    /// Only with energies.
    latencies: Vec<f64>,
}

struct Trial<'a> {
    problem: &'a Problem,
    settings: &'a Settings,
    goal: Goal,
    candidate: usize,
    system: System,
    rules: Rules,
    bound: f64,
    control: &'a Control,
    counts: &'a mut Counts,
}

impl Trial<'_> {
    /// Highest load that the first `replications` carry together, within the tolerance, and what stands against more.
    fn bracket(&mut self, guess: f64, replications: usize) -> Result<(f64, Limit)> {
        let inputs = (0..replications).map(|section| self.input(section)).collect::<Result<Vec<_>>>()?;
        let mut probers = inputs
            .iter()
            .map(|input| Prober::new(&self.system, input, &self.rules, Some(self.control)))
            .collect::<Result<Vec<_>>>()?;
        let bracket = Bracket { floor: 0.0, guess, bound: self.bound, tolerance: self.settings.tolerance };
        let mut scratch = Scratch::new();
        let found = highest(bracket, |qps| self.probe_together(&mut probers, qps, &mut scratch))?;
        for prober in &probers {
            self.counts.probes += prober.probes;
            self.counts.simulated_queries += prober.simulated_queries;
        }
        Ok(found)
    }

    fn input(&self, section: usize) -> Result<Input> {
        Input::draw(&self.problem.traffic, self.rules.queries, section as u64 + 1, Some(self.control))
    }

    /// Do all replications together carry `qps`? `None` says yes, else what stands against it. The late queries of all are
    /// counted against one allowance, so a load that is too high is given up as soon as that is used up.
    fn probe_together(&self, probers: &mut [Prober<'_>], qps: f64, scratch: &mut Scratch) -> Result<Option<Limit>> {
        let mut allowances = self.rules.allowances(probers.len());
        let (mut strains, mut uses) = (Vec::new(), Vec::new());
        for prober in probers {
            prober.detail = if self.goal.power_budget_w.is_finite() { Detail::Energy } else { Detail::Latency };
            if let Some(limit) = prober.spend(qps, &mut allowances, scratch)? {
                return Ok(Some(limit));
            }
            strains.push(prober.strain(scratch));
            uses.push(prober.system.stage_use(scratch));
        }
        Ok(self.limit_of(qps, &strains, &uses))
    }

    /// What stands against `qps` apart from latencies.
    fn limit_of(&self, qps: f64, strains: &[Strain], uses: &[Vec<StageUse>]) -> Option<Limit> {
        let n = strains.len() as f64;
        let mean = Strain {
            utilisation: strains.iter().map(|strain| strain.utilisation).sum::<f64>() / n,
            backlog_growth: strains.iter().map(|strain| strain.backlog_growth).sum::<f64>() / n,
        };
        let over = || self.power_w(qps, &mean_uses(uses)) > self.goal.power_budget_w;
        mean.limit(self.rules.cap).or_else(|| over().then_some(Limit::PowerBudget))
    }

    fn power_w(&self, qps: f64, uses: &[StageUse]) -> f64 {
        let config = &self.problem.candidates[self.candidate];
        self.problem.power.as_ref().map_or(f64::NAN, |power| power.power_w(config, qps, uses))
    }

    /// Run these replications at `qps` to their ends, in parallel. Latencies are kept with energies only.
    fn sections(&mut self, which: Range<usize>, qps: f64, detail: Detail) -> Result<Vec<Section>> {
        self.counts.probes += which.len() as u64;
        self.counts.simulated_queries += (which.len() * self.rules.queries) as u64;
        let this = &*self;
        which
            .into_par_iter()
            .map_init(Scratch::new, |scratch, number| this.section(number, qps, detail, scratch))
            .collect()
    }

    fn section(&self, number: usize, qps: f64, detail: Detail, scratch: &mut Scratch) -> Result<Section> {
        let input = self.input(number)?;
        let mut prober = Prober::new(&self.system, &input, &self.rules, Some(self.control))?;
        let budget_w = self.goal.power_budget_w;
        prober.detail = if budget_w.is_finite() { Detail::Energy } else { detail };
        prober.measure(qps, scratch)?;
        let latencies = scratch.latencies(self.rules.warmup);
        let late_of = |seconds: f64| latencies.iter().filter(|latency| **latency > seconds).count();
        let late: Vec<usize> = self.rules.targets.iter().map(|(_, seconds)| late_of(*seconds)).collect();
        let (strain, uses) = (prober.strain(scratch), self.system.stage_use(scratch));
        let counted = latencies.len() as f64;
        let mut margins: Vec<f64> =
            late.iter().zip(&self.rules.targets).map(|(late, (p, _))| *late as f64 / counted - (1.0 - p)).collect();
        margins.extend([strain.utilisation - self.rules.cap, strain.backlog_growth - BACKLOG_GROWTH_LIMIT]);
        if budget_w.is_finite() {
            margins.push(self.power_w(qps, &uses) - budget_w);
        }
        let latencies = if detail == Detail::Energy { latencies } else { Vec::new() };
        Ok(Section { margins, late, strain, uses, latencies })
    }

    /// How fast the mean margins of the first `replications` grow with load around `qps`.
    fn slopes(&mut self, qps: f64, replications: usize) -> Result<Vec<f64>> {
        let (below, above) = (qps * (1.0 - BESIDE), qps * (1.0 + BESIDE));
        let [low, high] = [below, above].map(|load| self.sections(0..replications, load, Detail::Latency));
        let (low, high) = (mean_margins(&low?), mean_margins(&high?));
        Ok(high.iter().zip(&low).map(|(high, low)| (high - low) / (above - below)).collect())
    }

    /// The load at which the first of the promises that have these margins at `qps` is just kept, and which one; none if
    /// that is the bound. To first order, so for one bad replication it may be below 0, where the sum over replications
    /// needs it. A promise that does not depend on the load is kept at every load or at none.
    fn root(&self, qps: f64, margins: &[f64], slopes: &[f64]) -> (f64, Option<usize>) {
        let mut root = (self.bound, None);
        for (promise, (margin, slope)) in margins.iter().zip(slopes).enumerate() {
            let own = match (*slope > 0.0, *margin > 0.0) {
                (true, _) => qps - margin / slope,
                (false, true) => 0.0,
                (false, false) => f64::INFINITY,
            };
            if own < root.0 {
                root = (own, Some(promise));
            }
        }
        root
    }

    /// Half-width of the interval around `point` from the sections at `qps`.
    fn half_width(&self, point: f64, qps: f64, sections: &[Section], slopes: &[f64]) -> f64 {
        let own: Vec<f64> = sections.iter().map(|section| self.root(qps, &section.margins, slopes).0).collect();
        WIDER * half_width(point, &own)
    }

    fn suffices(&self, half: f64, point: f64) -> bool {
        half <= self.settings.precision * point
    }

    fn may_add(&self, replications: usize) -> bool {
        replications < self.settings.most_replications && !self.settings.is_late()
    }

    /// Double the replications until the interval around their common load is narrow enough. None if they together meet
    /// the targets at no load, though the first few did.
    fn refine(
        &mut self,
        search_qps: f64,
        mut qps: f64,
        mut half: f64,
        mut sections: Vec<Section>,
        mut slopes: Vec<f64>,
    ) -> Result<Option<Answer>> {
        let (first, mut own_half) = (sections.len(), half);
        let (point, promise) = loop {
            let known = sections.len();
            let all = (2 * known).min(self.settings.most_replications);
            sections.extend(self.sections(known..all, qps, Detail::Latency)?);
            // Margins are linear nearby only: from farther away, look again where the first look leads.
            let (expected, _) = self.root(qps, &mean_margins(&sections), &slopes);
            let is_far = (expected - qps).abs() > BESIDE * qps;
            if is_far {
                qps = expected.clamp(qps * (1.0 - 5.0 * BESIDE), qps * (1.0 + 5.0 * BESIDE));
                sections = self.sections(0..all, qps, Detail::Latency)?;
            }
            if is_far || all <= MOST_SLOPED * first {
                slopes = self.slopes(qps, all.min(MOST_SLOPED * first))?;
            }
            let (point, promise) = self.root(qps, &mean_margins(&sections), &slopes);
            // The spread of more replications may be less by luck, and would be stopped at; so it counts as no less than
            // that of the half of them.
            let before = own_half * (known as f64 / all as f64).sqrt();
            own_half = self.half_width(point, qps, &sections, &slopes);
            half = own_half.max(before);
            if self.suffices(half, point) || !self.may_add(all) {
                break (point, promise);
            }
        };
        let all = sections.len();
        let limit = match promise {
            None => Limit::UtilisationCap,
            Some(promise) => self.limit_named(promise),
        };
        // The verdict is exact: all replications together, at the load that is claimed, a little below the expected one. If
        // they do not carry it, their margins there say what they do. Far from where the margins were taken, down to below
        // 0, the expected load means little; loads are then tried from above.
        let mut point = point.max(LEAST_EXPECTED * qps);
        for attempt in 0..VERDICTS {
            let below = 0.25 * self.settings.tolerance * f64::from(1 << attempt);
            let claimed = point * (1.0 - below.min(LONGEST_STEP));
            sections = self.sections(0..all, claimed, Detail::Energy)?;
            if self.verdict(claimed, &sections).is_none() {
                return Ok(Some(self.answer(search_qps, claimed, (point, half), limit, &sections)));
            }
            point = self.root(claimed, &mean_margins(&sections), &slopes).0.clamp(0.9 * claimed, claimed);
        }
        Ok(None)
    }

    fn limit_named(&self, promise: usize) -> Limit {
        let targets = self.rules.targets.len();
        match promise.checked_sub(targets) {
            None => Limit::Target(promise),
            Some(0) => Limit::UtilisationCap,
            Some(1) => Limit::Backlog,
            Some(_) => Limit::PowerBudget,
        }
    }

    /// What stands against `qps`, on complete runs of all replications.
    fn verdict(&self, qps: f64, sections: &[Section]) -> Option<Limit> {
        let allowances = self.rules.allowances(sections.len());
        let late = |target: usize| sections.iter().map(|section| section.late[target]).sum::<usize>();
        if let Some(target) = (0..allowances.len()).find(|target| late(*target) > allowances[*target].queries) {
            return Some(Limit::Target(target));
        }
        let (strains, uses): (Vec<_>, Vec<_>) =
            sections.iter().map(|section| (section.strain, section.uses.clone())).unzip();
        self.limit_of(qps, &strains, &uses)
    }

    fn answer(
        &self,
        search_qps: f64,
        qps: f64,
        (point, half): (f64, f64),
        limit: Limit,
        sections: &[Section],
    ) -> Answer {
        let mut latencies: Vec<f64> = sections.iter().flat_map(|section| &section.latencies).copied().collect();
        let ps: Vec<f64> = self.rules.targets.iter().map(|target| target.0).collect();
        let uses = mean_uses(&sections.iter().map(|section| section.uses.clone()).collect::<Vec<_>>());
        let power_w = self.power_w(qps, &uses);
        Answer {
            candidate: self.candidate,
            search_qps,
            qps,
            qps_lo: (point - half).clamp(0.0, qps),
            qps_hi: (point + half).clamp(qps, f64::INFINITY),
            mean_latency_s: latencies.iter().sum::<f64>() / latencies.len() as f64,
            achieved_s: percentile::percentiles(&mut latencies, &ps),
            uses,
            limit,
            power_w,
            score: self.goal.objective.score(qps, power_w),
            replications: sections.len(),
            precise: self.suffices(half, point),
        }
    }
}

/// Slopes are taken from at most so many times the first replications.
const MOST_SLOPED: usize = 4;

fn mean_margins(sections: &[Section]) -> Vec<f64> {
    let mean = |promise: usize| sections.iter().map(|s| s.margins[promise]).sum::<f64>() / sections.len() as f64;
    (0..sections[0].margins.len()).map(mean).collect()
}

fn mean_uses(uses: &[Vec<StageUse>]) -> Vec<StageUse> {
    (0..uses[0].len()).map(|stage| mean_use(uses, stage)).collect()
}

/// Half-width of the 95 % interval around `point`, the estimate from all sections together, from the sections' own; NaN
/// for one section. Deviations are taken from `point`, not from the sections' mean: the bias of the sections, which are
/// shorter, then widens the interval instead of going unseen.
fn half_width(point: f64, sections: &[f64]) -> f64 {
    let n = sections.len() as f64;
    let freedom = sections.len() - 1;
    if freedom == 0 {
        return f64::NAN;
    }
    let variance = sections.iter().map(|x| (x - point) * (x - point)).sum::<f64>() / freedom as f64;
    T_95.get(freedom - 1).copied().unwrap_or_else(|| statistics::student(freedom)) * (variance / n).sqrt()
}

fn mean_use(uses: &[Vec<StageUse>], stage: usize) -> StageUse {
    let n = uses.len() as f64;
    let mean = |field: fn(&StageUse) -> f64| uses.iter().map(|run| field(&run[stage])).sum::<f64>() / n;
    StageUse {
        utilisation: mean(|u| u.utilisation),
        executions_per_query: mean(|u| u.executions_per_query),
        items_per_execution: mean(|u| u.items_per_execution),
        energy_j_per_query: mean(|u| u.energy_j_per_query),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interval_of_a_known_sample() {
        assert!((half_width(2.0, &[1.0, 2.0, 3.0]) - 4.303 / 3.0_f64.sqrt()).abs() < 1e-12);
        assert!(half_width(3.0, &[1.0, 2.0, 3.0]) > half_width(2.0, &[1.0, 2.0, 3.0]), "bias widens");
        assert!(half_width(1.0, &[1.0]).is_nan());
    }
}

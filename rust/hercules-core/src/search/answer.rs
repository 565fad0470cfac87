//! The winner judged on independent runs of queries that the search has not seen.

use crate::control::Control;
use crate::error::Result;
use crate::queue::chain::load::{Bracket, Limit, Prober, Strain, highest};
use crate::queue::chain::{Input, Scratch, StageUse};
use crate::queue::percentile;
use crate::search::evaluator::Counts;
use crate::search::{Problem, Settings};

/// Two-sided 95 % points of Student's t for 1 to 30 degrees of freedom.
const T_95: [f64; 30] = [
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120,
    2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
];
/// The same for more, a little wide.
const T_95_MORE: f64 = 2.042;

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
}

/// Judge `candidate`, which carried `search_qps` in the search. Replications are numbered from 1; 0 is the search's.
///
/// None if the replications together meet the targets at no load: the search's run was a lucky draw of a candidate whose
/// unloaded percentile lies at its target.
pub fn judge(
    problem: &Problem,
    settings: &Settings,
    candidate: usize,
    search_qps: f64,
    counts: &mut Counts,
    control: &Control,
) -> Result<Option<Answer>> {
    let system = problem.system(candidate);
    let rules = settings.rules(&problem.targets, settings.final_queries);
    let bound = settings.cap * system.bottleneck_qps(&problem.traffic);
    let inputs = (1..=settings.replications as u64)
        .map(|replication| Input::draw(&problem.traffic, settings.final_queries, replication, Some(control)))
        .collect::<Result<Vec<_>>>()?;
    let mut scratch = Scratch::new();
    let mut probers =
        inputs.iter().map(|input| Prober::new(&system, input, &rules, Some(control))).collect::<Result<Vec<_>>>()?;
    let near = |guess| Bracket { floor: 0.0, guess, bound, tolerance: settings.tolerance };
    let (qps, limit) = highest(near(search_qps), |qps| probe_together(&mut probers, qps, &mut scratch))?;
    let answer = if qps > 0.0 {
        let own_loads = probers
            .iter_mut()
            .map(|prober| prober.highest(near(qps), &mut scratch).map(|load| load.0))
            .collect::<Result<Vec<_>>>()?;
        let half = half_width(qps, &own_loads);
        let together = Together::measure(qps, &mut probers, &mut scratch)?;
        Some(Answer {
            candidate,
            search_qps,
            qps,
            qps_lo: (qps - half).max(0.0),
            qps_hi: qps + half,
            achieved_s: together.achieved_s,
            mean_latency_s: together.mean_latency_s,
            uses: together.uses,
            limit,
        })
    } else {
        None
    };
    for prober in &probers {
        counts.probes += prober.probes;
        counts.simulated_queries += prober.simulated_queries;
    }
    Ok(answer)
}

/// Do all replications together carry `qps`? `None` says yes, else what stands against it. The late queries of all are
/// counted against one allowance, so a load that is too high is given up as soon as that is used up.
fn probe_together(probers: &mut [Prober<'_>], qps: f64, scratch: &mut Scratch) -> Result<Option<Limit>> {
    let rules = probers[0].rules;
    let mut allowances = rules.allowances(probers.len());
    let mut mean = Strain { utilisation: 0.0, backlog_growth: 0.0 };
    let share = 1.0 / probers.len() as f64;
    for prober in probers {
        if let Some(limit) = prober.spend(qps, &mut allowances, scratch)? {
            return Ok(Some(limit));
        }
        let strain = prober.strain(scratch);
        mean.utilisation += share * strain.utilisation;
        mean.backlog_growth += share * strain.backlog_growth;
    }
    Ok(mean.limit(rules.cap))
}

/// Statistics of all replications at one load, taken together.
struct Together {
    achieved_s: Vec<f64>,
    mean_latency_s: f64,
    uses: Vec<StageUse>,
}

impl Together {
    fn measure(qps: f64, probers: &mut [Prober<'_>], scratch: &mut Scratch) -> Result<Self> {
        let (mut latencies, mut uses) = (Vec::new(), Vec::new());
        for prober in &mut *probers {
            prober.measure(qps, scratch)?;
            latencies.extend(scratch.latencies(prober.rules.warmup));
            uses.push(prober.system.stage_use(scratch));
        }
        let ps: Vec<f64> = probers[0].rules.targets.iter().map(|target| target.0).collect();
        Ok(Self {
            mean_latency_s: latencies.iter().sum::<f64>() / latencies.len() as f64,
            achieved_s: percentile::percentiles(&mut latencies, &ps),
            uses: (0..probers[0].system.stages()).map(|stage| mean_use(&uses, stage)).collect(),
        })
    }
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
    T_95.get(freedom - 1).copied().unwrap_or(T_95_MORE) * (variance / n).sqrt()
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

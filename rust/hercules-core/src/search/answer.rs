//! The winner judged on independent runs of queries that the search has not seen.

use crate::control::Control;
use crate::error::Result;
use crate::queue::Input;
use crate::queue::load::{Limit, Prober, Target};
use crate::queue::percentile;
use crate::queue::system::{Scratch, StageUse};
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
    /// 95 % interval from the spread of the replications' own highest loads (sectioning); NaN with one replication.
    pub qps_lo: f64,
    pub qps_hi: f64,
    /// Percentiles of the targets at `qps`, over all replications together.
    pub achieved_s: Vec<f64>,
    pub mean_latency_s: f64,
    /// Means over replications at `qps`, one for each stage of the table.
    pub uses: Vec<StageUse>,
    /// What binds in the first replication.
    pub limit: Limit,
}

/// Judge `candidate`, which carried `search_qps` in the search. Replications are numbered from 1; 0 is the search's.
pub fn judge(
    problem: &Problem,
    settings: &Settings,
    candidate: usize,
    search_qps: f64,
    counts: &mut Counts,
    control: &Control,
) -> Result<Answer> {
    let system = problem.system(candidate);
    let rules = settings.rules(&problem.targets, settings.final_queries);
    let bound = settings.cap * system.bottleneck_qps(&problem.traffic);
    let inputs = (1..=settings.replications as u64)
        .map(|replication| Input::draw(&problem.traffic, settings.final_queries, replication))
        .collect::<Result<Vec<_>>>()?;
    let mut scratch = Scratch::new();
    let mut probers = inputs
        .iter()
        .map(|input| Prober::new(&system, input, &rules, bound, Some(control)))
        .collect::<Result<Vec<_>>>()?;
    let mut loads = Vec::with_capacity(inputs.len());
    for prober in &mut probers {
        loads.push(prober.highest(0.0, search_qps, settings.tolerance, &mut scratch)?);
    }
    let rates: Vec<f64> = loads.iter().map(|load| load.0).collect();
    let half = half_width(&rates);
    // At the lowest of the replications' loads each of them meets the targets, so all of them together do.
    let mut qps = rates.iter().copied().fold(f64::INFINITY, f64::min);
    let mut too_high = rates.iter().copied().fold(0.0, f64::max);
    let mut pooled = Pooled::unused(problem.targets.len(), system.stages());
    if qps > 0.0 {
        pooled = Pooled::measure(qps, &mut probers, &mut scratch)?;
        while too_high - qps > settings.tolerance * too_high {
            let middle = 0.5 * (qps + too_high);
            let there = Pooled::measure(middle, &mut probers, &mut scratch)?;
            if there.holds(&problem.targets) {
                (qps, pooled) = (middle, there);
            } else {
                too_high = middle;
            }
        }
    }
    for prober in &probers {
        counts.probes += prober.probes;
        counts.simulated_queries += prober.simulated_queries;
    }
    Ok(Answer {
        candidate,
        search_qps,
        qps,
        qps_lo: (qps - half).max(0.0),
        qps_hi: qps + half,
        achieved_s: pooled.achieved_s,
        mean_latency_s: pooled.mean_latency_s,
        uses: pooled.uses,
        limit: loads[0].1,
    })
}

/// All replications at one load, taken together.
struct Pooled {
    achieved_s: Vec<f64>,
    mean_latency_s: f64,
    uses: Vec<StageUse>,
    /// No replication exceeds the utilisation cap or falls behind.
    in_limits: bool,
}

impl Pooled {
    fn unused(targets: usize, stages: usize) -> Self {
        Self {
            achieved_s: vec![f64::NAN; targets],
            mean_latency_s: f64::NAN,
            uses: vec![StageUse::UNUSED; stages],
            in_limits: true,
        }
    }

    fn measure(qps: f64, probers: &mut [Prober<'_>], scratch: &mut Scratch) -> Result<Self> {
        let (mut latencies, mut uses, mut in_limits) = (Vec::new(), Vec::new(), true);
        for prober in &mut *probers {
            in_limits &= prober.measure(qps, scratch)?;
            latencies.extend(scratch.latencies(prober.rules.warmup));
            uses.push(prober.system.stage_use(scratch));
        }
        let rules = probers[0].rules;
        let ps: Vec<f64> = rules.targets.iter().map(|target| target.0).collect();
        Ok(Self {
            mean_latency_s: latencies.iter().sum::<f64>() / latencies.len() as f64,
            achieved_s: percentile::percentiles(&mut latencies, &ps),
            uses: (0..probers[0].system.stages()).map(|stage| mean_use(&uses, stage)).collect(),
            in_limits,
        })
    }

    fn holds(&self, targets: &[Target]) -> bool {
        self.in_limits && self.achieved_s.iter().zip(targets).all(|(achieved, target)| *achieved <= target.1)
    }
}

/// Half-width of the 95 % interval of the mean; NaN for one value.
fn half_width(values: &[f64]) -> f64 {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let freedom = values.len() - 1;
    if freedom == 0 {
        return f64::NAN;
    }
    let variance = values.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / freedom as f64;
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
        assert!((half_width(&[1.0, 2.0, 3.0]) - 4.303 / 3.0_f64.sqrt()).abs() < 1e-12);
        assert!(half_width(&[1.0]).is_nan());
    }
}

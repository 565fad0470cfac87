//! The winner judged on independent runs of queries that the search has not seen.

use crate::control::Control;
use crate::error::Result;
use crate::queue::Input;
use crate::queue::load::{Limit, Prober};
use crate::queue::percentile;
use crate::queue::system::{Detail, Ended, Scratch, Split, StageUse, Watch};
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
    /// Mean of the replications' highest loads and its 95 % interval; NaN bounds with one replication.
    pub qps: f64,
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
    let mut loads = Vec::with_capacity(inputs.len());
    for input in &inputs {
        let mut prober = Prober::new(&system, input, &rules, bound, Some(control))?;
        loads.push(prober.highest(0.0, search_qps, settings.tolerance, &mut scratch)?);
        counts.probes += prober.probes;
        counts.simulated_queries += prober.simulated_queries;
    }
    let rates: Vec<f64> = loads.iter().map(|load| load.0).collect();
    let (qps, half) = mean_and_half_width(&rates);
    let mut answer = Answer {
        candidate,
        search_qps,
        qps,
        qps_lo: qps - half,
        qps_hi: qps + half,
        achieved_s: vec![f64::NAN; problem.targets.len()],
        mean_latency_s: f64::NAN,
        uses: vec![StageUse::UNUSED; system.stages()],
        limit: loads[0].1,
    };
    if qps > 0.0 {
        let mut latencies = Vec::new();
        let mut uses = Vec::new();
        for input in &inputs {
            let split = Split::of(&system, input)?;
            let mut watch = Watch::new(&[], rules.warmup, input.len(), Some(control));
            if system.run(input, &split, qps, &mut scratch, &mut watch, Detail::Energy) == Ended::Cancelled {
                return Err(crate::Error::Cancelled);
            }
            counts.probes += 1;
            counts.simulated_queries += input.len() as u64;
            latencies.extend(scratch.latencies(rules.warmup));
            uses.push(system.stage_use(&scratch));
        }
        let ps: Vec<f64> = problem.targets.iter().map(|target| target.0).collect();
        answer.mean_latency_s = latencies.iter().sum::<f64>() / latencies.len() as f64;
        answer.achieved_s = percentile::percentiles(&mut latencies, &ps);
        answer.uses = (0..system.stages()).map(|stage| mean_use(&uses, stage)).collect();
    }
    Ok(answer)
}

/// Mean and half-width of its 95 % interval.
fn mean_and_half_width(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let freedom = values.len() - 1;
    if freedom == 0 {
        return (mean, f64::NAN);
    }
    let variance = values.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / freedom as f64;
    (mean, T_95.get(freedom - 1).copied().unwrap_or(T_95_MORE) * (variance / n).sqrt())
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
        let (mean, half) = mean_and_half_width(&[1.0, 2.0, 3.0]);
        assert_eq!(mean, 2.0);
        assert!((half - 4.303 / 3.0_f64.sqrt()).abs() < 1e-12);
        assert!(mean_and_half_width(&[1.0]).1.is_nan());
    }
}

//! From the records of segments to figures with their uncertainty.
//!
//! Latencies of neighbouring queries are alike, so nothing here takes them for independent. A percentile's interval comes
//! from the spread of the same percentile over batches (sectioning): Q +- t sqrt(sum (x_i - Q)^2 / (b (b-1))).

use crate::queue::engine::Segment;
use crate::queue::percentile;
use crate::queue::record::{Batch, GROUP, Histogram};

/// Order statistics that must lie beyond a percentile before it is given at all, and in each batch before an interval is.
pub const TAIL_QUERIES: f64 = 10.0;
const TAIL_QUERIES_OF_A_BATCH: f64 = 100.0;
/// Fewest batches that an interval is made from, and fewest pairs of neighbours that a test of correlation is.
const LEAST_BATCHES: usize = 10;
const LEAST_PAIRS: usize = 8;

/// A figure with the half-width of its 95 % interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    pub value: f64,
    /// NaN where the run is too short for one.
    pub half_width: f64,
    /// Independent queries that would tell as much; NaN like the interval.
    pub effective: f64,
}

impl Estimate {
    const NONE: Self = Self { value: f64::NAN, half_width: f64::NAN, effective: f64::NAN };
}

/// Queries after the warm-up that a percentile needs.
pub fn needed(p: f64) -> f64 {
    (TAIL_QUERIES / p.min(1.0 - p) * (1.0 - 1e-12)).ceil()
}

/// The 97.5 % point of Student's law, by its expansion in 1/df (Abramowitz & Stegun 26.7.5); within 1e-3 from 9 on.
fn student(df: usize) -> f64 {
    let (z, n) = (1.959_963_984_540_054_f64, df as f64);
    let g1 = (z.powi(3) + z) / 4.0;
    let g2 = (5.0 * z.powi(5) + 16.0 * z.powi(3) + 3.0 * z) / 96.0;
    let g3 = (3.0 * z.powi(7) + 19.0 * z.powi(5) + 17.0 * z.powi(3) - 15.0 * z) / 384.0;
    z + g1 / n + g2 / (n * n) + g3 / (n * n * n)
}

/// Batches of a run in order, and how many of them belong to each segment.
#[derive(Debug, Clone)]
struct Batches {
    list: Vec<Batch>,
    per_segment: usize,
}

impl Batches {
    fn of(segments: &[Segment]) -> Self {
        let list: Vec<Batch> = segments.iter().flat_map(|segment| segment.record.batches.iter().cloned()).collect();
        let per_segment = if segments.is_empty() { 1 } else { list.len() / segments.len() };
        Self { list, per_segment: per_segment.max(1) }
    }

    /// Half as many, of twice the length.
    fn halved(&self) -> Self {
        let join = |pair: &[Batch]| {
            let mut batch = pair[0].clone();
            for other in &pair[1..] {
                batch.histogram.merge(&other.histogram);
                batch.sum += other.sum;
            }
            batch
        };
        Self { list: self.list.chunks(2).map(join).collect(), per_segment: self.per_segment.div_ceil(2) }
    }

    /// Whether neighbours in time are alike beyond chance: the von Neumann ratio, one-sided at 5 %.
    fn correlated(&self, values: &[f64]) -> bool {
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let square: f64 = values.iter().map(|x| (x - mean) * (x - mean)).sum();
        let mut product = 0.0;
        let mut pairs = 0;
        for segment in values.chunks(self.per_segment) {
            for pair in segment.windows(2) {
                product += (pair[0] - mean) * (pair[1] - mean);
                pairs += 1;
            }
        }
        if pairs < LEAST_PAIRS || square <= 0.0 {
            return false;
        }
        let scale = values.len() as f64 / pairs as f64;
        product * scale / square > 1.645 / (pairs as f64).sqrt()
    }

    /// The interval of `value` from the figure of each batch, in batches long enough to be independent: `figure` gives
    /// the figure and what is tested for correlation. `least` queries in each batch.
    fn estimate(&self, value: f64, least: f64, figure: impl Fn(&Batch) -> (f64, f64)) -> Estimate {
        let short = |batches: &Self| batches.list.iter().any(|batch| (batch.histogram.total() as f64) < least);
        let mut batches = self.clone();
        loop {
            if batches.list.len() < LEAST_BATCHES {
                return Estimate { value, ..Estimate::NONE };
            }
            let figures: Vec<(f64, f64)> = batches.list.iter().map(&figure).collect();
            let tested: Vec<f64> = figures.iter().map(|figure| figure.1).collect();
            let may_halve = batches.list.len() / 2 >= LEAST_BATCHES;
            if short(&batches) || (may_halve && batches.correlated(&tested)) {
                batches = batches.halved();
                continue;
            }
            let b = figures.len() as f64;
            let square: f64 = figures.iter().map(|figure| (figure.0 - value) * (figure.0 - value)).sum();
            let half_width = student(figures.len() - 1) * (square / (b * (b - 1.0))).sqrt();
            let mean = tested.iter().sum::<f64>() / b;
            let variance = tested.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / (b * (b - 1.0));
            return Estimate { value, half_width, effective: variance };
        }
    }
}

/// Percentiles of the latencies of a run.
pub fn percentiles(segments: &[Segment], ps: &[f64]) -> Vec<Estimate> {
    let batches = Batches::of(segments);
    let mut all = Histogram::default();
    for batch in &batches.list {
        all.merge(&batch.histogram);
    }
    let kept = segments.iter().all(|segment| segment.record.kept.is_some());
    let mut samples: Vec<f64> = Vec::new();
    if kept {
        let each = segments.iter().filter_map(|segment| segment.record.kept.as_ref());
        samples.extend(each.flatten().copied().filter(|x| !x.is_nan()));
    }
    let one = |p: f64| {
        if (all.total() as f64) < needed(p) {
            return Estimate::NONE;
        }
        let coarse = all.quantile(p);
        let value = if kept { percentile::percentiles(&mut samples.clone(), &[p])[0] } else { coarse };
        let least = TAIL_QUERIES_OF_A_BATCH / p.min(1.0 - p);
        // Batches are compared with what the same histogram says of the whole.
        let found =
            batches.estimate(coarse, least, |batch| (batch.histogram.quantile(p), batch.histogram.share_up_to(coarse)));
        Estimate { value, effective: p * (1.0 - p) / found.effective, ..found }
    };
    ps.iter().map(|p| one(*p)).collect()
}

/// Mean latency of a run.
pub fn mean(segments: &[Segment]) -> Estimate {
    let batches = Batches::of(segments);
    let (mut sum, mut count) = (0.0, 0);
    for batch in &batches.list {
        sum += batch.sum;
        count += batch.histogram.total();
    }
    if count == 0 {
        return Estimate::NONE;
    }
    let of = |batch: &Batch| batch.sum / batch.histogram.total().max(1) as f64;
    let found = batches.estimate(sum / count as f64, 100.0, |batch| (of(batch), of(batch)));
    Estimate { effective: f64::NAN, ..found }
}

/// Mean latency over time, averaged over segments of one length: (queries of each entry, means).
fn course(segments: &[Segment]) -> (usize, Vec<f64>) {
    let Some(first) = segments.first() else { return (GROUP, Vec::new()) };
    let per = first.record.series.groups_per_sum;
    let like: Vec<&[f64]> = segments
        .iter()
        .filter(|segment| segment.record.series.groups_per_sum == per)
        .map(|segment| segment.record.series.complete())
        .collect();
    let len = like.iter().map(|series| series.len()).min().unwrap_or(0);
    let scale = 1.0 / (like.len() * per * GROUP) as f64;
    (per * GROUP, (0..len).map(|i| like.iter().map(|series| series[i]).sum::<f64>() * scale).collect())
}

/// Queries that the rule MSER drops from the front of each segment (White 1997, over groups of 16 or more queries):
/// the cut that minimises the standard error of the mean of the rest. `None` if that is more than half of the segment.
pub fn warmup_cut(segments: &[Segment]) -> Option<u64> {
    let (per, means) = course(segments);
    let n = means.len();
    if n < 10 {
        return None;
    }
    let (mut sum, mut square) = (0.0, 0.0);
    let mut best = (f64::INFINITY, 0);
    // From the back, so that sums grow; at least five groups stay.
    for cut in (0..n).rev() {
        sum += means[cut];
        square += means[cut] * means[cut];
        let left = (n - cut) as f64;
        if n - cut >= 5 {
            let spread = (square - sum * sum / left) / (left * left);
            if spread <= best.0 {
                best = (spread, cut);
            }
        }
    }
    (best.1 <= n / 2).then_some((best.1 * per) as u64)
}

/// How fast latency grows, as a share of elapsed time, between the second and the last quarter of the segments. About 0 in
/// a stable system; one that is offered 1 + x times what it can do falls behind by x.
pub fn growth(segments: &[Segment], qps: f64) -> f64 {
    let (per, means) = course(segments);
    let n = means.len();
    if n < 8 {
        return 0.0;
    }
    let mean = |from: usize, to: usize| means[from..to].iter().sum::<f64>() / (to - from) as f64;
    let elapsed_s = ((n - n / 4 + n) as f64 - (n / 4 + n / 2) as f64) / 2.0 * per as f64 / qps;
    (mean(n - n / 4, n) - mean(n / 4, n / 2)) / elapsed_s
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn students_points_are_those_of_the_tables() {
        for (df, t) in [(9, 2.262_157), (15, 2.131_450), (31, 2.039_513), (63, 1.998_341)] {
            assert!((student(df) - t).abs() < 2e-3, "{df}: {}", student(df));
        }
    }

    #[test]
    fn a_percentile_needs_ten_queries_beyond_it() {
        assert_eq!(needed(0.99), 1000.0);
        assert_eq!(needed(0.9), 100.0);
        assert_eq!(needed(0.01), 1000.0);
    }
}

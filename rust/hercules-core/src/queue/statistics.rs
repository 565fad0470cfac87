//! From the records of segments to figures with their uncertainty.
//!
//! Latencies of neighbouring queries are alike, so nothing here takes them for independent: errors come from the spread
//! over batches. For a percentile Q that is the spread of the share of latencies up to Q, t s / sqrt(b) = h, and the
//! interval reaches as far as the percentiles p - h and p + h of the whole run. The spread of the batches' own percentiles
//! would be too small: where a batch has only a few bursts they are biased, and grow less than the share beyond Q.

use crate::queue::engine::Segment;
use crate::queue::percentile;
use crate::queue::record::{Batch, GROUP, Histogram};
use std::borrow::Cow;

/// Order statistics that must lie beyond a percentile before it is given at all, and in each batch before an interval is.
pub const TAIL_QUERIES: f64 = 10.0;
const TAIL_QUERIES_OF_A_BATCH: f64 = 100.0;
/// Fewest batches that an interval is made from, and fewest pairs of neighbours that a test of correlation is.
const LEAST_BATCHES: usize = 10;
const LEAST_PAIRS: usize = 8;
/// A system falls behind whose latency grows by more than this share of elapsed time, or by the lesser one beyond doubt.
const GROWTH_LIMIT: f64 = 0.05;
const SURE_GROWTH: f64 = 0.005;
/// Segments whose growths are compared.
const LEAST_SEGMENTS: usize = 8;

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

/// The same for an interval: [`LEAST_BATCHES`] batches.
pub fn needed_for_interval(p: f64) -> f64 {
    LEAST_BATCHES as f64 * TAIL_QUERIES_OF_A_BATCH / p.min(1.0 - p)
}

/// The 97.5 % point of Student's law, by its expansion in 1/df (Abramowitz & Stegun 26.7.5); within 1e-3 from 9 on.
pub(crate) fn student(df: usize) -> f64 {
    let (z, n) = (1.959_963_984_540_054_f64, df as f64);
    let g1 = (z.powi(3) + z) / 4.0;
    let g2 = (5.0 * z.powi(5) + 16.0 * z.powi(3) + 3.0 * z) / 96.0;
    let g3 = (3.0 * z.powi(7) + 19.0 * z.powi(5) + 17.0 * z.powi(3) - 15.0 * z) / 384.0;
    z + g1 / n + g2 / (n * n) + g3 / (n * n * n)
}

/// Batches of a run in order, and how many of them belong to each segment.
#[derive(Debug)]
struct Batches<'a> {
    list: Vec<Cow<'a, Batch>>,
    per_segment: usize,
}

impl<'a> Batches<'a> {
    fn of(segments: &'a [Segment]) -> Self {
        let list: Vec<_> = segments.iter().flat_map(|segment| &segment.record.batches).map(Cow::Borrowed).collect();
        let per_segment = if segments.is_empty() { 1 } else { list.len() / segments.len() };
        Self { list, per_segment: per_segment.max(1) }
    }

    /// Half as many, of twice the length.
    fn halved(&self) -> Batches<'static> {
        let join = |pair: &[Cow<'_, Batch>]| {
            let mut batch = pair[0].clone().into_owned();
            for other in &pair[1..] {
                batch.histogram.merge(&other.histogram);
                batch.sum += other.sum;
            }
            Cow::Owned(batch)
        };
        Batches { list: self.list.chunks(2).map(join).collect(), per_segment: self.per_segment.div_ceil(2) }
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

    /// The standard error of the mean of a figure over batches that are long enough to be independent, with `least`
    /// queries in each, and the half-width of its 95 % interval. `None` if the run is too short.
    fn error(&self, least: f64, figure: impl Fn(&Batch) -> f64) -> Option<(f64, f64)> {
        let mut joined: Option<Batches<'static>> = None;
        loop {
            let batches = joined.as_ref().unwrap_or(self);
            if batches.list.len() < LEAST_BATCHES {
                return None;
            }
            let figures: Vec<f64> = batches.list.iter().map(|batch| figure(batch)).collect();
            let may_halve = figures.len() / 2 >= LEAST_BATCHES;
            let is_short = batches.list.iter().any(|batch| (batch.histogram.total() as f64) < least);
            if is_short || (may_halve && batches.correlated(&figures)) {
                joined = Some(batches.halved());
                continue;
            }
            let b = figures.len() as f64;
            let mean = figures.iter().sum::<f64>() / b;
            let error = (figures.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / (b * (b - 1.0))).sqrt();
            return Some((error, student(figures.len() - 1) * error));
        }
    }
}

/// Percentiles of the latencies of a run, with intervals if it `is_long`.
pub fn percentiles(segments: &[Segment], ps: &[f64], is_long: bool) -> Vec<Estimate> {
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
        let bare = Estimate { value, ..Estimate::NONE };
        let least = TAIL_QUERIES_OF_A_BATCH / p.min(1.0 - p);
        if !is_long {
            return bare;
        }
        let Some((error, h)) = batches.error(least, |batch| batch.histogram.share_up_to(coarse)) else { return bare };
        if p - h <= 0.0 || p + h >= 1.0 {
            return bare;
        }
        let half_width = f64::max(coarse - all.quantile(p - h), all.quantile(p + h) - coarse);
        Estimate { value, half_width, effective: p * (1.0 - p) / (error * error) }
    };
    ps.iter().map(|p| one(*p)).collect()
}

/// Share of the queries that took longer than each of `limits`, with an interval if the run `is_long`.
pub fn shares_above(segments: &[Segment], limits: &[f64], is_long: bool) -> Vec<Estimate> {
    let batches = Batches::of(segments);
    let all: u64 = batches.list.iter().map(|batch| batch.histogram.total()).sum();
    let one = |limit: f64| {
        let above = |batch: &Batch| 1.0 - batch.histogram.share_up_to(limit);
        let weighted = batches.list.iter().map(|batch| above(batch) * batch.histogram.total() as f64);
        let value = weighted.sum::<f64>() / all as f64;
        let error = if is_long { batches.error(TAIL_QUERIES_OF_A_BATCH, above) } else { None };
        let half_width = error.map_or(f64::NAN, |(_, half_width)| half_width);
        Estimate { value, half_width, effective: f64::NAN }
    };
    limits.iter().map(|limit| one(*limit)).collect()
}

/// Share of the queries that were refused or dropped; its interval comes from the spread over segments.
pub fn lost(segments: &[Segment]) -> Estimate {
    let of = |segment: &Segment| {
        let lost = (segment.record.refused + segment.record.dropped) as f64;
        let done: u64 = segment.record.batches.iter().map(|batch| batch.histogram.total()).sum();
        (lost, lost + done as f64)
    };
    let (lost, all) = segments.iter().map(of).fold((0.0, 0.0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
    let value = if all > 0.0 { lost / all } else { 0.0 };
    let n = segments.len() as f64;
    let square: f64 = segments.iter().map(of).map(|(lost, all)| (lost / all - value).powi(2)).sum();
    let half_width =
        if segments.len() < 8 { f64::NAN } else { student(segments.len() - 1) * (square / (n * (n - 1.0))).sqrt() };
    Estimate { value, half_width, effective: f64::NAN }
}

/// Mean latency of a run, with an interval if it `is_long`.
pub fn mean(segments: &[Segment], is_long: bool) -> Estimate {
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
    let error = if is_long { batches.error(100.0, of) } else { None };
    let half_width = error.map_or(f64::NAN, |(_, half_width)| half_width);
    Estimate { value: sum / count as f64, half_width, effective: f64::NAN }
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

/// Whether latency grows for good. Segments are independent, so where there are enough of them the spread of their growths
/// tells a slow collapse from slow bursts; else a share of elapsed time does.
pub fn falls_behind(segments: &[Segment], qps: f64) -> bool {
    let all = growth(segments, qps);
    if segments.len() < LEAST_SEGMENTS {
        return all > GROWTH_LIMIT;
    }
    let each: Vec<f64> = segments.chunks(1).map(|segment| growth(segment, qps)).collect();
    let n = each.len() as f64;
    let mean = each.iter().sum::<f64>() / n;
    let error = (each.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / (n * (n - 1.0))).sqrt();
    (all > GROWTH_LIMIT && all > 3.0 * error) || (all > SURE_GROWTH && all > 5.0 * error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::record::{Cut, Record};
    use crate::rng::{Purpose, Stream};

    #[test]
    fn students_points_are_those_of_the_tables() {
        for (df, t) in [(9, 2.262_157), (15, 2.131_450), (31, 2.039_513), (63, 1.998_341)] {
            assert!((student(df) - t).abs() < 2e-3, "{df}: {}", student(df));
        }
    }

    /// A run of segments of `queries` latencies each, in `batches` batches each.
    fn run(segments: u64, queries: u64, batches: u64, latency: impl Fn(u64, u64) -> f64) -> Vec<Segment> {
        let segment = |segment: u64| {
            let mut record = Record::new(Cut::new(queries, 0, batches), false).unwrap();
            (0..queries).for_each(|query| record.push(latency(segment, query)));
            Segment { record, uses: Vec::new(), queries, seconds: 1.0, inside_query_s: 0.0, waits: Vec::new() }
        };
        (0..segments).map(segment).collect()
    }

    fn draw(replication: u64, segment: u64, query: u64) -> f64 {
        Stream::new(replication, Purpose::Search, segment).exponential(query)
    }

    #[test]
    fn independent_latencies_count_fully_and_repeated_ones_once() {
        let n = 320_000;
        for (repeats, batches, segments) in [(1, 32, 1), (1, 1, 32), (1, 8, 4), (50, 32, 1), (50, 2, 16)] {
            // Both the width and the count of a run have an error of some 1/sqrt(2 * 31): a mean over many runs.
            let (mut width, mut effective, mut mean_width) = (0.0, 0.0, 0.0);
            let runs = 40;
            for replication in 0..runs {
                let latency = |segment, query: u64| draw(replication, segment, query / repeats);
                let run = run(segments, n / segments, batches, latency);
                let [found] = percentiles(&run, &[0.9], true)[..] else { panic!() };
                width += found.half_width / runs as f64;
                effective += found.effective / runs as f64;
                mean_width += mean(&run, true).half_width / runs as f64;
            }
            // The share has deviation sqrt(p (1-p)), the mean 1. t of 31 is 2.04; the far end is at 1 - p - h.
            let independent = (n / repeats) as f64;
            let expected = -(1.0 - 2.04 * 0.3 / independent.sqrt() / 0.1).ln();
            assert!((width / expected - 1.0).abs() < 0.12, "{repeats} {batches}: {width} for {expected}");
            assert!((mean_width / (2.04 / independent.sqrt()) - 1.0).abs() < 0.12, "{repeats} {batches}: {mean_width}");
            assert!((effective / independent - 1.0).abs() < 0.25, "{repeats} {batches}: {effective} of {independent}");
        }
    }

    #[test]
    fn batches_that_are_alike_are_joined() {
        // A wave of sixteen batches of ten thousand each.
        let wave = |query: u64| if (query / 80_000).is_multiple_of(2) { 1.0 } else { 1.2 };
        let slow = run(1, 320_000, 32, |s, q| draw(1, s, q) * wave(q));
        let batches = Batches::of(&slow);
        let means: Vec<f64> = batches.list.iter().map(|batch| batch.sum / batch.histogram.total() as f64).collect();
        assert!(batches.correlated(&means));
        let joined = batches.halved();
        assert_eq!((joined.list.len(), joined.per_segment), (16, 16));
        let sum = |batches: &Batches<'_>| batches.list.iter().map(|batch| batch.histogram.total()).sum::<u64>();
        assert_eq!(sum(&joined), sum(&batches));
        // Segments say nothing of each other: the same figures are not correlated if each has its own.
        let apart = Batches { list: batches.list.clone(), per_segment: 1 };
        assert!(!apart.correlated(&means));
        // Chance alone calls one run in twenty correlated.
        let chance = (0..400)
            .filter(|replication| {
                let values: Vec<f64> = (0..32).map(|i| draw(*replication, 7, i)).collect();
                batches.correlated(&values)
            })
            .count();
        assert!((4..=40).contains(&chance), "{chance} of 400");
    }

    #[test]
    fn a_short_run_has_no_interval_and_a_shorter_one_no_percentile() {
        let of = |queries: u64, p: f64| percentiles(&run(1, queries, 32, |s, q| draw(2, s, q)), &[p], true)[0];
        assert!(of(999, 0.99).value.is_nan() && of(999, 0.01).value.is_nan());
        for p in [0.99, 0.01] {
            let bare = of(1000, p);
            assert!(bare.value > 0.0 && bare.half_width.is_nan() && bare.effective.is_nan());
            // Sixteen batches of ten thousand (and a group, for they are whole).
            assert!(of(150_000, p).half_width.is_nan());
            assert!(of(170_000, p).half_width > 0.0);
        }
        assert!(mean(&run(1, 1000, 32, |s, q| draw(2, s, q)), true).half_width.is_nan());
    }

    #[test]
    fn kept_latencies_give_the_exact_percentile_with_the_interval_of_the_histogram() {
        let mut kept = run(1, 200_000, 32, |s, q| draw(3, s, q));
        let [coarse] = percentiles(&kept, &[0.9], true)[..] else { panic!() };
        let mut values: Vec<f64> = (0..200_000).map(|q| draw(3, 0, q)).collect();
        kept[0].record.kept = Some(values.clone());
        let [exact] = percentiles(&kept, &[0.9], true)[..] else { panic!() };
        values.sort_by(f64::total_cmp);
        assert_eq!(exact.value, values[179_999]);
        assert_eq!((exact.half_width, exact.effective), (coarse.half_width, coarse.effective));
    }

    #[test]
    fn the_warmup_is_cut_where_it_ends() {
        let ramp = |segment, query: u64| draw(4, segment, query) * (0.2 + f64::min(0.8, query as f64 / 4000.0));
        let cut = warmup_cut(&run(8, 40_000, 4, ramp)).unwrap();
        assert!((1500..6000).contains(&cut), "{cut}");
        assert_eq!(warmup_cut(&run(8, 40_000, 4, |_, query| query as f64)), None);
        assert!(warmup_cut(&run(8, 40_000, 4, |_, _| 1.0)).unwrap() == 0);
        assert_eq!(warmup_cut(&run(1, 100, 1, |_, _| 1.0)), None);
    }

    #[test]
    fn growth_is_the_share_by_which_a_system_falls_behind() {
        // At 5 queries per second, latency grows by 0.3 s in each second.
        let behind = growth(&run(3, 50_000, 4, |s, query| draw(5, s, query) + 0.3 * query as f64 / 5.0), 5.0);
        assert!((behind - 0.3).abs() < 1e-3, "{behind}");
        assert!(growth(&run(3, 50_000, 4, |s, query| draw(5, s, query)), 5.0).abs() < 1e-3);
        assert_eq!(growth(&run(1, 100, 1, |_, query| query as f64), 5.0), 0.0);
    }

    #[test]
    fn a_system_falls_behind_where_its_segments_agree() {
        let with = |segments, share: f64, spread: f64| {
            let latency = |segment: u64, query: u64| {
                let mine = share + if segment.is_multiple_of(2) { spread } else { -spread };
                draw(6, segment, query) + mine * query as f64 / 5.0
            };
            falls_behind(&run(segments, 20_000, 4, latency), 5.0)
        };
        assert!(with(16, 0.01, 0.0) && !with(16, 0.003, 0.0));
        assert!(!with(16, 0.01, 0.1), "the error is 0.1 / sqrt 15");
        // 3 and 5 errors of 0.0258.
        assert!(!with(16, 0.07, 0.1) && with(16, 0.09, 0.1));
        // Two segments are no sample: as much as 5 %.
        assert!(!with(2, 0.04, 0.0) && with(2, 0.06, 0.0) && !with(1, 0.01, 0.0));
    }

    #[test]
    fn a_percentile_needs_ten_queries_beyond_it() {
        assert_eq!(needed(0.99), 1000.0);
        assert_eq!(needed(0.9), 100.0);
        assert_eq!(needed(0.01), 1000.0);
    }
}

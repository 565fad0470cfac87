//! What is kept of the latencies of a segment, in memory that does not grow with the number of queries.
//!
//! Latencies are taken in order of arrival. Those after the warm-up are counted in log-linear buckets, one histogram for
//! each of a fixed number of batches; sums of neighbouring queries, ever more of them together, serve the checks of the
//! warm-up and of a backlog. All of it adds up exactly, so results do not depend on threads.

use crate::error::{Error, Result};

/// Bits of the mantissa that a bucket keeps: a bucket is 2^-10 of its lower end wide.
const BUCKET_BITS: u32 = 10;
/// Exponents that have buckets of their own: from 2^-44 s (zero counts as less) to 2^36 s.
const LEAST_EXPONENT: i64 = -44;
const EXPONENTS: u64 = 80;
const BASE: u64 = ((1023 + LEAST_EXPONENT) as u64) << BUCKET_BITS;
/// Buckets of a histogram.
pub const BUCKETS: usize = (EXPONENTS << BUCKET_BITS) as usize;

/// Queries whose latencies are added up first.
pub const GROUP: usize = 16;
/// Most sums of a [`Series`].
const MAX_SUMS: usize = 4096;

/// The bucket of a latency: a monotone function of it.
#[inline(always)]
pub fn bucket(seconds: f64) -> u32 {
    let at = (seconds.to_bits() >> (52 - BUCKET_BITS)).max(BASE) - BASE;
    at.min(BUCKETS as u64 - 1) as u32
}

/// Lower end of a bucket; 0 for the first.
fn lower(bucket: usize) -> f64 {
    if bucket == 0 { 0.0 } else { f64::from_bits((bucket as u64 + BASE) << (52 - BUCKET_BITS)) }
}

/// Counts of a range of buckets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Histogram {
    first: usize,
    counts: Vec<u64>,
    total: u64,
}

impl Histogram {
    pub fn total(&self) -> u64 {
        self.total
    }

    pub fn merge(&mut self, other: &Self) {
        if other.total == 0 {
            return;
        }
        if self.total == 0 {
            *self = other.clone();
            return;
        }
        let first = self.first.min(other.first);
        let end = (self.first + self.counts.len()).max(other.first + other.counts.len());
        let mut counts = vec![0; end - first];
        for part in [&*self, other] {
            for (to, from) in counts[part.first - first..].iter_mut().zip(&part.counts) {
                *to += from;
            }
        }
        *self = Self { first, counts, total: self.total + other.total };
    }

    /// Smallest x with F(x) >= p, evenly spread inside its bucket; NaN for no values.
    pub fn quantile(&self, p: f64) -> f64 {
        if self.total == 0 {
            return f64::NAN;
        }
        let rank = super::percentile::rank(p, self.total as usize) as u64;
        let mut before = 0;
        for (i, &count) in self.counts.iter().enumerate() {
            if before + count >= rank {
                let (low, high) = (lower(self.first + i), lower(self.first + i + 1));
                if self.first + i == 0 {
                    return 0.0;
                }
                return low + (high - low) * ((rank - before) as f64 - 0.5) / count as f64;
            }
            before += count;
        }
        lower(self.first + self.counts.len())
    }

    /// Share of values up to x: the step at a bucket spread over it as [`Histogram::quantile`] does.
    pub fn share_up_to(&self, x: f64) -> f64 {
        let at = bucket(x) as usize;
        if self.total == 0 || at < self.first {
            return 0.0;
        }
        let whole = self.counts.iter().take(at - self.first).sum::<u64>() as f64;
        let part = match self.counts.get(at - self.first) {
            Some(count) if at > 0 => {
                let (low, high) = (lower(at), lower(at + 1));
                *count as f64 * ((x - low) / (high - low)).clamp(0.0, 1.0)
            }
            Some(count) => *count as f64,
            None => 0.0,
        };
        (whole + part) / self.total as f64
    }
}

/// Buckets that are being filled.
#[derive(Debug)]
pub struct Counts {
    wide: Vec<u32>,
    low: usize,
    high: usize,
}

impl Default for Counts {
    fn default() -> Self {
        Self { wide: vec![0; BUCKETS], low: usize::MAX, high: 0 }
    }
}

impl Counts {
    #[inline]
    pub fn add(&mut self, seconds: f64) {
        let at = bucket(seconds) as usize;
        self.wide[at] += 1;
        self.widen(at, at);
    }

    /// The buckets themselves, for loops that then tell the range with [`Counts::widen`].
    pub fn wide(&mut self) -> &mut [u32] {
        &mut self.wide
    }

    #[inline]
    pub fn widen(&mut self, low: usize, high: usize) {
        self.low = self.low.min(low);
        self.high = self.high.max(high);
    }

    /// What was counted; all is 0 afterwards.
    pub fn take(&mut self) -> Histogram {
        let (low, high) = (std::mem::replace(&mut self.low, usize::MAX), std::mem::take(&mut self.high));
        if low > high {
            return Histogram::default();
        }
        let wide = &mut self.wide[low..=high];
        let counts: Vec<u64> = wide.iter().map(|count| u64::from(*count)).collect();
        wide.fill(0);
        Histogram { first: low, total: counts.iter().sum(), counts }
    }
}

/// How a segment is cut: the warm-up, then batches of whole groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// Queries of the segment, and those dropped from the front.
    pub queries: u64,
    pub warmup: u64,
    /// Batches that the rest falls into; the last takes what is left over.
    pub batches: u64,
}

impl Cut {
    /// `batches` are as many as there are groups for.
    pub fn new(queries: u64, warmup: u64, batches: u64) -> Self {
        let groups = (queries - warmup) / GROUP as u64;
        Self { queries, warmup, batches: batches.clamp(1, groups.max(1)) }
    }

    /// First query of batch `b`; that of the batch after the last is the end.
    fn begin(self, b: u64) -> u64 {
        let group = GROUP as u64;
        let len = (self.queries - self.warmup) / self.batches / group * group;
        if b >= self.batches { self.queries } else { self.warmup + b * len }
    }
}

/// Sums over ever more neighbours, so that there are never more than [`MAX_SUMS`] of them.
#[derive(Debug, Clone)]
pub struct Series {
    pub sums: Vec<f64>,
    /// Groups in each sum, and in the last one so far.
    pub groups_per_sum: usize,
    filled: usize,
}

impl Series {
    fn new() -> Self {
        Self { sums: Vec::new(), groups_per_sum: 1, filled: 0 }
    }

    fn push(&mut self, sum: f64) {
        if self.filled == 0 {
            if self.sums.len() == MAX_SUMS {
                for i in 0..MAX_SUMS / 2 {
                    self.sums[i] = self.sums[2 * i] + self.sums[2 * i + 1];
                }
                self.sums.truncate(MAX_SUMS / 2);
                self.groups_per_sum *= 2;
            }
            self.sums.push(sum);
        } else if let Some(last) = self.sums.last_mut() {
            *last += sum;
        }
        self.filled = (self.filled + 1) % self.groups_per_sum;
    }

    /// The sums that have all of their groups.
    pub fn complete(&self) -> &[f64] {
        &self.sums[..self.sums.len() - usize::from(self.filled > 0)]
    }
}

/// Why a query has no latency.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lost {
    Refused,
    Dropped,
}

/// Latencies of one batch.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    pub histogram: Histogram,
    pub sum: f64,
}

/// The record of one segment.
#[derive(Debug)]
pub struct Record {
    cut: Cut,
    /// Queries so far; where the stretch at hand ends (warm-up or batch), and the group at hand.
    position: u64,
    border: u64,
    group_end: u64,
    warm: bool,
    counts: Counts,
    sum: f64,
    /// Sum of the group at hand.
    open: f64,
    pub batches: Vec<Batch>,
    /// Sums of latencies over the whole segment, warm-up included.
    pub series: Series,
    pub refused: u64,
    pub dropped: u64,
    /// Every latency after the warm-up, NaN where there is none, if they are to be kept.
    pub kept: Option<Vec<f64>>,
}

impl Record {
    pub fn new(cut: Cut, keep: bool) -> Result<Self> {
        let kept = if keep {
            let mut kept = Vec::new();
            let count = (cut.queries - cut.warmup) as usize;
            kept.try_reserve_exact(count).map_err(|_| Error::Memory { bytes: count.saturating_mul(8) })?;
            Some(kept)
        } else {
            None
        };
        let warm = cut.warmup == 0;
        let border = if warm { cut.begin(1) } else { cut.warmup };
        Ok(Self {
            cut,
            position: 0,
            border,
            group_end: border.min(GROUP as u64),
            warm,
            counts: Counts::default(),
            sum: 0.0,
            open: 0.0,
            batches: Vec::with_capacity(cut.batches as usize),
            series: Series::new(),
            refused: 0,
            dropped: 0,
            kept,
        })
    }

    /// Queries so far.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Whether the warm-up is over.
    pub fn is_warm(&self) -> bool {
        self.warm
    }

    /// The latency of the next query.
    #[inline]
    pub fn push(&mut self, seconds: f64) {
        self.open += seconds;
        if self.warm {
            self.counts.add(seconds);
            if let Some(kept) = &mut self.kept {
                kept.push(seconds);
            }
        }
        self.advance();
    }

    /// The latencies of the next queries.
    pub fn extend(&mut self, latencies: &[f64]) {
        for seconds in latencies {
            self.push(*seconds);
        }
    }

    /// The next query is lost.
    pub fn push_lost(&mut self, lost: Lost) {
        if self.warm {
            match lost {
                Lost::Refused => self.refused += 1,
                Lost::Dropped => self.dropped += 1,
            }
            if let Some(kept) = &mut self.kept {
                kept.push(f64::NAN);
            }
        }
        self.advance();
    }

    #[inline]
    fn advance(&mut self) {
        self.position += 1;
        if self.position == self.group_end {
            self.close_group();
        }
    }

    fn close_group(&mut self) {
        let sum = std::mem::take(&mut self.open);
        self.sum += sum;
        self.series.push(sum);
        if self.position == self.border {
            self.close_stretch();
        }
        self.group_end = self.border.min(self.position + GROUP as u64);
    }

    #[cold]
    fn close_stretch(&mut self) {
        let sum = std::mem::take(&mut self.sum);
        if self.warm {
            self.batches.push(Batch { histogram: self.counts.take(), sum });
            if self.position == self.cut.queries {
                // Many segments of a run may wait for the last one.
                self.counts = Counts { wide: Vec::new(), ..self.counts };
            }
        }
        self.warm = true;
        self.border = self.cut.begin(self.batches.len() as u64 + 1);
    }

    /// How many of the next `queries` the vector loops may hand over at once: whole groups up to the next border.
    pub fn groups_ahead(&self, queries: usize) -> usize {
        if self.kept.is_some() || self.position + GROUP as u64 != self.group_end {
            return 0;
        }
        queries.min((self.border - self.position) as usize) / GROUP
    }

    /// Buckets of the stretch at hand, for the vector loops; [`Record::push_groups`] tells which were counted in.
    pub fn counts(&mut self) -> &mut [u32] {
        self.counts.wide()
    }

    /// Whole groups by their sums. After the warm-up, their latencies were counted in buckets `low..=high`.
    pub fn push_groups(&mut self, sums: impl Iterator<Item = f64>, low: usize, high: usize) {
        if self.warm {
            self.counts.widen(low, high);
        }
        for sum in sums {
            self.open = sum;
            self.position += GROUP as u64;
            self.close_group();
        }
    }
}

/// Puts latencies that are known out of order into the order of arrival.
#[derive(Debug, Default)]
pub struct InOrder {
    waiting: std::collections::VecDeque<f64>,
}

/// Marks of queries without a latency; real ones are not negative.
const UNKNOWN: f64 = -1.0;
const REFUSED: f64 = -2.0;
const DROPPED: f64 = -3.0;

impl InOrder {
    /// Latency of `query` of the segment.
    #[inline]
    pub fn put(&mut self, query: u64, seconds: f64, record: &mut Record) {
        if self.waiting.is_empty() && query == record.position() {
            record.push(seconds);
        } else {
            self.place(query, seconds, record);
        }
    }

    /// `query` has none.
    pub fn put_lost(&mut self, query: u64, lost: Lost, record: &mut Record) {
        let mark = if lost == Lost::Refused { REFUSED } else { DROPPED };
        self.place(query, mark, record);
    }

    fn place(&mut self, query: u64, mark: f64, record: &mut Record) {
        let at = (query - record.position()) as usize;
        if self.waiting.len() <= at {
            self.waiting.resize(at + 1, UNKNOWN);
        }
        self.waiting[at] = mark;
        while self.waiting.front().is_some_and(|first| *first != UNKNOWN) {
            match self.waiting.pop_front() {
                Some(REFUSED) => record.push_lost(Lost::Refused),
                Some(DROPPED) => record.push_lost(Lost::Dropped),
                Some(seconds) => record.push(seconds),
                None => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::percentile;
    use crate::rng::{Purpose, Stream};
    use proptest::prelude::*;

    fn latencies(n: u64) -> Vec<f64> {
        let stream = Stream::new(3, Purpose::Search, 0);
        (0..n).map(|i| stream.exponential(i) * stream.exponential(i + n)).collect()
    }

    fn histogram(values: &[f64]) -> Histogram {
        let mut counts = Counts::default();
        for x in values {
            counts.add(*x);
        }
        counts.take()
    }

    #[test]
    fn a_bucket_holds_what_lies_between_its_ends() {
        let stream = Stream::new(5, Purpose::Search, 0);
        for i in 0..100_000 {
            let x = ((stream.uniform(i) - 0.5) * 70.0 * std::f64::consts::LN_2).exp();
            let at = bucket(x) as usize;
            assert!(lower(at) <= x && x < lower(at + 1), "{x:e} in bucket {at}");
            assert!(lower(at + 1) / lower(at) <= 1.0 + 2.0_f64.powi(-10));
            assert_eq!(bucket(lower(at)) as usize, at);
        }
        for small in [0.0, 5e-324, 1e-300, 2.0_f64.powi(-44)] {
            assert_eq!(bucket(small), 0, "{small:e}");
        }
        for large in [2.0_f64.powi(36), 1e300, f64::INFINITY] {
            assert_eq!(bucket(large) as usize, BUCKETS - 1, "{large:e}");
        }
    }

    #[test]
    fn quantiles_are_those_of_the_sorted_values_to_a_bucket() {
        for n in [1, 2, 17, 1000, 30_000] {
            let mut values = latencies(n);
            let counted = histogram(&values);
            assert_eq!(counted.total(), n);
            for p in [0.001, 0.1, 0.5, 0.9, 0.99, 0.999] {
                let exact = percentile::percentiles(&mut values, &[p])[0];
                let found = counted.quantile(p);
                assert_eq!(bucket(found), bucket(exact), "p {p} of {n}: {found} for {exact}");
                // One value is spread over its bucket, so shares and quantiles differ by half of one.
                assert!((counted.share_up_to(found) * n as f64 - percentile::rank(p, n as usize) as f64).abs() < 0.51);
            }
            assert_eq!(counted.share_up_to(f64::INFINITY), 1.0);
            assert_eq!(counted.share_up_to(1e-12), 0.0);
        }
        assert!(histogram(&[]).quantile(0.5).is_nan());
        assert_eq!(histogram(&[0.0, 0.0, 0.0, 7.0]).quantile(0.75), 0.0);
        assert_eq!(histogram(&[0.0, 0.0, 0.0, 7.0]).share_up_to(0.0), 0.75);
    }

    #[test]
    fn merging_is_counting_together_in_any_order() {
        let values = latencies(5000);
        let parts: Vec<_> = values.chunks(617).chain([&[][..]]).map(histogram).collect();
        let merged = |order: &mut dyn Iterator<Item = &Histogram>| {
            let mut all = Histogram::default();
            order.for_each(|part| all.merge(part));
            all
        };
        let all = histogram(&values);
        assert_eq!(merged(&mut parts.iter()), all);
        assert_eq!(merged(&mut parts.iter().rev()), all);
    }

    #[test]
    fn a_series_is_sums_of_neighbours() {
        for n in [0, 1, MAX_SUMS, MAX_SUMS + 1, 5 * MAX_SUMS + 3] {
            let mut series = Series::new();
            (0..n).for_each(|i| series.push(i as f64));
            let per = series.groups_per_sum;
            let naive: Vec<f64> = (0..n / per).map(|k| (k * per..(k + 1) * per).map(|i| i as f64).sum()).collect();
            assert_eq!(series.complete(), naive, "{n}");
            assert!(series.sums.len() <= MAX_SUMS && (per == 1 || series.sums.len() >= MAX_SUMS / 2));
            assert_eq!(series.sums.iter().sum::<f64>(), (0..n).map(|i| i as f64).sum());
        }
    }

    /// Two of thirteen queries are lost.
    fn lost(query: u64) -> Option<Lost> {
        match query % 13 {
            0 => Some(Lost::Refused),
            6 => Some(Lost::Dropped),
            _ => None,
        }
    }

    proptest! {
        #[test]
        fn a_record_is_the_warmup_and_batches_of_whole_groups(
            queries in 1_u64..3000, share in 0.0..1.0_f64, batches in 1_u64..40, with_lost: bool, keep: bool,
        ) {
            let warmup = ((queries as f64 * share) as u64).min(queries - 1);
            let values = latencies(queries);
            let mut record = Record::new(Cut::new(queries, warmup, batches), keep).unwrap();
            let is_lost = |query: u64| lost(query).filter(|_| with_lost);
            for (query, x) in (0..).zip(&values) {
                prop_assert_eq!((record.position(), record.is_warm()), (query, query >= warmup));
                match is_lost(query) {
                    Some(why) => record.push_lost(why),
                    None => record.push(*x),
                }
            }
            let count = record.batches.len();
            prop_assert!(count >= 1 && count <= batches as usize);
            prop_assert_eq!(count as u64, batches.min(((queries - warmup) / GROUP as u64).max(1)));
            let len = (queries - warmup) / count as u64 / GROUP as u64 * GROUP as u64;
            for (b, batch) in record.batches.iter().enumerate() {
                let begin = warmup + b as u64 * len;
                let end = if b + 1 == count { queries } else { begin + len };
                let mine: Vec<f64> =
                    (begin..end).filter(|q| is_lost(*q).is_none()).map(|q| values[q as usize]).collect();
                prop_assert_eq!(&batch.histogram, &histogram(&mine));
                prop_assert!((batch.sum - mine.iter().sum::<f64>()).abs() < 1e-9);
            }
            let after = |why: Lost| (warmup..queries).filter(|q| is_lost(*q) == Some(why)).count() as u64;
            prop_assert_eq!((record.refused, record.dropped), (after(Lost::Refused), after(Lost::Dropped)));
            if let Some(kept) = record.kept {
                let all = (warmup..queries).map(|q| is_lost(q).map_or(values[q as usize], |_| f64::NAN));
                prop_assert!(kept.iter().zip(all).all(|(a, b)| a.to_bits() == b.to_bits()));
                prop_assert_eq!(kept.len() as u64, queries - warmup);
            }
        }

        #[test]
        fn whole_groups_are_the_same_as_one_by_one(queries in 1_u64..3000, warmup in 0_u64..200, block in 1_usize..200) {
            let warmup = warmup.min(queries - 1);
            let values = latencies(queries);
            let cut = Cut::new(queries, warmup, 5);
            let (mut one, mut groups) = (Record::new(cut, false).unwrap(), Record::new(cut, false).unwrap());
            for x in &values {
                one.push(*x);
            }
            for block in values.chunks(block) {
                let mut rest = block;
                while let Some((first, others)) = rest.split_first() {
                    let ahead = groups.groups_ahead(rest.len());
                    if ahead == 0 {
                        groups.push(*first);
                        rest = others;
                        continue;
                    }
                    let (these, others) = rest.split_at(ahead * GROUP);
                    let buckets: Vec<usize> = these.iter().map(|x| bucket(*x) as usize).collect();
                    if groups.is_warm() {
                        for at in &buckets {
                            groups.counts()[*at] += 1;
                        }
                    }
                    let (low, high) = (*buckets.iter().min().unwrap(), *buckets.iter().max().unwrap());
                    groups.push_groups(these.chunks(GROUP).map(|group| group.iter().sum()), low, high);
                    rest = others;
                }
            }
            prop_assert_eq!(one.batches.len(), groups.batches.len());
            for (a, b) in one.batches.iter().zip(&groups.batches) {
                prop_assert_eq!(&a.histogram, &b.histogram);
                prop_assert_eq!(a.sum, b.sum);
            }
            prop_assert_eq!(one.series.sums, groups.series.sums);
        }

        #[test]
        fn latencies_come_out_in_order_of_arrival(order in Just((0..200_u64).collect::<Vec<_>>()).prop_shuffle()) {
            let cut = Cut::new(200, 0, 1);
            let (mut straight, mut record) = (Record::new(cut, true).unwrap(), Record::new(cut, true).unwrap());
            let mut ordered = InOrder::default();
            for query in 0..200 {
                match lost(query) {
                    Some(why) => straight.push_lost(why),
                    None => straight.push(query as f64),
                }
            }
            for query in order {
                match lost(query) {
                    Some(why) => ordered.put_lost(query, why, &mut record),
                    None => ordered.put(query, query as f64, &mut record),
                }
            }
            let bits = |record: &Record| record.kept.as_ref().unwrap().iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            prop_assert_eq!(bits(&straight), bits(&record));
            prop_assert_eq!((straight.refused, straight.dropped), (record.refused, record.dropped));
        }
    }
}

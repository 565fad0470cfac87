//! Where queries come from: arrival processes at a mean rate, sizes, recorded traces.
//!
//! A segment is one independent part of a run; it begins empty at time 0. What it draws is a function of (seed, segment,
//! query) alone, a fixed number of draws for each query and purpose, so that two configurations see the same queries.

use crate::error::{Error, Result};
use crate::queue::law::{Law, cumulative, pick};
use crate::queue::recursion::Draws;
use crate::queue::table::MAX_ITEMS;
use crate::rng::{Purpose, Stream};

/// Latest time in a recorded run: f64 resolves 2 microseconds there. Unix seconds fit; milliseconds are a mistake.
const MAX_ARRIVAL_S: f64 = 1e10;
/// Most phases of a modulated process, and most pieces of a profile.
const MAX_PHASES: usize = 64;
const MAX_PIECES: usize = 1 << 20;
/// Most changes of phase between two queries in the mean.
const MAX_CHANGES: f64 = 1e4;
/// Fewest queries in a cycle of a profile.
const LEAST_CYCLE_QUERIES: f64 = 1e-4;
/// Straight pieces that stand for one period of a sinusoid; the rate is off by less than 5e-6 of the amplitude.
const SINE_PIECES: usize = 1024;

/// An arrival process. All but traces are scaled to the rate at hand.
#[derive(Debug, Clone)]
pub enum Process<'a> {
    /// Independent gaps; exponential ones make the Poisson process.
    Renewal(Law),
    Modulated(Modulated),
    Profile(Profile),
    Trace(Trace<'a>),
}

/// Poisson arrivals whose rate depends on a Markov chain (MMPP).
#[derive(Debug, Clone)]
pub struct Modulated {
    /// Rate in each phase, relative to the mean.
    rates: Vec<f64>,
    /// Departures from each phase per second, whatever the rate of arrivals.
    leave: Vec<f64>,
    /// Changes per second in the mean.
    changes: f64,
    /// Running probabilities of the next phase, and of the first.
    next: Vec<Vec<f64>>,
    first: Vec<f64>,
}

impl Modulated {
    /// `switch[i][j]` changes per second from phase i to j; `rates` are relative to each other.
    pub fn new(rates: &[f64], switch: &[Vec<f64>]) -> Result<Self> {
        let k = rates.len();
        if !(2..=MAX_PHASES).contains(&k) {
            return Err(Error::invalid("rates", format!("has {k} entries; allowed are 2 to {MAX_PHASES}")));
        }
        if let Some(i) = rates.iter().position(|x| !(0.0..=1e12).contains(x)) {
            return Err(Error::invalid(format!("rates[{i}]"), format!("is {}; allowed are 0 to 1e12", rates[i])));
        }
        if switch.len() != k || switch.iter().any(|row| row.len() != k) {
            return Err(Error::invalid("switch", format!("must have {k} rows of {k} entries, as many as rates")));
        }
        for (i, row) in switch.iter().enumerate() {
            let wrong = row.iter().enumerate().find(|(j, x)| *j != i && !(0.0..=1e12).contains(*x));
            if let Some((j, x)) = wrong {
                return Err(Error::invalid(format!("switch[{i}][{j}]"), format!("is {x}; allowed are 0 to 1e12")));
            }
        }
        let away = |i: usize| (0..k).map(move |j| if j == i { 0.0 } else { switch[i][j] });
        let leave: Vec<f64> = (0..k).map(|i| away(i).sum()).collect();
        let share = leave.iter().all(|x| *x > 0.0).then(|| stationary(switch, &leave)).flatten();
        let Some(share) = share else {
            return Err(Error::invalid("switch", "leaves a phase that is never left or never entered"));
        };
        let mean: f64 = share.iter().zip(rates).map(|(p, r)| p * r).sum();
        if !(mean > 0.0 && mean.is_finite()) {
            let message = format!("have the mean {mean} over phases; it must be finite and above 0");
            return Err(Error::invalid("rates", message));
        }
        let changes = share.iter().zip(&leave).map(|(p, rate)| p * rate).sum();
        let next = (0..k).map(|i| cumulative(&away(i).collect::<Vec<_>>())).collect();
        Ok(Self { rates: rates.iter().map(|r| r / mean).collect(), leave, changes, next, first: cumulative(&share) })
    }
}

/// Long-run shares of the phases: pi Q = 0, by elimination without subtractions (Grassmann, Taksar & Heyman 1985).
#[allow(clippy::needless_range_loop)] // indices are those of the matrix
fn stationary(switch: &[Vec<f64>], leave: &[f64]) -> Option<Vec<f64>> {
    let k = leave.len();
    let mut q: Vec<Vec<f64>> = switch.to_vec();
    for n in (1..k).rev() {
        let out: f64 = q[n][..n].iter().sum();
        if out <= 0.0 {
            return None;
        }
        for i in 0..n {
            let through = q[i][n] / out;
            q[i][n] = through;
            for j in 0..n {
                if j != i {
                    q[i][j] += through * q[n][j];
                }
            }
        }
    }
    let mut share = vec![1.0; k];
    for n in 1..k {
        share[n] = (0..n).map(|i| share[i] * q[i][n]).sum();
        if share[n] <= 0.0 {
            return None;
        }
    }
    let total: f64 = share.iter().sum();
    Some(share.into_iter().map(|x| x / total).collect())
}

/// Poisson arrivals whose rate follows a cycle of straight pieces.
#[derive(Debug, Clone)]
pub struct Profile {
    /// (seconds, rate at the beginning, rate at the end), rates relative to the mean.
    pieces: Vec<(f64, f64, f64)>,
    cycle_s: f64,
}

impl Profile {
    pub fn new(durations_s: &[f64], from: &[f64], to: &[f64]) -> Result<Self> {
        let n = durations_s.len();
        if n == 0 || n > MAX_PIECES || from.len() != n || to.len() != n {
            let message = format!(
                "has {n} entries for {} and {} rates; as many of each, 1 to {MAX_PIECES}",
                from.len(),
                to.len()
            );
            return Err(Error::invalid("durations_s", message));
        }
        for (field, values, least) in [("durations_s", durations_s, 1e-9), ("from", from, 0.0), ("to", to, 0.0)] {
            if let Some(i) = values.iter().position(|x| !(least..=1e12).contains(x)) {
                let message = format!("is {}; allowed are {least} to 1e12", values[i]);
                return Err(Error::invalid(format!("{field}[{i}]"), message));
            }
        }
        let pieces: Vec<_> = (0..n).map(|i| (durations_s[i], from[i], to[i])).collect();
        Self::scaled(pieces).ok_or_else(|| Error::invalid("from", "and to are all 0"))
    }

    /// rate(t) = 1 + amplitude sin(2 pi t / period).
    pub fn sinusoid(amplitude: f64, period_s: f64) -> Result<Self> {
        if !(0.0..=1.0).contains(&amplitude) {
            return Err(Error::invalid("amplitude", format!("is {amplitude}; allowed are 0 to 1")));
        }
        if !(1e-6..=1e12).contains(&period_s) {
            return Err(Error::invalid("period_s", format!("is {period_s}; allowed are 1e-6 to 1e12 seconds")));
        }
        // Turn by one step at a time. Taylor is exact to the last bits for so small an angle.
        let a = 2.0 * std::f64::consts::PI / SINE_PIECES as f64;
        let (s, c) =
            (a - a * a * a / 6.0 + a.powi(5) / 120.0, 1.0 - a * a / 2.0 + a.powi(4) / 24.0 - a.powi(6) / 720.0);
        let (mut sine, mut cosine) = (0.0, 1.0);
        let mut pieces = Vec::with_capacity(SINE_PIECES);
        for i in 0..SINE_PIECES {
            let next = if i + 1 == SINE_PIECES { 0.0 } else { sine * c + cosine * s };
            cosine = cosine * c - sine * s;
            let rate = |sine: f64| f64::max(0.0, 1.0 + amplitude * sine);
            pieces.push((period_s / SINE_PIECES as f64, rate(sine), rate(next)));
            sine = next;
        }
        Ok(Self::scaled(pieces).expect("a sinusoid around 1 is not all 0"))
    }

    fn scaled(mut pieces: Vec<(f64, f64, f64)>) -> Option<Self> {
        let cycle_s: f64 = pieces.iter().map(|piece| piece.0).sum();
        let mean = pieces.iter().map(|(d, a, b)| d * 0.5 * (a + b)).sum::<f64>() / cycle_s;
        if mean <= 0.0 {
            return None;
        }
        for piece in &mut pieces {
            piece.1 /= mean;
            piece.2 /= mean;
        }
        Some(Self { pieces, cycle_s })
    }
}

/// A recorded run: times and sizes stay where the caller has them.
#[derive(Debug, Clone)]
pub struct Trace<'a> {
    arrival_s: &'a [f64],
    sizes: Option<&'a [i64]>,
    /// First query of each independent part.
    starts: Vec<usize>,
    rate_scale: f64,
    cycles: usize,
    cycle_s: f64,
}

impl<'a> Trace<'a> {
    /// Times must not decrease within a part. With `cycles` above 1 each part is repeated every `cycle_s`.
    pub fn new(
        arrival_s: &'a [f64],
        sizes: Option<&'a [i64]>,
        starts: Vec<usize>,
        rate_scale: f64,
        cycles: usize,
        cycle_s: Option<f64>,
    ) -> Result<Self> {
        if arrival_s.is_empty() {
            return Err(Error::invalid("arrival_s", "is empty; at least one query is needed"));
        }
        if starts.first() != Some(&0)
            || starts.windows(2).any(|w| w[0] >= w[1])
            || starts.iter().any(|s| *s >= arrival_s.len())
        {
            let message = format!("must begin with 0, increase and stay below {} queries", arrival_s.len());
            return Err(Error::invalid("starts", message));
        }
        if !(1e-9..=1e9).contains(&rate_scale) {
            return Err(Error::invalid("rate_scale", format!("is {rate_scale}; allowed are 1e-9 to 1e9")));
        }
        if cycles == 0 || cycles.checked_mul(arrival_s.len()).is_none_or(|n| n > 1 << 40) {
            return Err(Error::invalid(
                "cycles",
                format!("is {cycles}; allowed is 1 or more, at most 2^40 queries in all"),
            ));
        }
        let mut part = starts.iter().peekable();
        for (i, time) in arrival_s.iter().enumerate() {
            if !(0.0..=MAX_ARRIVAL_S).contains(time) {
                let message = format!("is {time}; allowed are 0 to {MAX_ARRIVAL_S:e} seconds");
                return Err(Error::invalid(format!("arrival_s[{i}]"), message));
            }
            if part.next_if(|start| **start == i).is_none() && *time < arrival_s[i - 1] {
                let message = format!("is {time} after {}; times must not decrease", arrival_s[i - 1]);
                return Err(Error::invalid(format!("arrival_s[{i}]"), message));
            }
        }
        if let Some(sizes) = sizes {
            if sizes.len() != arrival_s.len() {
                let message = format!("has {} entries for {} arrivals", sizes.len(), arrival_s.len());
                return Err(Error::invalid("sizes", message));
            }
            if let Some(i) = sizes.iter().position(|size| !(1..=i64::from(MAX_ITEMS)).contains(size)) {
                let message = format!("is {}; a query asks for 1 to {MAX_ITEMS} items", sizes[i]);
                return Err(Error::invalid(format!("sizes[{i}]"), message));
            }
        }
        let last = arrival_s.iter().copied().fold(0.0, f64::max);
        let cycle_s = cycle_s.unwrap_or(last);
        if cycles > 1 && !(cycle_s >= last && cycle_s <= MAX_ARRIVAL_S) {
            let message = format!("is {cycle_s}; allowed are the last arrival, {last}, to {MAX_ARRIVAL_S:e} seconds");
            return Err(Error::invalid("cycle_s", message));
        }
        Ok(Self { arrival_s, sizes, starts, rate_scale, cycles, cycle_s })
    }

    fn part(&self, segment: usize) -> std::ops::Range<usize> {
        self.starts[segment]..self.starts.get(segment + 1).copied().unwrap_or(self.arrival_s.len())
    }
}

/// A process with the number of queries that come together and the sizes of queries.
#[derive(Debug, Clone)]
pub struct Source<'a> {
    process: Process<'a>,
    /// Running probabilities of 1, 2, ... queries, and their mean.
    group: Option<(Vec<f64>, f64)>,
    sizes: Sizes,
    seed: u64,
}

impl<'a> Source<'a> {
    /// `group[k]` is the probability that k+1 queries come together; `size_pmf[k]` that a query has k+1 items.
    pub fn new(process: Process<'a>, group: Option<&[f64]>, size_pmf: &[f64], seed: u64) -> Result<Self> {
        let group = match group {
            None => None,
            Some(_) if matches!(process, Process::Trace(_)) => {
                return Err(Error::invalid("group", "is set; the times of a trace say who comes together"));
            }
            Some(pmf) => {
                let sums = checked_pmf("group", pmf)?;
                let mean = (1..).zip(pmf).map(|(k, p)| f64::from(k) * p).sum::<f64>() / pmf.iter().sum::<f64>();
                Some((sums, mean))
            }
        };
        Ok(Self { process, group, sizes: Sizes::new(size_pmf)?, seed })
    }

    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The same sizes with other arrivals, one query at a time.
    pub fn with_process<'b>(&self, process: Process<'b>) -> Source<'b> {
        Source { process, group: None, sizes: self.sizes.clone(), seed: self.seed }
    }

    /// (size, probability) of every size that occurs, ascending: of the law, or of the trace where it has sizes.
    pub fn sizes(&self) -> Vec<(u32, f64)> {
        if let Process::Trace(Trace { sizes: Some(sizes), .. }) = &self.process {
            let mut counts = std::collections::BTreeMap::new();
            for size in *sizes {
                *counts.entry((*size).clamp(1, i64::from(MAX_ITEMS))).or_insert(0_u64) += 1;
            }
            let n = sizes.len() as f64;
            return counts.into_iter().map(|(size, count)| (size as u32, count as f64 / n)).collect();
        }
        self.sizes.known.clone()
    }

    /// Trace: its parts. Other processes have as many segments as one asks for.
    pub fn parts(&self) -> Option<Vec<u64>> {
        let Process::Trace(trace) = &self.process else { return None };
        Some((0..trace.starts.len()).map(|s| (trace.part(s).len() * trace.cycles) as u64).collect())
    }

    /// Mean rate of a trace between the first and the last arrival of each part.
    pub fn trace_qps(&self) -> Option<f64> {
        let Process::Trace(trace) = &self.process else { return None };
        let total = |of: fn(&[f64]) -> f64| {
            let part = |s| if trace.cycles > 1 { trace.cycle_s } else { of(&trace.arrival_s[trace.part(s)]) };
            (0..trace.starts.len()).map(part).sum::<f64>() * trace.cycles as f64 / trace.rate_scale
        };
        // Times may count from long ago. Where all of a part come at once, from when they count at least says something.
        let spans = [total(|part| part[part.len() - 1] - part[0]), total(|part| part[part.len() - 1]), 1.0];
        let seconds = spans.into_iter().find(|span| *span > 0.0).unwrap_or(1.0);
        Some((trace.arrival_s.len() * trace.cycles) as f64 / seconds)
    }

    /// Refuse phases that change so often that a query takes long to draw, and cycles that times cannot resolve.
    pub fn check_cycle(&self, qps: f64) -> Result<()> {
        match &self.process {
            Process::Profile(profile) if profile.cycle_s * qps < LEAST_CYCLE_QUERIES => {
                let cycle_s = profile.cycle_s;
                let message = format!("is {qps}: below {LEAST_CYCLE_QUERIES} queries in a cycle of {cycle_s:e} s");
                Err(Error::invalid("qps", message))
            }
            Process::Modulated(chain) if chain.changes > MAX_CHANGES * qps => {
                let changes = chain.changes / qps;
                let message = format!("changes phase {changes:.3e} times a query; at most {MAX_CHANGES:e} in the mean");
                Err(Error::invalid("switch", message))
            }
            _ => Ok(()),
        }
    }

    /// Length of a cycle of the rate; 0 where there is none.
    pub fn profile_s(&self) -> f64 {
        let Process::Profile(profile) = &self.process else { return 0.0 };
        profile.cycle_s
    }

    /// Mean length of all phases of a random rate together; 0 where there are none.
    pub fn phases_s(&self) -> f64 {
        let Process::Modulated(chain) = &self.process else { return 0.0 };
        chain.leave.iter().map(|rate| 1.0 / rate).sum()
    }

    /// Variance of the number of arrivals over a long time, by its mean: the square of the coefficient of variation of
    /// independent gaps, E X^2 / E X for Poisson groups of X. Gaps count as exponential where they are not independent.
    pub fn scv(&self) -> f64 {
        let gaps = match &self.process {
            Process::Renewal(law) => law.scv(),
            _ => 1.0,
        };
        let Some((sums, mean)) = &self.group else { return gaps };
        // E X^2 is the sum over k of (2k + 1) P(X > k).
        let above = |k: usize| if k == 0 { 1.0 } else { 1.0 - sums[k - 1] };
        let square: f64 = (0..sums.len()).map(|k| (2 * k + 1) as f64 * above(k)).sum();
        gaps * mean + square / mean - mean
    }

    /// The law of independent gaps of single queries: what the vector loops draw by themselves.
    pub fn gaps(&self) -> Option<&Law> {
        match (&self.process, &self.group) {
            (Process::Renewal(law), None) => Some(law),
            _ => None,
        }
    }

    pub fn gap_stream(&self, segment: usize) -> Stream {
        Stream::new(self.seed, Purpose::Arrivals, segment as u64)
    }

    /// The queries of `segment` of `segments`, at `qps` (not looked at for a trace).
    pub fn queries(&self, qps: f64, segment: usize, segments: usize) -> Queries<'_, 'a> {
        let stream = |purpose| Stream::new(self.seed, purpose, segment as u64);
        let qps = qps / self.group.as_ref().map_or(1.0, |(_, mean)| *mean);
        let mut queries = Queries {
            source: self,
            gaps: stream(Purpose::Arrivals),
            renewal: None,
            sizes: stream(Purpose::Sizes),
            phases: stream(Purpose::Phases),
            groups: stream(Purpose::Groups),
            segment,
            scale_s: 1.0 / qps,
            time_s: 0.0,
            event: 0,
            together: 0,
            phase: 0,
            phase_from_s: 0.0,
            phase_end_s: 0.0,
            changes: 0,
        };
        match &self.process {
            Process::Modulated(chain) => {
                queries.phase = pick(&chain.first, queries.phases.uniform(0));
                queries.phase_end_s = queries.phases.exponential(1) / chain.leave[queries.phase];
                queries.changes = 1;
            }
            Process::Profile(profile) => {
                // Segments begin at different points of the cycle, with as many queries from each to the next: all of
                // them together see each part of it in proportion to the queries there, however short they are.
                let mut left = profile.cycle_s * (segment as f64 / segments as f64);
                let queries_of = |(duration, from, to): (f64, f64, f64)| 0.5 * (from + to) * duration;
                while left > 0.0
                    && queries.phase + 1 < profile.pieces.len()
                    && queries_of(profile.pieces[queries.phase]) <= left
                {
                    left -= queries_of(profile.pieces[queries.phase]);
                    queries.phase += 1;
                }
                let (duration, from, to) = profile.pieces[queries.phase];
                let into_s = if left > 0.0 { reached(left, from, (to - from) / duration).min(duration) } else { 0.0 };
                queries.phase_from_s = -into_s;
                queries.phase_end_s = duration - into_s;
            }
            Process::Renewal(_) | Process::Trace(_) => {}
        }
        queries
    }
}

/// When a straight rate has summed up to `sum`: rate x + slope x^2 / 2 = sum, in the form that does not cancel.
fn reached(sum: f64, rate: f64, slope: f64) -> f64 {
    2.0 * sum / (rate + (rate * rate + 2.0 * slope * sum).max(0.0).sqrt())
}

/// The queries of one segment in order.
#[derive(Debug)]
pub struct Queries<'s, 'a> {
    source: &'s Source<'a>,
    gaps: Stream,
    renewal: Option<Draws<'s>>,
    sizes: Stream,
    phases: Stream,
    groups: Stream,
    segment: usize,
    scale_s: f64,
    /// The latest arrival.
    time_s: f64,
    /// Arrivals of groups so far, and queries of the latest that are still to come.
    event: u64,
    together: u64,
    phase: usize,
    phase_from_s: f64,
    phase_end_s: f64,
    changes: u64,
}

impl Queries<'_, '_> {
    /// Size of query `index`.
    #[inline]
    pub fn size(&self, index: u64) -> u32 {
        if let Process::Trace(trace) = &self.source.process
            && let Some(sizes) = trace.sizes
        {
            let part = trace.part(self.segment);
            // The caller's array may change under our eyes: never an item count that tables do not have.
            return sizes[part.start + (index % part.len() as u64) as usize].clamp(1, i64::from(MAX_ITEMS)) as u32;
        }
        self.source.sizes.draw(self.sizes.uniform(index))
    }

    /// Arrival time of the next query.
    #[inline]
    pub fn next_time(&mut self) -> f64 {
        if self.together > 0 {
            self.together -= 1;
            return self.time_s;
        }
        if let Some((sums, _)) = &self.source.group {
            self.together = pick(sums, self.groups.uniform(self.event)) as u64;
        }
        let event = self.event;
        self.event += 1;
        match &self.source.process {
            Process::Renewal(law) => {
                let (gaps, stream) = (&mut self.renewal, self.gaps);
                let gap = gaps.get_or_insert_with(|| Draws::new(law, stream)).get(event);
                self.time_s += gap * self.scale_s;
            }
            Process::Modulated(chain) => self.modulated(chain, self.gaps.exponential(event)),
            Process::Profile(profile) => self.profile(profile, self.gaps.exponential(event)),
            Process::Trace(trace) => {
                let part = trace.part(self.segment);
                let (cycle, at) = (event / part.len() as u64, (event % part.len() as u64) as usize);
                self.time_s = (trace.arrival_s[part.start + at] + cycle as f64 * trace.cycle_s) / trace.rate_scale;
            }
        }
        self.time_s
    }

    /// Move to where the rate, summed over time, has grown by `left` mean gaps.
    fn modulated(&mut self, chain: &Modulated, mut left: f64) {
        loop {
            let rate = chain.rates[self.phase] / self.scale_s;
            let until_end = rate * (self.phase_end_s - self.time_s);
            if until_end >= left {
                self.time_s += left / rate;
                return;
            }
            left -= until_end;
            self.time_s = self.phase_end_s;
            self.phase = pick(&chain.next[self.phase], self.phases.uniform(2 * self.changes));
            self.phase_end_s += self.phases.exponential(2 * self.changes + 1) / chain.leave[self.phase];
            self.changes += 1;
        }
    }

    fn profile(&mut self, profile: &Profile, mut left: f64) {
        let cycle = profile.cycle_s / self.scale_s;
        if left > cycle {
            // Whole cycles at once; what is left must stay above 0.
            let whole = (left / cycle).ceil() - 1.0;
            left = (left - whole * cycle).max(f64::MIN_POSITIVE);
            self.time_s += whole * profile.cycle_s;
            self.phase_from_s += whole * profile.cycle_s;
            self.phase_end_s += whole * profile.cycle_s;
        }
        loop {
            let (duration, from, to) = profile.pieces[self.phase];
            let slope = (to - from) / duration / self.scale_s;
            let rate = from / self.scale_s + slope * (self.time_s - self.phase_from_s);
            let rest_s = self.phase_end_s - self.time_s;
            let until_end = (rate + 0.5 * slope * rest_s) * rest_s;
            if until_end >= left && left > 0.0 {
                self.time_s = (self.time_s + reached(left, rate, slope)).min(self.phase_end_s);
                return;
            }
            left -= until_end;
            self.time_s = self.phase_end_s;
            self.phase = (self.phase + 1) % profile.pieces.len();
            self.phase_from_s = self.phase_end_s;
            self.phase_end_s += profile.pieces[self.phase].0;
        }
    }
}

/// A law of whole numbers from 1, with a table that leads straight to the neighbourhood of a draw.
#[derive(Debug, Clone)]
pub struct Sizes {
    cumulative: Vec<f64>,
    /// For each of equally wide parts of (0, 1), the first entry that a draw there can give.
    guide: Vec<u32>,
    known: Vec<(u32, f64)>,
}

impl Sizes {
    fn new(pmf: &[f64]) -> Result<Self> {
        let cumulative = checked_pmf("size_pmf", pmf)?;
        let total: f64 = pmf.iter().sum();
        let parts = (8 * cumulative.len()).next_power_of_two().min(1 << 18);
        let guide = (0..parts).map(|i| pick(&cumulative, i as f64 / parts as f64) as u32).collect();
        let known = (1..).zip(pmf).filter(|(_, p)| **p > 0.0).map(|(size, p)| (size, p / total)).collect();
        Ok(Self { cumulative, guide, known })
    }

    /// The same as a search over all running sums.
    #[inline]
    fn draw(&self, u: f64) -> u32 {
        let mut at = self.guide[(u * self.guide.len() as f64) as usize] as usize;
        while self.cumulative[at] <= u {
            at += 1;
        }
        at as u32 + 1
    }
}

/// Running sums of probabilities that must sum to 1 within 1e-6.
fn checked_pmf(field: &str, pmf: &[f64]) -> Result<Vec<f64>> {
    if pmf.is_empty() || pmf.len() > MAX_ITEMS as usize {
        return Err(Error::invalid(field, format!("has {} entries; allowed are 1 to {MAX_ITEMS}", pmf.len())));
    }
    if let Some(i) = pmf.iter().position(|p| !p.is_finite() || *p < 0.0) {
        return Err(Error::invalid(format!("{field}[{i}]"), format!("is {}; must be finite and from 0", pmf[i])));
    }
    let total: f64 = pmf.iter().sum();
    if (total - 1.0).abs() > 1e-6 {
        return Err(Error::invalid(field, format!("sums to {total}, must be 1")));
    }
    Ok(cumulative(pmf))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn source(process: Process<'static>, group: Option<&[f64]>) -> Source<'static> {
        Source::new(process, group, &[1.0], 7).unwrap()
    }

    proptest! {
        #[test]
        fn stationary_shares_balance(k in 2_usize..7, seed: u64) {
            let stream = Stream::new(seed, Purpose::Search, 0);
            // Rates over six orders of magnitude, a third of them 0, but a cycle through all phases.
            let rate = |i: usize, j: usize| {
                let at = (i * k + j) as u64;
                let is_there = j == (i + 1) % k || stream.uniform(2 * at) > 0.33;
                if i != j && is_there { 10.0_f64.powf(6.0 * stream.uniform(2 * at + 1) - 3.0) } else { 0.0 }
            };
            let switch: Vec<Vec<f64>> = (0..k).map(|i| (0..k).map(|j| rate(i, j)).collect()).collect();
            let leave: Vec<f64> = switch.iter().map(|row| row.iter().sum()).collect();
            let share = stationary(&switch, &leave).unwrap();
            prop_assert!((share.iter().sum::<f64>() - 1.0).abs() < 1e-12);
            for j in 0..k {
                let inflow: f64 = (0..k).map(|i| share[i] * switch[i][j]).sum();
                prop_assert!((inflow / (share[j] * leave[j]) - 1.0).abs() < 1e-9, "phase {}", j);
            }
        }

        #[test]
        fn the_guide_leads_to_what_a_search_finds(weights in prop::collection::vec(0_u32..4, 1..300), seed: u64) {
            prop_assume!(weights.iter().any(|w| *w > 0));
            let total = f64::from(weights.iter().sum::<u32>());
            let pmf: Vec<f64> = weights.iter().map(|w| f64::from(*w) / total).collect();
            let sizes = Sizes::new(&pmf).unwrap();
            let stream = Stream::new(seed, Purpose::Sizes, 0);
            let edges = sizes.cumulative.iter().flat_map(|c| [c.next_down(), *c, c.next_up()]);
            let cells = (0..sizes.guide.len()).map(|i| i as f64 / sizes.guide.len() as f64);
            let inside = (0..200).map(|i| stream.uniform(i));
            for u in edges.chain(cells).chain(inside).filter(|u| *u >= 0.0 && *u < 1.0) {
                let size = sizes.draw(u);
                prop_assert_eq!(size as usize, pick(&sizes.cumulative, u) + 1, "u {}", u);
                prop_assert!(weights[size as usize - 1] > 0);
            }
        }

        /// The rate, summed from one arrival to the next, is the exponential number that was drawn.
        #[test]
        fn arrivals_invert_the_summed_rate(
            pieces in prop::collection::vec((0.1..20.0_f64, 0.0..3.0_f64, 0.0..3.0_f64, any::<[bool; 2]>()), 1..6),
            qps in 0.05..20.0_f64, segment in 0_usize..3,
        ) {
            // Half of the rates are 0: pieces that rise from, fall to or stay at nothing.
            let rate = |is_there: bool, rate: f64| if is_there { rate } else { 0.0 };
            let from: Vec<f64> = pieces.iter().map(|piece| rate(piece.3[0], piece.1)).collect();
            let to: Vec<f64> = pieces.iter().map(|piece| rate(piece.3[1], piece.2)).collect();
            prop_assume!(from.iter().chain(&to).any(|rate| *rate > 0.1));
            let durations: Vec<f64> = pieces.iter().map(|piece| piece.0).collect();
            let cycle_s: f64 = durations.iter().sum();
            let area = |d: f64, a: f64, b: f64| d * 0.5 * (a + b);
            let mean = (0..durations.len()).map(|i| area(durations[i], from[i], to[i])).sum::<f64>() / cycle_s;
            // Expected queries from time 0 of the cycle to `t`.
            let summed = |t: f64| {
                let whole = (t / cycle_s).floor();
                let (mut left, mut sum) = (t - whole * cycle_s, 0.0);
                for i in 0..durations.len() {
                    let x = left.clamp(0.0, durations[i]);
                    let there = from[i] + (to[i] - from[i]) * x / durations[i];
                    sum += area(x, from[i], there);
                    left -= durations[i];
                }
                (whole * cycle_s + sum / mean) * qps
            };
            let profile = Profile::new(&durations, &from, &to).unwrap();
            let source = source(Process::Profile(profile), None);
            let mut queries = source.queries(qps, segment, 3);
            // Where the share segment / 3 of a cycle's queries has come.
            let (mut low, mut high) = (0.0, cycle_s);
            while high - low > 1e-15 * cycle_s {
                let middle = 0.5 * (low + high);
                if middle <= low || middle >= high {
                    break;
                }
                *(if summed(middle) * 3.0 < segment as f64 * cycle_s * qps { &mut low } else { &mut high }) = middle;
            }
            let begin_s = if segment == 0 { 0.0 } else { high };
            let mut before = summed(begin_s);
            for event in 0..300 {
                let now = summed(begin_s + queries.next_time());
                let drawn = source.gap_stream(segment).exponential(event);
                prop_assert!((now - before - drawn).abs() < 1e-9 * now.max(1.0), "{} for {}", now - before, drawn);
                before = now;
            }
        }
    }

    #[test]
    fn a_day_is_a_sine() {
        let (amplitude, period_s, qps) = (0.75, 86_400.0, 0.5);
        let source = source(Process::Profile(Profile::sinusoid(amplitude, period_s).unwrap()), None);
        let mut queries = source.queries(qps, 0, 1);
        let (mut time, mut drawn) = (0.0, 0.0);
        let turn = std::f64::consts::TAU / period_s;
        for event in 0..200_000 {
            time = queries.next_time();
            drawn += source.gap_stream(0).exponential(event);
            let expected = qps * (time + amplitude * (1.0 - (turn * time).cos()) / turn);
            assert!((expected - drawn).abs() < 1e-5 * qps * period_s, "{expected} for {drawn}");
        }
        assert!(time > 4.0 * period_s);
    }

    #[test]
    fn a_modulated_process_keeps_its_mean_rate_and_is_bursty() {
        let switch = vec![vec![0.0, 0.3, 0.0], vec![0.0, 0.0, 0.2], vec![0.5, 0.1, 0.0]];
        let process = Process::Modulated(Modulated::new(&[4.0, 0.0, 1.0], &switch).unwrap());
        let source = source(process, None);
        let mut queries = source.queries(5.0, 0, 1);
        let n = 1_000_000;
        let (mut last, mut square) = (0.0, 0.0);
        for _ in 0..n {
            let time = queries.next_time();
            assert!(time > last);
            square += (time - last) * (time - last);
            last = time;
        }
        let (n, rate) = (f64::from(n), f64::from(n) / last);
        assert!((rate / 5.0 - 1.0).abs() < 0.01, "{rate}");
        assert!(square / n * rate * rate > 4.0, "gaps vary more than those of Poisson arrivals (2)");
    }

    #[test]
    fn the_first_phase_is_a_stationary_one() {
        let switch = vec![vec![0.0, 0.01], vec![0.03, 0.0]];
        let source = source(Process::Modulated(Modulated::new(&[1.0, 3.0], &switch).unwrap()), None);
        let n = 20_000;
        let fast = (0..n).filter(|segment| source.queries(1.0, *segment, n).phase == 1).count() as f64 / n as f64;
        assert!((fast - 0.25).abs() < 5.0 * (0.25 * 0.75 / n as f64).sqrt(), "{fast}");
    }

    #[test]
    fn groups_come_together_and_the_rate_counts_queries() {
        let source = source(Process::Renewal(Law::Exponential), Some(&[0.5, 0.0, 0.5]));
        let mut queries = source.queries(8.0, 0, 1);
        let times: Vec<f64> = (0..400_000).map(|_| queries.next_time()).collect();
        let sizes: Vec<usize> = times.chunk_by(|a, b| a == b).map(<[f64]>::len).collect();
        assert!(sizes.iter().rev().skip(1).all(|size| [1, 3].contains(size)));
        let rate = times.len() as f64 / times[times.len() - 1];
        assert!((rate / 8.0 - 1.0).abs() < 0.02, "{rate}");
    }

    #[test]
    fn faults_name_the_field() {
        let switch = |rows: [[f64; 2]; 2]| rows.map(|row| row.to_vec()).to_vec();
        let of = |error: Error| error.to_string();
        assert!(of(Modulated::new(&[1.0, 1.0], &switch([[0.0, 1.0], [0.0, 0.0]])).unwrap_err()).starts_with("switch"));
        assert!(of(Modulated::new(&[0.0, 0.0], &switch([[0.0, 1.0], [1.0, 0.0]])).unwrap_err()).starts_with("rates"));
        assert!(of(Modulated::new(&[1.0, -1.0], &switch([[0.0; 2]; 2])).unwrap_err()).starts_with("rates[1]"));
        assert!(of(Profile::new(&[1.0, 0.0], &[1.0; 2], &[1.0; 2]).unwrap_err()).starts_with("durations_s[1]"));
        assert!(of(Profile::new(&[1.0], &[0.0], &[0.0]).unwrap_err()).starts_with("from"));
        let trace =
            |times: &[f64], starts: &[usize]| Trace::new(times, None, starts.to_vec(), 1.0, 1, None).map(|_| ());
        assert!(of(trace(&[0.0, 2.0, 1.0], &[0]).unwrap_err()).starts_with("arrival_s[2]"));
        assert!(of(trace(&[0.0, f64::NAN], &[0]).unwrap_err()).starts_with("arrival_s[1]"));
        assert!(of(trace(&[0.0, 1.0], &[1]).unwrap_err()).starts_with("starts"));
        assert!(trace(&[0.0, 2.0, 1.0], &[0, 2]).is_ok());
    }
}

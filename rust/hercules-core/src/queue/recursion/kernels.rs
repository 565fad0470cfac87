//! The loops that run in vector registers: eight segments side by side, one to a lane.
//!
//! Everything here is `inline(always)` and free of fused multiply-adds, so that each tier compiles it with its own
//! instructions and all give the same bits.

use crate::queue::law::{NORMAL_TAIL, lognormal, normal_middle, normal_tail};
use crate::queue::record::{GROUP, bucket};
use crate::rng::Stream;

/// Segments side by side.
pub const LANES: usize = 8;
/// One number of each segment.
pub type Row = [f64; LANES];

/// Eight numbers in vector registers.
///
/// # Safety
/// Methods may be called only on a CPU that has the tier's instructions.
pub(super) trait Lanes: Copy {
    unsafe fn load(from: &Row) -> Self;
    unsafe fn store(self, to: &mut Row);
    unsafe fn add(self, other: Self) -> Self;
    unsafe fn sub(self, other: Self) -> Self;
    /// `other` unless `self` is larger.
    unsafe fn max(self, other: Self) -> Self;
    /// `other` unless `self` is smaller.
    unsafe fn min(self, other: Self) -> Self;
}

/// The loops of one tier.
///
/// # Safety
/// They may be called only on a CPU that has the tier's instructions.
#[derive(Clone, Copy)]
#[allow(clippy::type_complexity)] // a name for each signature would only hide it
pub struct Kernels {
    /// Draws of each stream at each index times a scale: uniform, exponential, lognormal of a sigma.
    pub uniform: unsafe fn(f64, &[Stream], &[u64], &mut [f64]),
    pub exponential: unsafe fn(f64, &[Stream], &[u64], &mut [f64]),
    pub lognormal: unsafe fn(f64, f64, &[Stream], &[u64], &mut [f64]),
    /// Unit gaps become the gaps between arrival times: see [`clock`].
    pub clock: unsafe fn(&mut Row, f64, &mut [Row]),
    /// See [`pool`].
    pub pool: unsafe fn(&mut [Row], &[Row], &[Row], &mut [Row]),
    /// See [`pool_of_parts`].
    pub pool_of_parts: unsafe fn(&mut [Row], &mut Row, &[Row], &[Row], &[Row], &mut [Row], &mut [Row]),
    /// See [`Account::add`].
    pub account: unsafe fn(&mut Account, &[Row], &[Row], &[Row]),
    /// See [`tally`].
    pub tally: unsafe fn(&[Row], &mut [Row], &mut [[u32; LANES]]) -> (u32, u32),
}

#[inline(always)]
pub(super) fn draw(scale: f64, streams: &[Stream], indices: &[u64], out: &mut [f64], law: impl Fn(Stream, u64) -> f64) {
    for ((stream, index), x) in streams.iter().zip(indices).zip(out) {
        *x = law(*stream, *index) * scale;
    }
}

#[inline(always)]
pub(super) fn draw_lognormal(sigma: f64, scale: f64, streams: &[Stream], indices: &[u64], out: &mut [f64]) {
    draw(1.0, streams, indices, out, Stream::uniform);
    let mut u = [0.5; 64];
    for block in out.chunks_mut(u.len()) {
        u[..block.len()].copy_from_slice(block);
        for (x, u) in block.iter_mut().zip(&u) {
            *x = lognormal(sigma, normal_middle(*u)) * scale;
        }
        // One in twenty: not worth a vector.
        for (x, u) in block.iter_mut().zip(&u) {
            if u.min(1.0 - u) < NORMAL_TAIL {
                *x = lognormal(sigma, normal_tail(*u)) * scale;
            }
        }
    }
}

/// Advance the time of each lane by unit gaps times `scale_s`. A gap is what lies between two arrival times as they are
/// written down, so that a recorded run repeats itself.
#[inline(always)]
pub(super) fn clock(time: &mut Row, scale_s: f64, gaps: &mut [Row]) {
    let mut now = *time;
    for gap in gaps {
        for lane in 0..LANES {
            let next = now[lane] + gap[lane] * scale_s;
            gap[lane] = next - now[lane];
            now[lane] = next;
        }
    }
    *time = now;
}

/// When each thread of a pool is free, ascending, relative to the latest arrival.
///
/// The earliest goes and the new end is put in its place without a branch: new[j] = max(old[j], min(end, old[j+1])).
trait Threads<V: Lanes> {
    /// A job that comes `gap` after the last one and takes `service`: from its arrival to its end.
    ///
    /// # Safety
    /// As [`Lanes`].
    unsafe fn serve(&mut self, gap: V, service: V) -> V;
}

/// A few threads, in registers.
struct Few<V, const M: usize>([V; M]);

impl<V: Lanes, const M: usize> Threads<V> for Few<V, M> {
    #[inline(always)]
    unsafe fn serve(&mut self, gap: V, service: V) -> V {
        // SAFETY: as this function's.
        unsafe {
            let free = &mut self.0;
            for time in free.iter_mut() {
                *time = time.sub(gap);
            }
            let end = free[0].max(V::load(&[0.0; LANES])).add(service);
            for j in 0..M - 1 {
                free[j] = free[j].max(end.min(free[j + 1]));
            }
            free[M - 1] = free[M - 1].max(end);
            end
        }
    }
}

/// Any number of threads, in memory.
struct Many<'a>(&'a mut [Row]);

impl<V: Lanes> Threads<V> for Many<'_> {
    #[inline(always)]
    unsafe fn serve(&mut self, gap: V, service: V) -> V {
        // SAFETY: as this function's.
        unsafe {
            let mut this = V::load(&self.0[0]).sub(gap);
            let end = this.max(V::load(&[0.0; LANES])).add(service);
            for j in 1..self.0.len() {
                let next = V::load(&self.0[j]).sub(gap);
                this.max(end.min(next)).store(&mut self.0[j - 1]);
                this = next;
            }
            let last = self.0.len() - 1;
            this.max(end).store(&mut self.0[last]);
            end
        }
    }
}

/// Run `$body` with `$threads` bound to the state of `$free`: up to sixteen threads stay in registers.
macro_rules! on_threads {
    ($free:ident, $lanes:ty, $threads:ident => $body:expr; $($few:literal)+) => {
        match $free.len() {
            $($few => {
                let mut few = Few::<$lanes, $few>(std::array::from_fn(|j| <$lanes>::load(&$free[j])));
                let $threads = &mut few;
                $body;
                for (to, from) in $free.iter_mut().zip(few.0) {
                    from.store(to);
                }
            })+
            _ => {
                let $threads = &mut Many($free);
                $body;
            }
        }
    };
}

/// FCFS pool by the recursion of Kiefer and Wolfowitz: `sojourns` become arrival to end of service of each job. `free`
/// holds plus infinity for threads that do not exist and minus infinity for those never used.
///
/// All times are relative to an arrival, so they lose nothing however long the run is, and one thread is Lindley's
/// recursion.
///
/// # Safety
/// As [`Lanes`].
#[inline(always)]
pub(super) unsafe fn pool<V: Lanes>(free: &mut [Row], gaps: &[Row], services: &[Row], sojourns: &mut [Row]) {
    // SAFETY: as this function's.
    unsafe {
        on_threads!(free, V, threads => for ((gap, service), sojourn) in gaps.iter().zip(services).zip(sojourns) {
            threads.serve(V::load(gap), V::load(service)).store(sojourn);
        }; 1 2 4 8 16);
    }
}

/// [`pool`] for queries in parts; `sojourns` are those of parts. `before` is 0 where a part follows another of its query, minus infinity where it is the
/// first; `latest`, carried from call to call, and `ends` are the latest end so far of the query at hand.
///
/// # Safety
/// As [`Lanes`].
#[inline(always)]
pub(super) unsafe fn pool_of_parts<V: Lanes>(
    free: &mut [Row],
    latest: &mut Row,
    gaps: &[Row],
    services: &[Row],
    before: &[Row],
    sojourns: &mut [Row],
    ends: &mut [Row],
) {
    // SAFETY: as this function's.
    unsafe {
        let mut last = V::load(latest);
        on_threads!(free, V, threads => for ((((gap, service), before), sojourn), end) in
            gaps.iter().zip(services).zip(before).zip(sojourns).zip(ends)
        {
            let from_arrival = threads.serve(V::load(gap), V::load(service));
            from_arrival.store(sojourn);
            last = last.add(V::load(before)).max(from_arrival);
            last.store(end);
        }; 1 2 4 8 16);
        last.store(latest);
    }
}

/// Account of the jobs of a station in each lane.
#[derive(Debug, Clone, Copy)]
#[allow(clippy::struct_field_names)] // all of them are seconds
pub struct Account {
    /// Arrival of the latest job at the station, and the latest end of service.
    pub clock_s: Row,
    pub end_s: Row,
    /// Sums of times in service and at the station.
    pub busy_s: Row,
    pub sojourn_s: Row,
}

impl Account {
    pub const NONE: Self =
        Self { clock_s: [0.0; LANES], end_s: [0.0; LANES], busy_s: [0.0; LANES], sojourn_s: [0.0; LANES] };

    #[inline(always)]
    pub fn add(&mut self, gaps: &[Row], services: &[Row], sojourns: &[Row]) {
        let mut sum = *self;
        for ((gap, service), sojourn) in gaps.iter().zip(services).zip(sojourns) {
            for lane in 0..LANES {
                sum.add_one(lane, gap[lane], service[lane], sojourn[lane]);
            }
        }
        *self = sum;
    }

    #[inline(always)]
    pub fn add_one(&mut self, lane: usize, gap: f64, service: f64, sojourn: f64) {
        self.clock_s[lane] += gap;
        let end = self.clock_s[lane] + sojourn;
        self.end_s[lane] = if end > self.end_s[lane] { end } else { self.end_s[lane] };
        self.busy_s[lane] += service;
        self.sojourn_s[lane] += sojourn;
    }
}

/// Sums of each [`GROUP`] rows and the bucket of each number; gives the least and the greatest bucket.
#[inline(always)]
pub(super) fn tally(rows: &[Row], sums: &mut [Row], buckets: &mut [[u32; LANES]]) -> (u32, u32) {
    let (mut low, mut high) = ([u32::MAX; LANES], [0; LANES]);
    for ((rows, buckets), sum) in rows.chunks_exact(GROUP).zip(buckets.chunks_exact_mut(GROUP)).zip(sums) {
        *sum = [0.0; LANES];
        for (row, buckets) in rows.iter().zip(buckets) {
            for lane in 0..LANES {
                sum[lane] += row[lane];
                let at = bucket(row[lane]);
                buckets[lane] = at;
                low[lane] = low[lane].min(at);
                high[lane] = high[lane].max(at);
            }
        }
    }
    (low.into_iter().min().unwrap_or(0), high.into_iter().max().unwrap_or(0))
}

/// Instantiate the loops of a tier with its [`Lanes`] and its instructions.
macro_rules! define_kernels {
    ($lanes:ty $(, $features:literal)?) => {
        use super::kernels::{self, Account, Kernels, LANES, Row};
        use crate::rng::Stream;

        $(#[target_feature(enable = $features)])?
        fn uniform(scale: f64, streams: &[Stream], indices: &[u64], out: &mut [f64]) {
            kernels::draw(scale, streams, indices, out, Stream::uniform);
        }
        $(#[target_feature(enable = $features)])?
        fn exponential(scale: f64, streams: &[Stream], indices: &[u64], out: &mut [f64]) {
            kernels::draw(scale, streams, indices, out, Stream::exponential);
        }
        $(#[target_feature(enable = $features)])?
        fn lognormal(sigma: f64, scale: f64, streams: &[Stream], indices: &[u64], out: &mut [f64]) {
            kernels::draw_lognormal(sigma, scale, streams, indices, out);
        }
        $(#[target_feature(enable = $features)])?
        fn clock(time: &mut Row, scale_s: f64, gaps: &mut [Row]) {
            kernels::clock(time, scale_s, gaps);
        }
        $(#[target_feature(enable = $features)])?
        fn pool(free: &mut [Row], gaps: &[Row], services: &[Row], sojourns: &mut [Row]) {
            // SAFETY: this function has the tier's instructions.
            unsafe { kernels::pool::<$lanes>(free, gaps, services, sojourns) }
        }
        $(#[target_feature(enable = $features)])?
        fn pool_of_parts(
            free: &mut [Row],
            latest: &mut Row,
            gaps: &[Row],
            services: &[Row],
            before: &[Row],
            sojourns: &mut [Row],
            ends: &mut [Row],
        ) {
            // SAFETY: this function has the tier's instructions.
            unsafe { kernels::pool_of_parts::<$lanes>(free, latest, gaps, services, before, sojourns, ends) }
        }
        $(#[target_feature(enable = $features)])?
        fn account(account: &mut Account, gaps: &[Row], services: &[Row], sojourns: &[Row]) {
            account.add(gaps, services, sojourns);
        }
        $(#[target_feature(enable = $features)])?
        fn tally(rows: &[Row], sums: &mut [Row], buckets: &mut [[u32; LANES]]) -> (u32, u32) {
            kernels::tally(rows, sums, buckets)
        }

        pub(super) const KERNELS: Kernels =
            Kernels { uniform, exponential, lognormal, clock, pool, pool_of_parts, account, tally };
    };
}
pub(super) use define_kernels;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::Isa;
    use crate::queue::law::Law;
    use crate::rng::Purpose;

    const ROWS: usize = 1000;

    /// The tiers that this CPU has.
    fn tiers() -> Vec<(&'static str, Kernels)> {
        let mut tiers = vec![("portable", super::super::portable::KERNELS)];
        #[cfg(target_arch = "x86_64")]
        {
            if Isa::detected() >= Isa::Avx2 {
                tiers.push(("avx2", super::super::avx2::KERNELS));
            }
            if Isa::detected() >= Isa::Avx512 {
                tiers.push(("avx512", super::super::avx512::KERNELS));
            }
        }
        tiers
    }

    fn rows(purpose: Purpose, scale: f64) -> Vec<Row> {
        let stream = |lane| Stream::new(4, purpose, lane as u64);
        (0..ROWS).map(|i| std::array::from_fn(|lane| stream(lane).exponential(i as u64) * scale)).collect()
    }

    fn unused(threads: usize, padding: usize) -> Vec<Row> {
        let mut free = vec![[f64::NEG_INFINITY; LANES]; threads];
        free.resize(threads + padding, [f64::INFINITY; LANES]);
        free
    }

    /// A pool by its definition, in one lane: the free times are sorted anew for each job.
    fn by_sorting(threads: usize, lane: usize, gaps: &[Row], services: &[Row]) -> Vec<f64> {
        let mut free = vec![f64::NEG_INFINITY; threads];
        let serve = |(gap, service): (&Row, &Row)| {
            for time in &mut free {
                *time -= gap[lane];
            }
            free.sort_by(f64::total_cmp);
            free[0] = f64::max(0.0, free[0]) + service[lane];
            free[0]
        };
        gaps.iter().zip(services).map(serve).collect()
    }

    #[test]
    fn pools_of_every_tier_and_size_are_those_of_the_definition() {
        let services = rows(Purpose::Service, 1.0);
        for threads in (1..=20_usize).chain([33, 64]) {
            let gaps = rows(Purpose::Arrivals, 1.1 / threads as f64);
            for (name, tier) in tiers() {
                // Without padding most counts run in memory; with it, up to sixteen run in registers.
                for padding in [0, threads.next_power_of_two() - threads, 3] {
                    let mut free = unused(threads, padding);
                    let mut sojourns = vec![[0.0; LANES]; ROWS];
                    for part in [0..1, 1..333, 333..ROWS] {
                        // SAFETY: this CPU has the tier.
                        unsafe {
                            (tier.pool)(&mut free, &gaps[part.clone()], &services[part.clone()], &mut sojourns[part]);
                        }
                    }
                    for lane in 0..LANES {
                        let found: Vec<f64> = sojourns.iter().map(|row| row[lane]).collect();
                        let expected = by_sorting(threads, lane, &gaps, &services);
                        assert_eq!(found, expected, "{name}, {threads} threads and {padding}");
                    }
                }
            }
        }
    }

    #[test]
    fn parts_of_a_query_end_with_the_last_of_them() {
        // Every lane has queries of its own numbers of parts.
        let is_first = |row: usize, lane: usize| row.is_multiple_of(lane + 1);
        let (mut gaps, services) = (rows(Purpose::Arrivals, 0.8), rows(Purpose::Service, 1.0));
        let mut before = vec![[0.0; LANES]; ROWS];
        for row in 0..ROWS {
            for lane in 0..LANES {
                if is_first(row, lane) {
                    before[row][lane] = f64::NEG_INFINITY;
                } else {
                    gaps[row][lane] = 0.0;
                }
            }
        }
        for threads in [1, 2, 3, 8, 17] {
            for (name, tier) in tiers() {
                let mut free = unused(threads, 0);
                let mut latest = [f64::NEG_INFINITY; LANES];
                let (mut sojourns, mut ends) = (vec![[0.0; LANES]; ROWS], vec![[0.0; LANES]; ROWS]);
                for part in [0..7, 7..ROWS] {
                    let (gaps, services, before) =
                        (&gaps[part.clone()], &services[part.clone()], &before[part.clone()]);
                    let (sojourns, ends) = (&mut sojourns[part.clone()], &mut ends[part]);
                    // SAFETY: this CPU has the tier.
                    unsafe { (tier.pool_of_parts)(&mut free, &mut latest, gaps, services, before, sojourns, ends) };
                }
                for lane in 0..LANES {
                    let expected = by_sorting(threads, lane, &gaps, &services);
                    let mut last = 0.0;
                    for row in 0..ROWS {
                        assert_eq!(sojourns[row][lane], expected[row], "{name}, {threads} threads");
                        last = if is_first(row, lane) { expected[row] } else { expected[row].max(last) };
                        assert_eq!(ends[row][lane], last, "{name}, {threads} threads");
                    }
                }
            }
        }
    }

    #[test]
    fn draws_of_every_tier_are_those_of_the_law() {
        let streams: Vec<Stream> = (0..ROWS).map(|i| Stream::new(6, Purpose::Service, i as u64 % 8)).collect();
        let indices: Vec<u64> = (0..ROWS as u64).map(|i| i / 8 + ((i % 5) << 44)).collect();
        let laws: [(&str, &[f64]); 9] = [
            ("deterministic", &[]),
            ("exponential", &[]),
            ("lognormal", &[0.8]),
            ("uniform", &[0.5, 2.0]),
            ("gamma", &[0.6]),
            ("erlang", &[3.0]),
            ("hyperexponential", &[0.9, 0.1, 2.0, 0.2]),
            ("empirical", &[1.0, 4.0, 0.75, 0.25]),
            ("replay", &[1.0, 3.0, 2.0]),
        ];
        for (name, params) in laws {
            let law = Law::parse("law", name, params).unwrap();
            let expected: Vec<u64> =
                streams.iter().zip(&indices).map(|(stream, i)| (law.draw(*stream, *i) * 0.3).to_bits()).collect();
            for (tier, kernels) in tiers() {
                for len in [ROWS, 1, 63, 65] {
                    let mut found = vec![0.0; len];
                    kernels.fill(&law, 0.3, &streams[..len], &indices[..len], &mut found);
                    let found: Vec<u64> = found.into_iter().map(f64::to_bits).collect();
                    assert_eq!(found, expected[..len], "{name} by {tier}");
                }
            }
        }
    }

    #[test]
    fn clocks_accounts_and_tallies_are_the_same_in_every_tier() {
        let (gaps, services) = (rows(Purpose::Arrivals, 1.0), rows(Purpose::Service, 2.0));
        for (name, tier) in tiers() {
            let (mut time, mut between) = ([0.0; LANES], gaps.clone());
            let mut account = Account::NONE;
            let rows = &services[..ROWS / GROUP * GROUP];
            let (mut sums, mut buckets) = (vec![[0.0; LANES]; rows.len() / GROUP], vec![[0; LANES]; rows.len()]);
            // SAFETY: this CPU has the tier.
            let (low, high) = unsafe {
                (tier.clock)(&mut time, 0.7, &mut between);
                (tier.account)(&mut account, &gaps, &gaps, &services);
                (tier.tally)(rows, &mut sums, &mut buckets)
            };
            for lane in 0..LANES {
                let (mut now, mut at, mut end) = (0.0, 0.0, 0.0_f64);
                for row in 0..ROWS {
                    let next = now + gaps[row][lane] * 0.7;
                    assert_eq!(between[row][lane], next - now, "{name}");
                    now = next;
                    at += gaps[row][lane];
                    end = end.max(at + services[row][lane]);
                }
                assert_eq!((time[lane], account.clock_s[lane], account.end_s[lane]), (now, at, end), "{name}");
                let sum = |of: &[Row]| of.iter().fold(0.0, |sum, row| sum + row[lane]);
                assert_eq!((account.busy_s[lane], account.sojourn_s[lane]), (sum(&gaps), sum(&services)), "{name}");
                assert!(rows.chunks(GROUP).zip(&sums).all(|(group, found)| found[lane] == sum(group)), "{name}");
                assert!(rows.iter().zip(&buckets).all(|(row, found)| found[lane] == bucket(row[lane])), "{name}");
            }
            let all = || rows.as_flattened().iter().map(|x| bucket(*x));
            assert_eq!((Some(low), Some(high)), (all().min(), all().max()), "{name}");
        }
    }
}

//! The loops that run in vector registers: eight segments side by side, one to a lane.
//!
//! Everything here is `inline(always)` and free of fused multiply-adds, so that each tier compiles it with its own
//! instructions and all give the same bits.

use crate::queue::engine::service_index;
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
    type Mask: Copy;
    unsafe fn load(from: &Row) -> Self;
    unsafe fn store(self, to: &mut Row);
    unsafe fn add(self, other: Self) -> Self;
    unsafe fn sub(self, other: Self) -> Self;
    /// `other` unless `self` is larger.
    unsafe fn max(self, other: Self) -> Self;
    /// `other` unless `self` is smaller.
    unsafe fn min(self, other: Self) -> Self;
    /// Where `self` is at most `other`.
    unsafe fn at_most(self, other: Self) -> Self::Mask;
    /// Where `self` is below `other`, or the same and `number` below that of the other.
    unsafe fn precedes(self, number: Self, other: Self, other_number: Self) -> Self::Mask;
    /// `self` where the mask is set, else `other`.
    unsafe fn where_set(self, mask: Self::Mask, other: Self) -> Self;
}

/// The loops of one tier.
///
/// # Safety
/// They may be called only on a CPU that has the tier's instructions.
#[derive(Clone, Copy)]
#[allow(clippy::type_complexity)] // a name for each signature would only hide it
pub struct Kernels {
    /// Draws of each stream at each index, times a scale.
    pub uniform: unsafe fn(f64, &[Stream], &[u64], &mut [f64]),
    pub exponential: unsafe fn(f64, &[Stream], &[u64], &mut [f64]),
    /// Draws of the stream of each lane, at one index after the other.
    pub uniform_rows: unsafe fn(f64, &[Stream; LANES], u64, &mut [Row]),
    pub exponential_rows: unsafe fn(f64, &[Stream; LANES], u64, &mut [Row]),
    /// Uniform numbers become lognormal ones of a sigma, times a scale.
    pub lognormal: unsafe fn(f64, f64, &mut [f64]),
    /// Unit gaps become the gaps between arrival times: see [`clock`].
    pub clock: unsafe fn(&mut Row, f64, &mut [Row]),
    /// See [`pool`].
    pub pool: unsafe fn(&mut [Row], &[Row], &[Row], &mut [Row]),
    /// See [`pool_passing_on`].
    pub pool_passing_on: unsafe fn(&mut Passing, Jobs<'_>, &mut [Row], &mut Departures<'_>),
    /// See [`pool_of_parts`].
    pub pool_of_parts: unsafe fn(&mut [Row], &mut Row, &[Row], &[Row], &[Row], &mut [Row], &mut [Row]),
    /// See [`cut`] and [`gather_ends`].
    pub cut: unsafe fn(&mut Cutting, &Uncut, u32, &[f64], &mut Parts),
    pub gather_ends: unsafe fn(&Parts, &[Row], &mut [Vec<f64>; LANES], &mut [usize; LANES]),
    /// See [`Account::add`].
    pub account: unsafe fn(&mut Account, &[Row], &[Row]),
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
pub(super) fn draw_rows(
    scale: f64,
    streams: &[Stream; LANES],
    first: u64,
    rows: &mut [Row],
    law: impl Fn(Stream, u64) -> f64,
) {
    for (index, row) in (first..).zip(rows) {
        for (x, stream) in row.iter_mut().zip(streams) {
            *x = law(*stream, index) * scale;
        }
    }
}

#[inline(always)]
pub(super) fn to_lognormal(sigma: f64, scale: f64, out: &mut [f64]) {
    let mut u = [0.5; 64];
    for block in out.chunks_mut(u.len()) {
        u[..block.len()].copy_from_slice(block);
        for (x, u) in block.iter_mut().zip(&u) {
            *x = lognormal(sigma, normal_middle(*u)) * scale;
        }
        // One in twenty: not worth a vector, but found without a branch.
        let (mut tails, mut count) = ([0; 64], 0);
        for (i, u) in u[..block.len()].iter().enumerate() {
            tails[count] = i;
            count += usize::from(u.min(1.0 - u) < NORMAL_TAIL);
        }
        for i in &tails[..count] {
            block[*i] = lognormal(sigma, normal_tail(u[*i])) * scale;
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

/// A pool whose queries go on to another: beside when each thread is free, the age of the query that it then lets go,
/// counted from its arrival at the first station, and its number.
#[derive(Debug, Clone)]
pub struct Passing {
    pub free: Vec<Row>,
    pub ages: Vec<Row>,
    pub ids: Vec<Row>,
    /// The latest departure, relative to the latest arrival.
    pub last: Row,
}

/// Queries on their way to a station, in the order in which they get there: since the one before, time in service there,
/// age, number.
#[derive(Clone, Copy)]
pub struct Jobs<'a> {
    pub gaps: &'a [Row],
    pub services: &'a [Row],
    pub ages: &'a [Row],
    pub ids: &'a [Row],
    /// Whether numbers increase, so that at the same instant the one that came first has the lower.
    pub in_order: bool,
}

/// The same of queries that leave a station.
pub struct Departures<'a> {
    pub gaps: &'a mut [Row],
    pub ages: &'a mut [Row],
    pub ids: &'a mut [Row],
}

/// [`pool`], with the queries that it lets go. The thread that a query gets is the one that is free first, so the time
/// from which it is free is the next departure: departures come out in order, one for each arrival. The first ones, of
/// threads never used, mean nothing.
///
/// # Safety
/// As [`Lanes`].
#[inline(always)]
pub(super) unsafe fn pool_passing_on<V: Lanes>(
    state: &mut Passing,
    jobs: Jobs<'_>,
    sojourns: &mut [Row],
    out: &mut Departures<'_>,
) {
    // SAFETY: as this function's.
    unsafe {
        match (state.free.len(), jobs.in_order) {
            (1, true) => passing_on::<V, 1>(state, jobs, sojourns, out),
            (2, true) => passing_on::<V, 2>(state, jobs, sojourns, out),
            (4, true) => passing_on::<V, 4>(state, jobs, sojourns, out),
            (8, true) => passing_on::<V, 8>(state, jobs, sojourns, out),
            _ => many_passing_on::<V>(state, jobs, sojourns, out),
        }
    }
}

#[inline(always)]
#[allow(clippy::needless_range_loop)] // rows of many arrays
unsafe fn passing_on<V: Lanes, const M: usize>(
    state: &mut Passing,
    jobs: Jobs<'_>,
    sojourns: &mut [Row],
    out: &mut Departures<'_>,
) {
    // SAFETY: as this function's.
    unsafe {
        let zero = V::load(&[0.0; LANES]);
        let mut free: [V; M] = std::array::from_fn(|j| V::load(&state.free[j]));
        let mut ages: [V; M] = std::array::from_fn(|j| V::load(&state.ages[j]));
        let mut ids: [V; M] = std::array::from_fn(|j| V::load(&state.ids[j]));
        let mut last = V::load(&state.last);
        for row in 0..jobs.gaps.len() {
            let gap = V::load(&jobs.gaps[row]);
            for time in &mut free {
                *time = time.sub(gap);
            }
            free[0].sub(last.sub(gap)).store(&mut out.gaps[row]);
            ages[0].store(&mut out.ages[row]);
            ids[0].store(&mut out.ids[row]);
            last = free[0];
            let end = free[0].max(zero).add(V::load(&jobs.services[row]));
            end.store(&mut sojourns[row]);
            let (age, id) = (V::load(&jobs.ages[row]).add(end), V::load(&jobs.ids[row]));
            // Where the new one stands: after all that are free before or with it.
            let (mut age_here, mut id_here) = (age, id);
            for j in 0..M - 1 {
                let before = free[j + 1].at_most(end);
                free[j] = free[j].max(end.min(free[j + 1]));
                let (next_age, next_id) = (ages[j + 1], ids[j + 1]);
                ages[j] = next_age.where_set(before, age_here);
                ids[j] = next_id.where_set(before, id_here);
                age_here = age.where_set(before, next_age);
                id_here = id.where_set(before, next_id);
            }
            free[M - 1] = free[M - 1].max(end);
            (ages[M - 1], ids[M - 1]) = (age_here, id_here);
        }
        for j in 0..M {
            free[j].store(&mut state.free[j]);
            ages[j].store(&mut state.ages[j]);
            ids[j].store(&mut state.ids[j]);
        }
        last.store(&mut state.last);
    }
}

#[inline(always)]
#[allow(clippy::needless_range_loop)] // rows of many arrays
unsafe fn many_passing_on<V: Lanes>(
    state: &mut Passing,
    jobs: Jobs<'_>,
    sojourns: &mut [Row],
    out: &mut Departures<'_>,
) {
    // SAFETY: as this function's.
    unsafe {
        let zero = V::load(&[0.0; LANES]);
        let mut last = V::load(&state.last);
        let count = state.free.len();
        let (free, ages, ids) = (&mut state.free[..count], &mut state.ages[..count], &mut state.ids[..count]);
        for row in 0..jobs.gaps.len() {
            let gap = V::load(&jobs.gaps[row]);
            let mut this = V::load(&free[0]).sub(gap);
            this.sub(last.sub(gap)).store(&mut out.gaps[row]);
            out.ages[row] = ages[0];
            out.ids[row] = ids[0];
            last = this;
            let end = this.max(zero).add(V::load(&jobs.services[row]));
            end.store(&mut sojourns[row]);
            let (age, id) = (V::load(&jobs.ages[row]).add(end), V::load(&jobs.ids[row]));
            let (mut age_here, mut id_here) = (age, id);
            for j in 1..count {
                let next = V::load(&free[j]).sub(gap);
                let (next_age, next_id) = (V::load(&ages[j]), V::load(&ids[j]));
                let before = next.precedes(next_id, end, id);
                this.max(end.min(next)).store(&mut free[j - 1]);
                next_age.where_set(before, age_here).store(&mut ages[j - 1]);
                next_id.where_set(before, id_here).store(&mut ids[j - 1]);
                age_here = age.where_set(before, next_age);
                id_here = id.where_set(before, next_id);
                this = next;
            }
            this.max(end).store(&mut free[count - 1]);
            age_here.store(&mut ages[count - 1]);
            id_here.store(&mut ids[count - 1]);
        }
        last.store(&mut state.last);
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

/// Room for the queries of a lane; a power of two.
pub const ROOM: usize = 256;

/// Queries to be cut into parts, [`ROOM`] for each lane.
pub struct Uncut {
    /// Since the query before.
    pub gaps: [f64; LANES * ROOM],
    pub items: [u32; LANES * ROOM],
    /// Queries there; after them stands one of no items.
    pub count: [u32; LANES],
    /// Number in its segment of the first.
    pub first: [u64; LANES],
}

/// How far each lane has come with its queries.
#[derive(Debug, Clone, Copy)]
pub struct Cutting {
    /// Queries begun, items of the last that are not cut off yet, its parts so far.
    pub begun: [u32; LANES],
    pub left: [u32; LANES],
    pub parts: [u32; LANES],
}

/// Parts of queries, one of each lane in a row.
pub struct Parts {
    pub gaps: Vec<Row>,
    /// 0 where a part follows another of its query, else minus infinity.
    pub before: Vec<Row>,
    pub services: Vec<Row>,
    /// Index of the service's draw.
    pub ids: Vec<[u64; LANES]>,
    /// Items; 0 in a lane that has no more queries.
    pub items: Vec<[u32; LANES]>,
    /// 1 in the last part of a query.
    pub ends: Vec<[u8; LANES]>,
}

impl Parts {
    pub fn new(rows: usize) -> Self {
        Self {
            gaps: vec![[0.0; LANES]; rows],
            before: vec![[0.0; LANES]; rows],
            services: vec![[0.0; LANES]; rows],
            ids: vec![[0; LANES]; rows],
            items: vec![[0; LANES]; rows],
            ends: vec![[0; LANES]; rows],
        }
    }
}

/// Cut queries into parts of at most `batch` items that take `seconds` for so many items (padded to a power of two).
///
/// Masks instead of branches: which row ends a query cannot be foretold.
#[inline(always)]
pub(super) fn cut(state: &mut Cutting, queries: &Uncut, batch: u32, seconds: &[f64], parts: &mut Parts) {
    let Cutting { mut begun, mut left, parts: mut part } = *state;
    let rows = parts.gaps.iter_mut().zip(&mut parts.before).zip(&mut parts.services).zip(&mut parts.ids);
    let rows = rows.zip(&mut parts.items).zip(&mut parts.ends);
    for (((((gaps, before), services), ids), items), ends) in rows {
        let mut at = [0_usize; LANES];
        let mut fresh = [0_u32; LANES];
        for lane in 0..LANES {
            // All ones where a query begins.
            fresh[lane] = u32::from(left[lane] != 0).wrapping_sub(1);
            begun[lane] = (begun[lane] + (fresh[lane] & 1)).min(queries.count[lane] + 1);
            at[lane] = (lane * ROOM + begun[lane] as usize - 1) & (LANES * ROOM - 1);
        }
        for lane in 0..LANES {
            left[lane] |= queries.items[at[lane]] & fresh[lane];
            items[lane] = left[lane].min(batch);
            left[lane] -= items[lane];
            ends[lane] = u8::from(left[lane] == 0) & u8::from(items[lane] != 0);
            part[lane] = (part[lane] + 1) & !fresh[lane];
            ids[lane] = service_index(queries.first[lane] + u64::from(begun[lane]) - 1, u64::from(part[lane]));
        }
        for lane in 0..LANES {
            let mask = i64::from(fresh[lane].cast_signed()).cast_unsigned();
            gaps[lane] = f64::from_bits(queries.gaps[at[lane]].to_bits() & mask);
            before[lane] = f64::from_bits(f64::NEG_INFINITY.to_bits() & mask);
            services[lane] = seconds[items[lane] as usize & (seconds.len() - 1)];
        }
    }
    *state = Cutting { begun, left, parts: part };
}

/// Append the ends of queries to the list of each lane, of which `counts` are taken.
#[inline(always)]
pub(super) fn gather_ends(parts: &Parts, rows: &[Row], lists: &mut [Vec<f64>; LANES], counts: &mut [usize; LANES]) {
    let mut taken = *counts;
    for (row, ends) in rows.iter().zip(&parts.ends) {
        for lane in 0..LANES {
            lists[lane][taken[lane]] = row[lane];
            taken[lane] += usize::from(ends[lane]);
        }
    }
    *counts = taken;
}

/// Sums over the jobs of a station in each lane: seconds in service, and from arrival to end.
#[derive(Debug, Clone, Copy)]
#[allow(clippy::struct_field_names)] // all of them are seconds
pub struct Account {
    pub busy_s: Row,
    pub sojourn_s: Row,
}

impl Account {
    pub const NONE: Self = Self { busy_s: [0.0; LANES], sojourn_s: [0.0; LANES] };

    #[inline(always)]
    pub fn add(&mut self, services: &[Row], sojourns: &[Row]) {
        let mut sum = *self;
        for (service, sojourn) in services.iter().zip(sojourns) {
            for lane in 0..LANES {
                sum.busy_s[lane] += service[lane];
                sum.sojourn_s[lane] += sojourn[lane];
            }
        }
        *self = sum;
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
        use super::kernels::{
            self, Account, Cutting, Departures, Jobs, Kernels, LANES, Parts, Passing, Row, Uncut,
        };
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
        fn uniform_rows(scale: f64, streams: &[Stream; LANES], first: u64, rows: &mut [Row]) {
            kernels::draw_rows(scale, streams, first, rows, Stream::uniform);
        }
        $(#[target_feature(enable = $features)])?
        fn exponential_rows(scale: f64, streams: &[Stream; LANES], first: u64, rows: &mut [Row]) {
            kernels::draw_rows(scale, streams, first, rows, Stream::exponential);
        }
        $(#[target_feature(enable = $features)])?
        fn lognormal(sigma: f64, scale: f64, out: &mut [f64]) {
            kernels::to_lognormal(sigma, scale, out);
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
        fn pool_passing_on(state: &mut Passing, jobs: Jobs<'_>, sojourns: &mut [Row], out: &mut Departures<'_>) {
            // SAFETY: this function has the tier's instructions.
            unsafe { kernels::pool_passing_on::<$lanes>(state, jobs, sojourns, out) }
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
        fn cut(state: &mut Cutting, queries: &Uncut, batch: u32, seconds: &[f64], parts: &mut Parts) {
            kernels::cut(state, queries, batch, seconds, parts);
        }
        $(#[target_feature(enable = $features)])?
        fn gather_ends(
            parts: &Parts,
            rows: &[Row],
            lists: &mut [Vec<f64>; LANES],
            counts: &mut [usize; LANES],
        ) {
            kernels::gather_ends(parts, rows, lists, counts);
        }
        $(#[target_feature(enable = $features)])?
        fn account(account: &mut Account, services: &[Row], sojourns: &[Row]) {
            account.add(services, sojourns);
        }
        $(#[target_feature(enable = $features)])?
        fn tally(rows: &[Row], sums: &mut [Row], buckets: &mut [[u32; LANES]]) -> (u32, u32) {
            kernels::tally(rows, sums, buckets)
        }

        pub(super) const KERNELS: Kernels = Kernels {
            uniform,
            exponential,
            uniform_rows,
            exponential_rows,
            lognormal,
            clock,
            pool,
            pool_passing_on,
            pool_of_parts,
            cut,
            gather_ends,
            account,
            tally,
        };
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
                (tier.account)(&mut account, &gaps, &services);
                (tier.tally)(rows, &mut sums, &mut buckets)
            };
            for lane in 0..LANES {
                let mut now = 0.0;
                for row in 0..ROWS {
                    let next = now + gaps[row][lane] * 0.7;
                    assert_eq!(between[row][lane], next - now, "{name}");
                    now = next;
                }
                assert_eq!(time[lane], now, "{name}");
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

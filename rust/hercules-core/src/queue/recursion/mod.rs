//! FCFS pools, split queries and tandems without an event list: eight segments of a run side by side in vector registers.
//!
//! A job starts when it has come and a thread is free, so the state of a pool is when its threads are free, and one job
//! costs a handful of instructions. Random numbers, recursion and histogram go over a block of jobs one after the other;
//! the block stays in the first-level cache.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod kernels;
mod portable;
mod split;
mod tandem;

use crate::control::Control;
use crate::cpu::Isa;
use crate::error::{Error, Result};
use crate::queue::engine::{Plan, Segment};
use crate::queue::law::Law;
use crate::queue::network::{Interference, Network};
use crate::queue::record::{GROUP, Record};
use crate::queue::table::Unit;
use crate::rng::{Purpose, Stream};
use kernels::{Account, Kernels, Row};

pub use kernels::LANES;

/// Jobs of each lane in one block.
const ROWS: usize = 128;

/// Whether the recursions cover the whole of a network.
pub fn covers(network: &Network) -> bool {
    let [route] = &*network.routes else { return false };
    let plain = |unit: Unit| unit == Unit::Query || (unit == Unit::SubBatch && route.stations.len() == 1);
    network.capacity.is_none()
        && network.drop_after_s.is_none()
        && route.stations.iter().all(|station| {
            plain(station.unit) && station.buffer.is_none() && station.interference == Interference::None
        })
}

fn kernels_of(isa: Isa) -> &'static Kernels {
    // `isa` is never above what the CPU has: it comes from `Isa::chosen`.
    assert!(isa <= Isa::detected(), "tier above the CPU's");
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => &avx512::KERNELS,
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => &avx2::KERNELS,
        _ => &portable::KERNELS,
    }
}

/// Draws of `law` at each index of one stream: what runs draw, and no more.
pub fn draws(law: &Law, stream: Stream, indices: &[u64], isa: Isa) -> Vec<f64> {
    let mut out = vec![0.0; indices.len()];
    for (indices, out) in indices.chunks(ROWS).zip(out.chunks_mut(ROWS)) {
        kernels_of(isa).fill(law, 1.0, &[stream; ROWS][..indices.len()], indices, out);
    }
    out
}

/// Draws of a law one by one, at indices that mostly go up: some are drawn together, in vector registers, and kept.
#[derive(Debug)]
pub struct Draws<'l> {
    law: &'l Law,
    stream: Stream,
    isa: Isa,
    /// First index of each block that is kept (all ones: none), and its draws.
    kept: [(u64, [f64; AHEAD]); BLOCKS],
}

/// Draws of a block and blocks that are kept: queries overtake each other.
const AHEAD: usize = 64;
const BLOCKS: usize = 4;

impl<'l> Draws<'l> {
    pub fn new(law: &'l Law, stream: Stream) -> Self {
        // Every tier gives the same bits; a wrong name in the environment is refused where the run begins.
        let isa = Isa::chosen(None).unwrap_or(Isa::Portable);
        Self { law, stream, isa, kept: [(u64::MAX, [0.0; AHEAD]); BLOCKS] }
    }

    /// The same as [`Law::draw`].
    #[inline]
    pub fn get(&mut self, index: u64) -> f64 {
        if !matches!(self.law, Law::Exponential | Law::Lognormal { .. }) {
            return self.law.draw(self.stream, index);
        }
        let first = index - index % AHEAD as u64;
        let slot = (first / AHEAD as u64) as usize % BLOCKS;
        if self.kept[slot].0 != first {
            let indices: [u64; AHEAD] = std::array::from_fn(|i| first + i as u64);
            kernels_of(self.isa).fill(self.law, 1.0, &[self.stream; AHEAD], &indices, &mut self.kept[slot].1);
            self.kept[slot].0 = first;
        }
        self.kept[slot].1[(index - first) as usize]
    }
}

/// Simulate up to [`LANES`] segments of `plan`, whose network [`covers`] accepts.
pub fn run(plan: &Plan<'_>, segments: std::ops::Range<usize>, isa: Isa, control: &Control) -> Result<Vec<Segment>> {
    let block = Block::new(plan, segments, kernels_of(isa), control)?;
    let station = &plan.network.routes[0].stations[0];
    let splits = station.unit == Unit::SubBatch && plan.network.routes[0].batch < plan.max_size;
    if splits { split::run(block) } else { tandem::run(block) }
}

/// What both kinds of run share: the lanes and where their latencies go.
struct Block<'p, 's> {
    plan: &'p Plan<'s>,
    segments: std::ops::Range<usize>,
    kernels: &'static Kernels,
    control: &'p Control,
    records: Vec<Record>,
    sums: [Row; ROWS / GROUP],
    buckets: [[u32; LANES]; ROWS],
}

impl<'p, 's> Block<'p, 's> {
    fn new(
        plan: &'p Plan<'s>,
        segments: std::ops::Range<usize>,
        kernels: &'static Kernels,
        control: &'p Control,
    ) -> Result<Self> {
        let records = segments.clone().map(|segment| Record::new(plan.cuts[segment], plan.keep));
        let records = records.collect::<Result<Vec<_>>>()?;
        let (sums, buckets) = ([[0.0; LANES]; ROWS / GROUP], [[0; LANES]; ROWS]);
        Ok(Self { plan, segments, kernels, control, records, sums, buckets })
    }

    /// Lanes in use; the others repeat the last one and nobody looks at them.
    fn lanes(&self) -> usize {
        self.segments.len()
    }

    /// The segment in a lane.
    fn segment(&self, lane: usize) -> usize {
        self.segments.start + lane.min(self.lanes() - 1)
    }

    fn poll(&self) -> Result<()> {
        if self.control.cancelled() { Err(Error::Cancelled) } else { Ok(()) }
    }

    /// One stream in each lane, for the services of a station.
    fn service_streams(&self, station: usize) -> [Stream; LANES] {
        std::array::from_fn(|lane| self.plan.service_stream(self.segment(lane), station))
    }

    /// The same for gaps.
    fn gap_streams(&self) -> [Stream; LANES] {
        std::array::from_fn(|lane| self.plan.source.gap_stream(self.segment(lane)))
    }

    /// Latencies in order of arrival, a row of all lanes after the other.
    fn record(&mut self, rows: &[Row]) {
        let lanes = self.lanes();
        let mut at = 0;
        while at < rows.len() {
            let ahead = self.records.iter().map(|record| record.groups_ahead(rows.len() - at)).min().unwrap_or(0);
            if ahead == 0 {
                for (record, seconds) in self.records.iter_mut().zip(rows[at]) {
                    record.push(seconds);
                }
                at += 1;
                continue;
            }
            let these = &rows[at..at + ahead * GROUP];
            let buckets = &mut self.buckets[..these.len()];
            // SAFETY: `run` chose the kernels that this CPU has.
            let (low, high) = unsafe { (self.kernels.tally)(these, &mut self.sums[..ahead], buckets) };
            for (lane, record) in self.records.iter_mut().enumerate().take(lanes) {
                if record.is_warm() {
                    let counts = record.counts();
                    for buckets in &*buckets {
                        counts[buckets[lane] as usize] += 1;
                    }
                }
                record.push_groups(self.sums[..ahead].iter().map(|sum| sum[lane]), low as usize, high as usize);
            }
            at += these.len();
        }
    }
}

impl Kernels {
    /// Draws of `law` times `scale`, one for each stream and index.
    fn fill(&self, law: &Law, scale: f64, streams: &[Stream], indices: &[u64], out: &mut [f64]) {
        // SAFETY: `run` chose the kernels that this CPU has.
        unsafe {
            match law {
                Law::Deterministic => out.fill(scale),
                Law::Exponential => (self.exponential)(scale, streams, indices, out),
                Law::Lognormal { sigma } => {
                    (self.uniform)(1.0, streams, indices, out);
                    (self.lognormal)(*sigma, scale, out);
                }
                _ => kernels::draw(scale, streams, indices, out, |stream, index| law.draw(stream, index)),
            }
        }
    }

    /// The same for rows, whose indices are whole numbers.
    fn fill_each(&self, law: &Law, scale: f64, streams: &[Stream; LANES], indices: &[Row], rows: &mut [Row]) {
        let mut whole = [[0; LANES]; ROWS];
        let mut each = [[Stream::default(); LANES]; ROWS];
        let count = rows.len();
        for ((whole, each), indices) in whole.iter_mut().zip(&mut each).zip(indices) {
            *each = *streams;
            for (to, from) in whole.iter_mut().zip(indices) {
                // Below 2^52: the whole number is the low bits of 2^52 + number.
                *to = (from + 4_503_599_627_370_496.0).to_bits() & 0x000f_ffff_ffff_ffff;
            }
        }
        let (each, whole) = (each[..count].as_flattened(), whole[..count].as_flattened());
        self.fill(law, scale, each, whole, rows.as_flattened_mut());
    }

    /// Draws of `law` times `scale`, the stream of each lane at one index after the other.
    fn fill_rows(&self, law: &Law, scale: f64, streams: &[Stream; LANES], first: u64, rows: &mut [Row]) {
        // SAFETY: `run` chose the kernels that this CPU has.
        unsafe {
            match law {
                Law::Deterministic => rows.fill([scale; LANES]),
                Law::Exponential => (self.exponential_rows)(scale, streams, first, rows),
                Law::Lognormal { sigma } => {
                    (self.uniform_rows)(1.0, streams, first, rows);
                    (self.lognormal)(*sigma, scale, rows.as_flattened_mut());
                }
                _ => kernels::draw_rows(scale, streams, first, rows, |stream, index| law.draw(stream, index)),
            }
        }
    }
}

/// The threads of a pool in each lane, none of them used yet. Padded to a number that the kernels keep in registers.
fn unused(threads: u32) -> Vec<Row> {
    let count = threads as usize;
    let padded = if count <= 16 { count.next_power_of_two() } else { count };
    let mut free = vec![[f64::NEG_INFINITY; LANES]; count];
    free.resize(padded, [f64::INFINITY; LANES]);
    free
}

impl Plan<'_> {
    /// Services of station number `station`, counted over all routes, in a segment.
    pub fn service_stream(&self, segment: usize, station: usize) -> Stream {
        Stream::new(self.source.seed(), Purpose::Service, ((segment as u64) << 16) + station as u64)
    }
}

//! Embedding bag: gather rows of a table and pool them, bag by bag.
//!
//! `out[b, c] = reduce over the lookups j of bag b of w[j] * weight[indices[j], c]`, reduce = sum, mean or max.
//!
//! Order of reading: [`reference`] (the definition) · [`input`] (views and bags) · [`kernel`] (the inner loop, once
//! for all tiers) · [`window`] (checked indices, prefetch) · this file (plan and run) · [`probe`] (the machine's
//! limit). A call is planned first, which checks everything but the indices; then it runs.
//!
//! Promises:
//! - Each column is summed in f32 in the order of the lookups, product and sum rounded separately: the result is
//!   bit-equal to the naive loop for any tier and thread count. (Which NaN comes out of a sum of NaNs is not promised.)
//! - The mean is the sum divided by the number of lookups, weighted or not.
//! - A bag without lookups is zeros in every mode. Padding rows are skipped and not counted.
//! - The maximum of a column that holds a NaN is a NaN.

#![allow(clippy::inline_always)] // kernels take their tier's instructions from the function they are inlined into

mod input;
mod kernel;
mod portable;
mod probe;
mod window;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(all(test, unix))]
mod guard_tests;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

pub use input::{Bags, Ints, LookupWeights, Table, checked_bytes};
pub use probe::gather_limit;

use crate::control::Control;
use crate::cpu::Isa;
use crate::error::{Error, Result};
use crate::pool;
use kernel::{Batch, Kernels, LINE_BYTES, PoolingKind};
use rayon::prelude::*;
use std::ops::Range;
use window::Window;

/// Below this estimate a call stays on the caller's thread: waking others costs tens of microseconds.
const NS_TO_SHARE: usize = 100_000;
/// From this estimate on it is worth letting other Python threads run.
const NS_TO_DETACH: usize = 10_000;
/// From this estimate on Ctrl-C must be looked for.
const NS_TO_WATCH: usize = 100_000_000;
/// Rough cost of a cache line, for the estimates only.
const NS_PER_LINE_IN_CACHE: usize = 1;
const NS_PER_LINE_IN_MEMORY: usize = 4;
/// Pieces of work per thread, so that one slow thread is helped out.
const PIECES_PER_THREAD: usize = 4;

/// Bytes of table rows to pool at a time where rows are wider than a strip: a fraction of a second-level cache.
const BATCH_BYTES: usize = 1 << 18;
const LEAST_BATCH_ROWS: usize = 16;

/// How the rows of a bag become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Sum,
    Mean,
    Max,
}

impl Mode {
    pub const ALL: [Self; 3] = [Self::Sum, Self::Mean, Self::Max];

    pub fn name(self) -> &'static str {
        match self {
            Self::Sum => "sum",
            Self::Mean => "mean",
            Self::Max => "max",
        }
    }

    pub fn parse(text: &str) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|mode| mode.name() == text)
            .ok_or_else(|| Error::invalid("mode", format!("is {text:?}; allowed are sum, mean, max")))
    }
}

/// The row that `value`, found at `position` of the indices, names.
#[inline]
fn check_index(value: i64, position: usize, rows: usize) -> Result<usize> {
    // As unsigned, a negative number is larger than any number of rows: one comparison does for both ends.
    if (value as u64) < rows as u64 { Ok(value as usize) } else { Err(Error::Index { position, value, rows }) }
}

/// One embedding-bag call.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    pub table: Table<'a>,
    pub indices: Ints<'a>,
    pub bags: Bags<'a>,
    pub mode: Mode,
    /// Factors, one per index; not with [`Mode::Max`].
    pub lookup_weights: Option<LookupWeights<'a>>,
    /// A row that is skipped and not counted; a negative one counts from the end.
    pub padding: Option<i64>,
    /// Threads to use at most; `None`: what the environment or the machine says.
    pub threads: Option<usize>,
    /// Highest tier to use; `None`: what the environment or the machine says.
    pub isa: Option<Isa>,
}

/// How long a call will take, roughly: what its caller should do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Length {
    /// Microseconds: just run it.
    Short,
    /// Long enough to let go of a lock.
    Medium,
    /// Long enough for a person to press Ctrl-C.
    Long,
}

/// A call whose shape, bags and options are checked, with its kernels chosen.
pub struct Plan<'a> {
    call: Call<'a>,
    /// Private copy of where each bag ends in the indices.
    ends: Vec<usize>,
    padding: Option<usize>,
    kernels: Kernels,
    straddles: bool,
    threads: usize,
}

impl<'a> Plan<'a> {
    /// Check `call` (all but the values of its indices) and choose its kernels.
    pub fn new(call: Call<'a>) -> Result<Self> {
        let Call { table, indices, mode, .. } = call;
        let requested = call.threads.map(|n| pool::resolve_threads(Some(n))).transpose()?;
        let padding = call.padding.map(|value| resolve_padding(value, table.rows)).transpose()?;
        if let Some(weights) = call.lookup_weights {
            if mode == Mode::Max {
                return Err(Error::invalid("per_sample_weights", "go with modes sum and mean, not with max"));
            }
            if weights.len != indices.len() {
                let message = format!("has {} values for {} indices; one each is needed", weights.len, indices.len());
                return Err(Error::invalid("per_sample_weights", message));
            }
        }
        let ends = call.bags.ends(indices.len())?;
        checked_bytes("out", ends.len(), table.dim)?;
        let pooling = match (mode, call.lookup_weights) {
            (Mode::Max, _) => PoolingKind::Max,
            (_, Some(_)) => PoolingKind::WeightedSum,
            (_, None) => PoolingKind::Sum,
        };
        let kernels = kernels_of(Isa::chosen(call.isa)?, pooling, padding.is_some());
        let mut plan = Self { call, ends, padding, kernels, straddles: window::straddles(&table), threads: 1 };
        if plan.estimate_ns() >= NS_TO_SHARE && plan.ends.len() > 1 {
            plan.threads = requested.map_or_else(|| pool::resolve_threads(None), Ok)?;
        }
        Ok(plan)
    }

    pub fn bags(&self) -> usize {
        self.ends.len()
    }

    pub fn dim(&self) -> usize {
        self.call.table.dim
    }

    pub fn length(&self) -> Length {
        match self.estimate_ns() {
            0..NS_TO_DETACH => Length::Short,
            NS_TO_DETACH..NS_TO_WATCH => Length::Medium,
            _ => Length::Long,
        }
    }

    /// Lookups that the bags hold.
    fn lookups(&self) -> usize {
        self.ends.last().copied().unwrap_or(0)
    }

    /// Rough time on one thread, from the cache lines that are read: at least one per lookup, and one per bag.
    fn estimate_ns(&self) -> usize {
        let table = &self.call.table;
        let per_row = table.row_bytes().div_ceil(LINE_BYTES).max(1);
        let lines = self.lookups().saturating_mul(per_row).saturating_add(self.ends.len());
        let in_cache = table.bytes() <= window::CACHED_TABLE_BYTES;
        lines.saturating_mul(if in_cache { NS_PER_LINE_IN_CACHE } else { NS_PER_LINE_IN_MEMORY })
    }

    /// Run the call and write every value of `out`, `bags x dim`. After an error its content is unspecified.
    pub fn run_into(&self, out: &mut [f32], control: &Control) -> Result<()> {
        if out.len() != self.bags() * self.dim() {
            let message = format!("has {} values, needs {} x {}", out.len(), self.bags(), self.dim());
            return Err(Error::invalid("out", message));
        }
        // SAFETY: `out` holds bags * dim values and is borrowed for us alone.
        unsafe { self.run(out.as_mut_ptr(), control) }
    }

    /// [`Plan::run_into`] for memory that Python owns.
    ///
    /// An index outside the table gives [`Error::Index`] with the lowest such position, for any number of threads.
    ///
    /// # Safety
    /// `out` is aligned for f32, writable for `bags * dim` values, and overlaps none of the call's inputs.
    pub unsafe fn run(&self, out: *mut f32, control: &Control) -> Result<()> {
        let out = Output(out);
        if self.threads == 1 {
            // SAFETY: the caller's promise.
            return unsafe { self.run_bags(0..self.bags(), out, control) };
        }
        let pieces = self.pieces(self.threads * PIECES_PER_THREAD);
        let outcomes: Vec<Result<()>> = pool::install(self.threads, || {
            pieces
                .into_par_iter()
                // SAFETY: the caller's promise; pieces are disjoint, so no two write the same rows of `out`.
                .map(|bags| unsafe { self.run_bags(bags, out, control) })
                .collect()
        })?;
        outcomes.into_iter().collect() // the first error in the order of the bags
    }

    /// Cut the bags into up to `count` runs of about equal work: lookups, plus one per bag for its row of output.
    fn pieces(&self, count: usize) -> Vec<Range<usize>> {
        let work_before = |bag: usize| if bag == 0 { 0 } else { self.ends[bag - 1] + bag };
        let total = work_before(self.bags());
        let mut pieces = Vec::with_capacity(count);
        let mut start = 0;
        for piece in 1..=count {
            let target = (total as u128 * piece as u128 / count as u128) as usize;
            let end = lowest(start, self.bags(), |bag| work_before(bag) >= target);
            if end > start {
                pieces.push(start..end);
            }
            start = end;
        }
        pieces
    }

    /// Pool the bags of one piece on this thread.
    ///
    /// # Safety
    /// As [`Plan::run`], and nobody else writes the rows `bags` of `out`.
    unsafe fn run_bags(&self, bags: Range<usize>, out: Output, control: &Control) -> Result<()> {
        if bags.is_empty() {
            return Ok(());
        }
        let positions = self.start_of(bags.start)..self.ends[bags.end - 1];
        let mut window = Window::open(&self.call.table, &self.call.indices, positions, control)?;
        let mut bag = bags.start;
        let mut kept = 0; // rows of bag `bag` pooled so far
        while bag < bags.end {
            let position = window.position();
            let (rows, ahead) = window.take(self.rows_per_batch())?;
            let reach = position + rows.len();
            let closed = self.ends[bag..bags.end].partition_point(|&end| end <= reach);
            let open = bag + closed < bags.end && self.start_of(bag + closed) < reach;
            let ends = &self.ends[bag..bag + closed + usize::from(open)];
            // SAFETY: bag < bags(), and `out` holds `dim` values for each; the window checked `rows` against the table;
            // the rows of `out` for `bags` are ours.
            unsafe {
                let out = out.0.add(bag * self.dim());
                self.pool_batch(rows, ahead, position, ends, self.start_of(bag) < position, out);
                kept = self.finish_bags(rows, position, ends, closed, kept, out);
            }
            bag += closed;
        }
        Ok(())
    }

    fn start_of(&self, bag: usize) -> usize {
        if bag == 0 { 0 } else { self.ends[bag - 1] }
    }

    /// Rows to pool at a time. Rows of several strips are read once per strip, so a batch must stay in the cache.
    fn rows_per_batch(&self) -> usize {
        let one_strip = self.dim() <= self.kernels.lanes * self.kernels.by_vectors.len();
        if one_strip { usize::MAX } else { (BATCH_BYTES / self.call.table.row_bytes()).max(LEAST_BATCH_ROWS) }
    }

    /// Pool a batch of rows into the rows of `out` of its bags, strip by strip.
    ///
    /// # Safety
    /// `rows` are offsets of rows of the table; `ends` are those of the bags that hold them, in order; `out` is writable
    /// for `dim` values per bag and unshared; if `resumes`, it holds the accumulators of the first bag's earlier rows.
    unsafe fn pool_batch(
        &self,
        rows: &[usize],
        ahead: &[usize],
        position: usize,
        ends: &[usize],
        resumes: bool,
        out: *mut f32,
    ) {
        let Kernels { lanes, by_vectors } = self.kernels;
        let mut batch = Batch {
            table: self.call.table.data,
            rows,
            ahead,
            position,
            ends,
            weights: self.call.lookup_weights.map_or(std::ptr::null(), |w| w.data.wrapping_add(position)),
            padding: self.padding.map_or(usize::MAX, |row| row * self.dim()),
            last_columns: lanes,
            straddles: self.straddles,
            resumes,
            stride: self.dim(),
        };
        let mut column = 0;
        while column < self.dim() {
            let columns = (self.dim() - column).min(lanes * by_vectors.len());
            let vectors = columns.div_ceil(lanes);
            batch.table = self.call.table.data.wrapping_add(column);
            batch.last_columns = columns - (vectors - 1) * lanes;
            // SAFETY: the tier was chosen among those that the CPU has; columns column..column + columns exist in
            // each row and in each row of `out`; weights, where used, are there for each lookup.
            unsafe { by_vectors[vectors - 1](&batch, out.add(column)) };
            column += columns;
        }
    }

    /// Turn the accumulators of the first `closed` bags of a batch into results. `kept` rows of the first bag were pooled
    /// before this batch; gives the same count for the bag that stays open.
    ///
    /// # Safety
    /// `out` is writable for `dim` values per bag, initialised and unshared.
    unsafe fn finish_bags(
        &self,
        rows: &[usize],
        position: usize,
        ends: &[usize],
        closed: usize,
        kept: usize,
        out: *mut f32,
    ) -> usize {
        if self.call.mode == Mode::Sum {
            return 0; // a sum is finished as it stands, and nobody asks for the count
        }
        let mut kept = kept;
        let mut start = 0;
        for (b, &end) in ends.iter().enumerate() {
            let stop = (end - position).min(rows.len());
            kept += self.count(&rows[start..stop]);
            if b < closed {
                // SAFETY: the caller's promise.
                unsafe { self.finish(out.add(b * self.dim()), kept) };
                kept = 0;
            }
            start = stop;
        }
        kept
    }

    /// How many of `rows` count: all but the padding row.
    fn count(&self, rows: &[usize]) -> usize {
        match self.padding {
            None => rows.len(),
            Some(padding) => rows.iter().filter(|&&offset| offset != padding * self.dim()).count(),
        }
    }

    /// Turn a bag's accumulators into its result.
    ///
    /// # Safety
    /// `out` is writable for `dim` values, initialised and unshared.
    unsafe fn finish(&self, out: *mut f32, count: usize) {
        // SAFETY: the caller's promise; zero bytes are the f32 zero.
        unsafe {
            if count == 0 {
                out.write_bytes(0, self.dim());
            } else if self.call.mode == Mode::Mean && count > 1 {
                for column in 0..self.dim() {
                    *out.add(column) /= count as f32;
                }
            }
        }
    }
}

/// A pointer to the result that threads share, each writing rows of its own.
#[derive(Clone, Copy)]
struct Output(*mut f32);

// SAFETY: `Plan::run` hands disjoint rows to its threads.
unsafe impl Send for Output {}
// SAFETY: as above.
unsafe impl Sync for Output {}

/// The lowest value of `from..=to` for which `holds`, which stays true once it is; `to` if none.
fn lowest(from: usize, to: usize, holds: impl Fn(usize) -> bool) -> usize {
    let (mut low, mut high) = (from, to);
    while low < high {
        let middle = low + (high - low) / 2;
        if holds(middle) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    low
}

fn resolve_padding(value: i64, rows: usize) -> Result<usize> {
    let from_start = if value < 0 { i128::from(value) + rows as i128 } else { i128::from(value) };
    match usize::try_from(from_start) {
        Ok(row) if row < rows => Ok(row),
        _ => Err(Error::invalid("padding_idx", format!("is {value}; allowed is -{rows} <= padding_idx < {rows}"))),
    }
}

fn kernels_of(isa: Isa, pooling: PoolingKind, skip: bool) -> Kernels {
    match isa {
        Isa::Portable => portable::kernels(pooling, skip),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => avx2::kernels(pooling, skip),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => avx512::kernels(pooling, skip),
        #[cfg(not(target_arch = "x86_64"))]
        Isa::Avx2 | Isa::Avx512 => portable::kernels(pooling, skip),
    }
}

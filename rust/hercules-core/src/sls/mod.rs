//! Embedding bag: gather rows of a table and pool them, bag by bag.
//!
//! `out[b, c] = reduce over the lookups j of bag b of w[j] * weight[indices[j], c]`, reduce = sum, mean or max.
//!
//! Order of reading: [`reference`] (the definition) · [`input`] (views and bags) · [`format`] (how rows are stored) ·
//! [`kernel`] (the inner loop, once for all tiers and formats) · [`fold`] (what a row adds) · [`window`] (checked
//! indices, prefetch) · this file (plan and run) · [`probe`] (the machine's limit) · [`owned`] (tables of our own, on
//! [`pages`], filled by [`encode`]). A call is planned first, which checks everything but the indices; then it runs.
//!
//! Promises:
//! - Each column of a table of floats is summed in f32 (f64 for tables of f64) in the order of the lookups, product and
//!   sum rounded separately: the result is bit-equal to the naive loop for any tier and thread count. (Which NaN comes
//!   out of a sum of NaNs is not promised.)
//! - Quantised tables: bit-equal to a loop of fused multiply-adds if [`Call::exact`], else within the bound derived in
//!   [`fold`]. Equal for any thread count in both cases.
//! - The mean is the sum divided by the number of lookups, weighted or not.
//! - A bag without lookups is zeros in every mode. Padding rows are skipped and not counted.
//! - The maximum of a column that holds a NaN is a NaN.

#![allow(clippy::cast_ptr_alignment)] // rows are bytes: read unaligned, or aligned by the promise of a constructor
#![allow(clippy::inline_always)] // kernels take their tier's instructions from the function they are inlined into

mod encode;
mod fold;
mod format;
mod half;
mod input;
mod kernel;
mod owned;
mod pages;
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
#[cfg(test)]
mod tests_formats;

pub use format::RowFormat;
pub use input::{Bags, Ints, LookupWeights, Table, checked_bytes};
pub use owned::{Layout, OwnedTable, Source};
pub use probe::gather_limit;

use crate::control::Control;
use crate::cpu::Isa;
use crate::error::{Error, Result};
use crate::pool;
use kernel::{Batch, Kernels, LINE_BYTES, PoolingKind, Rounder};
use rayon::prelude::*;
use std::cell::Cell;
use std::ops::{Div, Range};
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
/// Bytes of f32 results to keep at a time where they are yet to be rounded to halves.
const SCRATCH_BYTES: usize = 1 << 17;

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
    /// Sum quantised rows by `acc = fma(code, w * scale, acc + w * bias)`, as PyTorch does, and not in the fastest order.
    pub exact: bool,
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

/// Where a call's result goes: `bags x dim` values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    F32(*mut f32),
    F64(*mut f64),
    /// Halves, each rounded once from f32, ties to even.
    F16(*mut u16),
}

/// A call whose shape, bags and options are checked, with its kernels chosen.
pub struct Plan<'a> {
    call: Call<'a>,
    /// Private copy of where each bag ends in the indices.
    ends: Vec<usize>,
    padding: Option<usize>,
    kernels: Kernels,
    round_to_half: Rounder,
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
            let needed = if table.format == RowFormat::F64 { RowFormat::F64 } else { RowFormat::F32 };
            if weights.format != needed {
                let message = format!("are {}; sums of this table need {}", weights.format.name(), needed.name());
                return Err(Error::invalid("per_sample_weights", message));
            }
        }
        let ends = call.bags.ends(indices.len())?;
        checked_bytes("out", ends.len(), table.dim, value_bytes(&table))?;
        let pooling = match (mode, call.lookup_weights) {
            (Mode::Max, _) => PoolingKind::Max,
            (_, Some(_)) => PoolingKind::WeightedSum,
            (_, None) => PoolingKind::Sum,
        };
        let (kernels, round_to_half) =
            kernels_of(Isa::chosen(call.isa)?, table.format, pooling, call.exact, padding.is_some());
        let straddles = window::straddles(&table);
        let mut plan = Self { call, ends, padding, kernels, round_to_half, straddles, threads: 1 };
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

    /// Whether sums are kept, and results given, in f64.
    pub fn is_f64(&self) -> bool {
        self.call.table.format == RowFormat::F64
    }

    /// Run the call and write every value of `out`, `bags x dim`. After an error its content is unspecified.
    pub fn run_into(&self, out: &mut [f32], control: &Control) -> Result<()> {
        if out.len() != self.bags() * self.dim() {
            let message = format!("has {} values, needs {} x {}", out.len(), self.bags(), self.dim());
            return Err(Error::invalid("out", message));
        }
        // SAFETY: `out` holds bags * dim values and is borrowed for us alone.
        unsafe { self.run(Output::F32(out.as_mut_ptr()), control) }
    }

    /// [`Plan::run_into`] for memory that Python owns, and for other types of result.
    ///
    /// An index outside the table gives [`Error::Index`] with the lowest such position, for any number of threads.
    ///
    /// # Safety
    /// `out` is aligned, writable for `bags * dim` values, and overlaps none of the call's inputs.
    pub unsafe fn run(&self, out: Output, control: &Control) -> Result<()> {
        let (to, halves) = match (out, self.is_f64()) {
            (Output::F32(to), false) => (to.cast(), false),
            (Output::F16(to), false) => (to.cast(), true),
            (Output::F64(to), true) => (to.cast(), false),
            (Output::F64(_), false) => return Err(Error::invalid("out", "is float64; this table's result is float32")),
            (_, true) => return Err(Error::invalid("out", "must be float64, as the table is")),
        };
        let to = Shared(to);
        let row_bytes = self.dim() * value_bytes(&self.call.table);
        let work = |bags: Range<usize>| {
            // SAFETY: the caller's promise; each bag is worked on once, so nobody else writes its row.
            unsafe {
                if halves {
                    self.run_halves(bags, to, control)
                } else {
                    self.run_bags(bags.clone(), to.at(bags.start * row_bytes), control)
                }
            }
        };
        if self.threads == 1 {
            return work(0..self.bags());
        }
        let pieces = self.pieces(self.threads * PIECES_PER_THREAD);
        // Pieces are disjoint, so no two threads write the same rows of `out`.
        let outcomes: Vec<Result<()>> = pool::install(self.threads, || pieces.into_par_iter().map(work).collect())?;
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

    /// Pool `bags` into f32 that nobody else sees, a bounded number at a time, and round the results into `out`.
    ///
    /// # Safety
    /// As [`Plan::run`] for halves, and nobody else writes the rows `bags` of `out`.
    unsafe fn run_halves(&self, bags: Range<usize>, out: Shared, control: &Control) -> Result<()> {
        let at_a_time = (SCRATCH_BYTES / size_of::<f32>() / self.dim().max(1)).clamp(1, bags.len().max(1));
        let bytes = checked_bytes("out", at_a_time, self.dim(), size_of::<f32>())?;
        let mut scratch: Vec<f32> = Vec::new();
        scratch.try_reserve_exact(at_a_time * self.dim()).map_err(|_| Error::Memory { bytes })?;
        for start in bags.clone().step_by(at_a_time) {
            let some = start..bags.end.min(start + at_a_time);
            // SAFETY: the scratch holds dim values for each of `some`, which the first call writes; their rows of `out`
            // are ours.
            unsafe {
                self.run_bags(some.clone(), scratch.as_mut_ptr().cast(), control)?;
                let to = out.at(start * self.dim() * size_of::<u16>()).cast();
                (self.round_to_half)(scratch.as_ptr(), to, some.len() * self.dim());
            }
        }
        Ok(())
    }

    /// Pool `bags` on this thread into `out`, whose first row is that of the first of them.
    ///
    /// # Safety
    /// `out` is aligned for the type of the sums and writable for `dim` of them per bag; nobody else uses it.
    unsafe fn run_bags(&self, bags: Range<usize>, out: *mut u8, control: &Control) -> Result<()> {
        if bags.is_empty() {
            return Ok(());
        }
        let row_bytes = self.dim() * value_bytes(&self.call.table);
        let positions = self.start_of(bags.start)..self.ends[bags.end - 1];
        let mut window = Window::open(&self.call.table, &self.call.indices, positions, control)?;
        let mut bag = bags.start;
        let mut kept = 0; // rows of bag `bag` pooled so far
        let mut shared = 0.0; // their sum of what a row adds to all columns alike
        while bag < bags.end {
            let position = window.position();
            let (rows, ahead) = window.take(self.rows_per_batch())?;
            let reach = position + rows.len();
            let closed = self.ends[bag..bags.end].partition_point(|&end| end <= reach);
            let open = bag + closed < bags.end && self.start_of(bag + closed) < reach;
            let ends = &self.ends[bag..bag + closed + usize::from(open)];
            let resumes = self.start_of(bag) < position;
            // SAFETY: bag < bags.end, and `out` has a row for each bag; the window checked `rows` against the table.
            unsafe {
                let out = out.add((bag - bags.start) * row_bytes);
                shared = self.pool_batch(rows, ahead, position, ends, resumes.then_some(shared), out);
                kept = if self.is_f64() {
                    self.finish_bags(rows, position, ends, closed, kept, out.cast::<f64>(), |n| n as f64)
                } else {
                    self.finish_bags(rows, position, ends, closed, kept, out.cast::<f32>(), |n| n as f32)
                };
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
        if self.kernels.hold(self.dim()) {
            usize::MAX
        } else {
            (BATCH_BYTES / self.call.table.row_bytes()).max(LEAST_BATCH_ROWS)
        }
    }

    /// Pool a batch of rows into the rows of `out` of its bags, strip by strip. `resumed` is the shared sum of the first
    /// bag's earlier rows; gives that of the last bag, if it stays open.
    ///
    /// # Safety
    /// `rows` are offsets of rows of the table; `ends` are those of the bags that hold them, in order; `out` is writable
    /// for `dim` values per bag and unshared; if there is a `resumed`, it holds the accumulators of the first bag's
    /// earlier rows.
    unsafe fn pool_batch(
        &self,
        rows: &[usize],
        ahead: &[usize],
        position: usize,
        ends: &[usize],
        resumed: Option<f32>,
        out: *mut u8,
    ) -> f32 {
        let Kernels { unit_columns, unit_bytes, .. } = self.kernels;
        let table = &self.call.table;
        let value_bytes = value_bytes(table);
        let quantised = table.format.is_quantised();
        let (weights, weight_stride) = match self.call.lookup_weights {
            Some(weights) => (weights.data.wrapping_add(position * value_bytes), 1),
            None => ((&raw const NO_WEIGHT).cast(), 0),
        };
        let open_shared = Cell::new(0.0);
        let mut batch = Batch {
            table: table.data,
            rows,
            ahead,
            position,
            ends,
            weights,
            weight_stride,
            padding: self.padding.map_or(usize::MAX, |row| row * table.row_bytes()),
            last_columns: 0,
            params: 0,
            last_byte: 0,
            // The scale and bias of a quantised row may lie in any line behind the strip's.
            straddles: self.straddles || quantised,
            resumes: resumed.is_some(),
            shared: resumed.unwrap_or(0.0),
            open_shared: &open_shared,
            stride: self.dim(),
        };
        let mut column = 0;
        let mut byte = 0;
        while column < self.dim() {
            let (units, kernel) = self.kernels.widest(self.dim() - column);
            let columns = (self.dim() - column).min(units * unit_columns);
            let end = if quantised { table.row_bytes() - byte } else { columns * table.format.bits() / 8 };
            batch.table = table.data.wrapping_add(byte);
            batch.last_columns = columns - (units - 1) * unit_columns;
            batch.params = table.row_bytes() - table.format.param_bytes() - byte;
            batch.last_byte = end - 1;
            // SAFETY: the tier was chosen among those that the CPU has; columns column..column + columns exist in each
            // row, from `byte` on, and in each row of `out`; scale and bias end a quantised row; weights, where used, are
            // there for each lookup.
            unsafe { kernel(&batch, out.add(column * value_bytes)) };
            column += columns;
            byte += units * unit_bytes;
        }
        open_shared.get()
    }

    /// Turn the accumulators of the first `closed` bags of a batch into results. `kept` rows of the first bag were pooled
    /// before this batch; gives the same count for the bag that stays open.
    ///
    /// # Safety
    /// `out` is writable for `dim` values per bag, initialised and unshared.
    #[allow(clippy::too_many_arguments)] // the state of one loop, which has one caller
    unsafe fn finish_bags<N: Copy + Div<Output = N>>(
        &self,
        rows: &[usize],
        position: usize,
        ends: &[usize],
        closed: usize,
        kept: usize,
        out: *mut N,
        number: impl Fn(usize) -> N,
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
                unsafe { self.finish(out.add(b * self.dim()), kept, &number) };
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
            Some(padding) => rows.iter().filter(|&&offset| offset != padding * self.call.table.row_bytes()).count(),
        }
    }

    /// Turn a bag's accumulators into its result.
    ///
    /// # Safety
    /// `out` is writable for `dim` values, initialised and unshared.
    unsafe fn finish<N: Copy + Div<Output = N>>(&self, out: *mut N, count: usize, number: impl Fn(usize) -> N) {
        // SAFETY: the caller's promise; zero bytes are the zero of f32 and f64.
        unsafe {
            if count == 0 {
                out.write_bytes(0, self.dim());
            } else if self.call.mode == Mode::Mean && count > 1 {
                for column in 0..self.dim() {
                    *out.add(column) = *out.add(column) / number(count);
                }
            }
        }
    }
}

/// The weight of every lookup of a call without weights, over quantised rows.
static NO_WEIGHT: f32 = 1.0;

/// Bytes of a number that sums over `table` are kept in.
fn value_bytes(table: &Table) -> usize {
    if table.format == RowFormat::F64 { size_of::<f64>() } else { size_of::<f32>() }
}

/// A pointer to the result that threads share, each writing rows of its own.
#[derive(Clone, Copy)]
struct Shared(*mut u8);

impl Shared {
    /// The place `bytes` further on. (A closure that calls this holds all of `self`, which may cross threads; one that
    /// takes the pointer out would hold the pointer, which may not.)
    fn at(self, bytes: usize) -> *mut u8 {
        self.0.wrapping_add(bytes)
    }
}

// SAFETY: `Plan::run` hands disjoint rows to its threads.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

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

fn kernels_of(isa: Isa, format: RowFormat, pooling: PoolingKind, exact: bool, skip: bool) -> (Kernels, Rounder) {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => (avx2::kernels(format, pooling, exact, skip), avx2::round_to_half),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => (avx512::kernels(format, pooling, exact, skip), avx2::round_to_half),
        _ => (portable::kernels(format, pooling, exact, skip), portable::round_to_half),
    }
}

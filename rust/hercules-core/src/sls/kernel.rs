//! The one inner loop that every tier runs: pool a run of rows over a strip of columns held in registers.
//!
//! A tier brings a [`Lanes`] type (its vector register) and instantiates [`pool_strip`] inside functions that carry its
//! `#[target_feature]`; everything here is `inline(always)`, so it is compiled with the features of those functions.
//! Each column has one accumulator and rows are added in the order of the lookups, with a separate multiplication and
//! addition. That makes every tier's result bit-equal to the naive loop.

/// Bytes of a cache line.
pub(super) const LINE_BYTES: usize = 64;

/// A vector register of f32 lanes.
///
/// # Safety
/// Every method may be called only on a CPU that has the tier's instructions, with pointers valid for the lanes it
/// touches. Pointers need the alignment of f32 only.
pub(super) trait Lanes: Copy {
    const COUNT: usize;
    unsafe fn splat(x: f32) -> Self;
    unsafe fn load(from: *const f32) -> Self;
    /// Load the first `n` lanes, 1 <= n <= COUNT; the others are zero and their memory is not touched.
    unsafe fn load_first(from: *const f32, n: usize) -> Self;
    unsafe fn store(self, to: *mut f32);
    /// Store the first `n` lanes only, 1 <= n <= COUNT.
    unsafe fn store_first(self, to: *mut f32, n: usize);
    unsafe fn add(self, other: Self) -> Self;
    unsafe fn mul(self, other: Self) -> Self;
    /// `other` where it is larger than `self` or not a number, else `self`.
    unsafe fn max_or_nan(self, other: Self) -> Self;
}

/// How a row joins the accumulator.
pub(super) trait Pooling {
    /// Accumulator of a bag without rows so far.
    const START: f32;
    /// Whether each lookup has a weight.
    const WEIGHTED: bool;
    /// # Safety
    /// As for [`Lanes`].
    unsafe fn fold<L: Lanes>(acc: L, row: L, weight: L) -> L;
}

pub(super) struct Sum;
pub(super) struct WeightedSum;
pub(super) struct Max;

impl Pooling for Sum {
    const START: f32 = 0.0;
    const WEIGHTED: bool = false;
    #[inline(always)]
    unsafe fn fold<L: Lanes>(acc: L, row: L, _: L) -> L {
        // SAFETY: the caller's promise.
        unsafe { acc.add(row) }
    }
}

impl Pooling for WeightedSum {
    const START: f32 = 0.0;
    const WEIGHTED: bool = true;
    #[inline(always)]
    unsafe fn fold<L: Lanes>(acc: L, row: L, weight: L) -> L {
        // SAFETY: the caller's promise.
        unsafe { acc.add(weight.mul(row)) }
    }
}

impl Pooling for Max {
    const START: f32 = f32::NEG_INFINITY;
    const WEIGHTED: bool = false;
    #[inline(always)]
    unsafe fn fold<L: Lanes>(acc: L, row: L, _: L) -> L {
        // SAFETY: the caller's promise.
        unsafe { acc.max_or_nan(row) }
    }
}

/// Consecutive lookups and the bags that they belong to, for one strip of columns.
pub(super) struct Batch<'a> {
    /// First column of the strip in row 0.
    pub table: *const f32,
    /// Offsets of the rows to pool, in elements.
    pub rows: &'a [usize],
    /// Offsets of the rows to prefetch meanwhile: entry `j` while row `j` is pooled. May be shorter than `rows`.
    pub ahead: &'a [usize],
    /// Position of the first lookup among all lookups.
    pub position: usize,
    /// Positions, as above, where the bags end; the last bag may end beyond `rows`.
    pub ends: &'a [usize],
    /// One weight per entry of `rows`; read only by weighted pooling.
    pub weights: *const f32,
    /// Offset of the padding row, which is skipped by the kernels that look at it.
    pub padding: usize,
    /// Columns in the strip's last vector, 1..=COUNT.
    pub last_columns: usize,
    /// Whether rows straddle cache lines, so that a row's last byte lies in one line more.
    pub straddles: bool,
    /// Whether `out` holds the accumulators of earlier rows of the first bag.
    pub resumes: bool,
    /// Elements from one bag's row of `out` to the next.
    pub stride: usize,
}

/// A compiled instance of [`pool_strip`].
///
/// # Safety
/// The CPU has the tier; for each offset in `batch.rows`, the strip's columns can be read from `batch.table + offset`;
/// `out + b * stride` can be written for the strip's columns for each bag `b` in `batch.ends`; `ends` never decrease and
/// none but the last lies beyond `position + rows.len()`; weights are there if the pooling is weighted.
pub(super) type StripKernel = unsafe fn(batch: &Batch, out: *mut f32);

/// The kernels of one tier for one pooling, by number of vectors in the strip (entry 0: one vector).
pub(super) struct Kernels {
    pub lanes: usize,
    pub by_vectors: &'static [StripKernel],
}

/// Pool `batch` over a strip of `V` vectors, the last of which may be partial. `SKIP` looks for the padding row.
///
/// # Safety
/// As [`StripKernel`].
#[inline(always)]
pub(super) unsafe fn pool_strip<L: Lanes, P: Pooling, const V: usize, const SKIP: bool>(batch: &Batch, out: *mut f32) {
    let mut out = out;
    let mut resumes = batch.resumes;
    let mut j = 0;
    for &end in batch.ends {
        let stop = (end - batch.position).min(batch.rows.len());
        // SAFETY: the caller promises that the strip's columns of each row and of `out` are there and that the CPU has
        // the instructions; j < stop <= rows.len(). Prefetches never fault, so they need no promise.
        unsafe {
            let mut acc = [L::splat(P::START); V];
            if resumes {
                for (v, lanes) in acc.iter_mut().enumerate() {
                    *lanes = load_part::<L, V>(out, v, batch.last_columns);
                }
                resumes = false;
            }
            // Two loops, so that the first needs no check whether there is something left to prefetch.
            let hot = stop.min(batch.ahead.len());
            while j < hot {
                prefetch_strip::<L, V>(batch, *batch.ahead.get_unchecked(j));
                fold_row::<L, P, V, SKIP>(&mut acc, batch, j);
                j += 1;
            }
            while j < stop {
                fold_row::<L, P, V, SKIP>(&mut acc, batch, j);
                j += 1;
            }
            for (v, lanes) in acc.iter().enumerate() {
                let to = out.add(v * L::COUNT);
                if v + 1 == V {
                    lanes.store_first(to, batch.last_columns);
                } else {
                    lanes.store(to);
                }
            }
        }
        out = out.wrapping_add(batch.stride);
    }
}

/// # Safety
/// As [`StripKernel`], and `j < batch.rows.len()`.
#[inline(always)]
unsafe fn fold_row<L: Lanes, P: Pooling, const V: usize, const SKIP: bool>(acc: &mut [L; V], batch: &Batch, j: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        let offset = *batch.rows.get_unchecked(j);
        if SKIP && offset == batch.padding {
            return;
        }
        let row = batch.table.add(offset);
        let weight = L::splat(if P::WEIGHTED { batch.weights.add(j).read() } else { 1.0 });
        for (v, lanes) in acc.iter_mut().enumerate() {
            *lanes = P::fold(*lanes, load_part::<L, V>(row, v, batch.last_columns), weight);
        }
    }
}

/// Vector `v` of the `V` that start at `from`; the last one is loaded in part.
///
/// # Safety
/// As [`Lanes`].
#[inline(always)]
unsafe fn load_part<L: Lanes, const V: usize>(from: *const f32, v: usize, last_columns: usize) -> L {
    // SAFETY: the caller's promise.
    unsafe {
        let from = from.add(v * L::COUNT);
        if v + 1 == V { L::load_first(from, last_columns) } else { L::load(from) }
    }
}

/// Ask for the cache lines of the strip in the row at `offset`.
#[inline(always)]
fn prefetch_strip<L: Lanes, const V: usize>(batch: &Batch, offset: usize) {
    let strip = batch.table.wrapping_add(offset);
    let whole = V * L::COUNT * size_of::<f32>(); // known at compile time, so the loop is unrolled
    for line in 0..whole.div_ceil(LINE_BYTES) {
        prefetch(strip.wrapping_byte_add(line * LINE_BYTES));
    }
    if batch.straddles {
        prefetch(strip.wrapping_add((V - 1) * L::COUNT + batch.last_columns - 1));
    }
}

/// Ask for all cache lines of `bytes` bytes at `from`.
#[inline]
pub(super) fn prefetch_bytes(from: *const f32, bytes: usize, straddles: bool) {
    for line in 0..bytes.div_ceil(LINE_BYTES) {
        prefetch(from.wrapping_byte_add(line * LINE_BYTES));
    }
    if straddles {
        prefetch(from.wrapping_byte_add(bytes.wrapping_sub(1)));
    }
}

#[inline(always)]
fn prefetch(at: *const f32) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch is a hint: it reads nothing and faults for no address. SSE is part of x86-64.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(at.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// Which instance of [`Pooling`] a call needs, as a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PoolingKind {
    Sum,
    WeightedSum,
    Max,
}

/// Define a tier's `kernels` function from its `strip` function: one table per pooling, one entry per strip width.
macro_rules! define_kernels {
    ($lanes:ty; $($v:literal)+) => {
        /// The kernels for `pooling`, with or without the check for the padding row.
        pub(super) fn kernels(pooling: $crate::sls::kernel::PoolingKind, skip: bool) -> $crate::sls::kernel::Kernels {
            use $crate::sls::kernel::{Kernels, Max, PoolingKind, StripKernel, Sum, WeightedSum};
            let by_vectors: &'static [StripKernel] = match (pooling, skip) {
                (PoolingKind::Sum, false) => &[$(strip::<Sum, $v, false>),+],
                (PoolingKind::Sum, true) => &[$(strip::<Sum, $v, true>),+],
                (PoolingKind::WeightedSum, false) => &[$(strip::<WeightedSum, $v, false>),+],
                (PoolingKind::WeightedSum, true) => &[$(strip::<WeightedSum, $v, true>),+],
                (PoolingKind::Max, false) => &[$(strip::<Max, $v, false>),+],
                (PoolingKind::Max, true) => &[$(strip::<Max, $v, true>),+],
            };
            Kernels { lanes: <$lanes>::COUNT, by_vectors }
        }
    };
}
pub(super) use define_kernels;

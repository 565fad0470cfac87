//! The one inner loop that every tier and row format runs: pool a run of rows over a strip of columns in registers.
//!
//! A tier brings a [`Lanes`] type (its vector register) and instantiates [`pool_strip`] inside functions that carry its
//! `#[target_feature]`; everything here is `inline(always)`, so it is compiled with the features of those functions.
//! What one lookup adds to the registers is a [`Fold`]: see [`super::fold`].

use std::cell::Cell;
use std::ptr::{with_exposed_provenance, without_provenance};

/// Bytes of a cache line.
pub(super) const LINE_BYTES: usize = 64;

/// A type that sums are kept in.
pub(super) trait Number: Copy {
    const ZERO: Self;
    const ONE: Self;
    const LEAST: Self;
}

impl Number for f32 {
    const ZERO: Self = 0.0;
    const ONE: Self = 1.0;
    const LEAST: Self = Self::NEG_INFINITY;
}

impl Number for f64 {
    const ZERO: Self = 0.0;
    const ONE: Self = 1.0;
    const LEAST: Self = Self::NEG_INFINITY;
}

/// A vector register of floating-point lanes.
///
/// # Safety
/// Every method may be called only on a CPU that has the tier's instructions, with pointers valid for the lanes it
/// touches. Pointers need the alignment of a lane only.
pub(super) trait Lanes: Copy {
    type Number: Number;
    const COUNT: usize;
    unsafe fn splat(x: Self::Number) -> Self;
    unsafe fn load(from: *const Self::Number) -> Self;
    /// Load the first `n` lanes, 1 <= n <= COUNT; the others are zero and their memory is not touched.
    unsafe fn load_first(from: *const Self::Number, n: usize) -> Self;
    unsafe fn store(self, to: *mut Self::Number);
    /// Store the first `n` lanes only, 1 <= n <= COUNT.
    unsafe fn store_first(self, to: *mut Self::Number, n: usize);
    unsafe fn add(self, other: Self) -> Self;
    unsafe fn mul(self, other: Self) -> Self;
    /// `other` where it is larger than `self` or not a number, else `self`.
    unsafe fn max_or_nan(self, other: Self) -> Self;
}

/// Lanes of f32 that also read narrower formats.
///
/// # Safety
/// As [`Lanes`]; pointers here need no alignment.
pub(super) trait NarrowLanes: Lanes<Number = f32> {
    /// COUNT bytes, each widened to the size of a lane.
    type Codes: Copy;
    /// `self * factor + addend`, rounded once.
    unsafe fn mul_add(self, factor: Self, addend: Self) -> Self;
    unsafe fn load_half(from: *const u8) -> Self;
    /// As [`Lanes::load_first`].
    unsafe fn load_half_first(from: *const u8, n: usize) -> Self;
    unsafe fn load_brain(from: *const u8) -> Self;
    /// As [`Lanes::load_first`].
    unsafe fn load_brain_first(from: *const u8, n: usize) -> Self;
    unsafe fn load_codes(from: *const u8) -> Self::Codes;
    /// As [`Lanes::load_first`].
    unsafe fn load_codes_first(from: *const u8, n: usize) -> Self::Codes;
    /// The whole numbers in bits `SHIFT..SHIFT + BITS` of the bytes.
    unsafe fn decode<const SHIFT: u32, const BITS: u32>(codes: Self::Codes) -> Self;
    /// What [`NarrowLanes::add_steps`] needs to know of a scale.
    unsafe fn steps<const BITS: u32>(scale: f32) -> Self;
    /// `self + decode(codes) * scale` with one rounding or two, whichever is faster.
    unsafe fn add_steps<const SHIFT: u32, const BITS: u32>(self, codes: Self::Codes, steps: Self) -> Self;
    /// Lanes of both in turn: `self[0], other[0], self[1], other[1], ...`, in two registers.
    unsafe fn interleave(self, other: Self) -> (Self, Self);
    /// Two neighbouring halves: the scale and the bias of a row.
    unsafe fn two_halves(from: *const u8) -> (f32, f32);
}

/// The registers that one load of a row fills: several where a byte holds several columns.
pub(super) trait Unit<L: Lanes>: Copy {
    const VECTORS: usize;
    fn splat(lanes: L) -> Self;
    fn vectors(&self) -> &[L];
    fn vectors_mut(&mut self) -> &mut [L];
}

impl<L: Lanes, const N: usize> Unit<L> for [L; N] {
    const VECTORS: usize = N;
    #[inline(always)]
    fn splat(lanes: L) -> Self {
        [lanes; N]
    }
    #[inline(always)]
    fn vectors(&self) -> &[L] {
        self
    }
    #[inline(always)]
    fn vectors_mut(&mut self) -> &mut [L] {
        self
    }
}

/// What a lookup does to the accumulators of its bag.
///
/// Column `c` of a unit of `n` vectors is lane `c / n` of vector `c % n`.
///
/// # Safety
/// As [`Lanes`] for all methods.
pub(super) trait Fold<L: Lanes>: Copy {
    type Unit: Unit<L>;
    /// Accumulator of a bag without rows so far.
    const START: L::Number;
    /// Bytes of a unit's columns in a row.
    const UNIT_BYTES: usize;
    const UNIT_COLUMNS: usize = L::COUNT * Self::Unit::VECTORS;
    /// What lookup `j` of the batch needs beside its columns: its weight, or the scale and bias of its row, whose
    /// columns of the strip start at `row`.
    unsafe fn open(batch: &Batch, row: *const u8, j: usize) -> Self;
    /// Add a unit of columns that start at `from`.
    unsafe fn fold(self, acc: &mut Self::Unit, from: *const u8);
    /// As `fold` for the first `columns` columns of a unit; memory behind them is not touched.
    unsafe fn fold_first(self, acc: &mut Self::Unit, from: *const u8, columns: usize);
    /// What the lookup adds to all columns alike.
    fn shared(self) -> f32;
    /// An accumulator with the bag's sum of [`Fold::shared`] added and its columns in order.
    unsafe fn close(acc: Self::Unit, shared: f32) -> Self::Unit;
}

/// Consecutive lookups and the bags that they belong to, for one strip of columns.
pub(super) struct Batch<'a> {
    /// Addresses of the rows to pool, exposed by their table, or `skipped`.
    pub rows: &'a [usize],
    /// Addresses of the rows to prefetch meanwhile: entry `j` while row `j` is pooled. May be shorter than `rows`.
    pub ahead: &'a [usize],
    /// Bytes from the start of a row to the strip's first column.
    pub first_byte: usize,
    /// Position of the first lookup among all lookups.
    pub position: usize,
    /// Positions, as above, where the bags end; the last bag may end beyond `rows`.
    pub ends: &'a [usize],
    /// One weight per entry of `rows`, or one for all if `weight_stride` is 0; of the accumulators' type.
    pub weights: *const u8,
    /// Weights from one lookup's to the next: 0 or 1.
    pub weight_stride: usize,
    /// What stands for a row that the kernels that look for it skip.
    pub skipped: usize,
    /// Columns in the strip's last unit, at least 1.
    pub last_columns: usize,
    /// Bytes from the strip's first column to the scale and bias of a quantised row.
    pub params: usize,
    /// Bytes from the strip's first column to the last byte that it needs of a row.
    pub last_byte: usize,
    /// Whether that byte may lie in a cache line that the strip's own lines do not reach.
    pub straddles: bool,
    /// Whether `out` holds the accumulators of earlier rows of the first bag.
    pub resumes: bool,
    /// In that case, their sum of [`Fold::shared`].
    pub shared: f32,
    /// Where to leave that sum for the last bag, if it stays open.
    pub open_shared: &'a Cell<f32>,
    /// Values from one bag's row of `out` to the next.
    pub stride: usize,
}

/// A compiled instance of [`pool_strip`].
///
/// # Safety
/// The CPU has the tier; for each address in `batch.rows` but `skipped` (which is there only where the kernel looks for
/// it), the strip's columns can be read `first_byte` bytes further on, and the scale and bias from `params` bytes beyond
/// that if rows are quantised; `out + b * stride` can be written for the
/// strip's columns for each bag `b` in `batch.ends`; `ends` never decrease and none but the last lies beyond `position +
/// rows.len()`; weights are there for each lookup. `out` points to the fold's numbers.
pub(super) type StripKernel = unsafe fn(batch: &Batch, out: *mut u8);

/// Round `n` values of f32 to halves, ties to even.
///
/// # Safety
/// The CPU has the tier, `from` can be read and `to` written for `n` values, and they do not overlap.
pub(super) type Rounder = unsafe fn(from: *const f32, to: *mut u16, n: usize);

/// The kernels of one tier for one row format and one pooling.
#[derive(Clone, Copy)]
pub(super) struct Kernels {
    /// Columns and bytes of a unit.
    pub unit_columns: usize,
    pub unit_bytes: usize,
    /// Kernels with the number of units of their strip, ascending from 1. Not every number is there: a row of another
    /// width is pooled in several strips.
    pub by_units: &'static [(usize, StripKernel)],
}

impl Kernels {
    /// The widest kernel for a row, or rest of a row, of `columns` columns (at least one).
    pub fn widest(&self, columns: usize) -> (usize, StripKernel) {
        let units = columns.div_ceil(self.unit_columns);
        let fitting = self.by_units.partition_point(|&(width, _)| width <= units);
        self.by_units[fitting - 1]
    }

    /// Whether one strip holds a row of `dim` columns.
    pub fn hold(&self, dim: usize) -> bool {
        dim == 0 || self.widest(dim).0 * self.unit_columns >= dim
    }
}

/// Pool `batch` over a strip of `U` units, the last of which may be partial. `SKIP` looks for the padding row.
///
/// # Safety
/// As [`StripKernel`].
#[inline(always)]
pub(super) unsafe fn pool_strip<L: Lanes, F: Fold<L>, const U: usize, const SKIP: bool>(batch: &Batch, out: *mut u8) {
    let mut out = out.cast::<L::Number>();
    let mut resumes = batch.resumes;
    let mut j = 0;
    for &end in batch.ends {
        let stop = (end - batch.position).min(batch.rows.len());
        // SAFETY: the caller promises that the strip's columns of each row and of `out` are there and that the CPU has
        // the instructions; j < stop <= rows.len(). Prefetches never fault, so they need no promise.
        unsafe {
            let mut acc = [F::Unit::splat(L::splat(F::START)); U];
            let mut shared = 0.0;
            if resumes {
                each_vector::<L, F, U>(batch.last_columns, |u, v, at, n| {
                    acc[u].vectors_mut()[v] = L::load_first(out.add(at), n);
                });
                shared = batch.shared;
                resumes = false;
            }
            // Two loops, so that the first needs no check whether there is something left to prefetch.
            let hot = stop.min(batch.ahead.len());
            while j < hot {
                prefetch_strip::<L, F, U>(batch, *batch.ahead.get_unchecked(j));
                shared += fold_row::<L, F, U, SKIP>(&mut acc, batch, j);
                j += 1;
            }
            while j < stop {
                shared += fold_row::<L, F, U, SKIP>(&mut acc, batch, j);
                j += 1;
            }
            if end - batch.position <= batch.rows.len() {
                store::<L, F, U>(&acc, shared, out, batch.last_columns);
            } else {
                each_vector::<L, F, U>(batch.last_columns, |u, v, at, n| {
                    acc[u].vectors()[v].store_first(out.add(at), n);
                });
                batch.open_shared.set(shared);
            }
        }
        out = out.wrapping_add(batch.stride);
    }
}

/// Call `visit(unit, vector, at, n)` for the accumulators of an unfinished bag, which are kept in `out` as they stand:
/// the `n` lanes of the vector that hold columns go to the `n` places from `at` on.
#[inline(always)]
fn each_vector<L: Lanes, F: Fold<L>, const U: usize>(
    last_columns: usize,
    mut visit: impl FnMut(usize, usize, usize, usize),
) {
    let vectors = F::Unit::VECTORS;
    let mut at = 0;
    for u in 0..U {
        let columns = if u + 1 == U { last_columns } else { F::UNIT_COLUMNS };
        for v in 0..vectors {
            let n = (columns + vectors - 1 - v) / vectors;
            if n > 0 {
                visit(u, v, at, n);
            }
            at += n;
        }
    }
}

/// Write the result of a finished bag.
///
/// # Safety
/// As [`StripKernel`].
#[inline(always)]
unsafe fn store<L: Lanes, F: Fold<L>, const U: usize>(
    acc: &[F::Unit; U],
    shared: f32,
    out: *mut L::Number,
    last_columns: usize,
) {
    for (u, unit) in acc.iter().enumerate() {
        // SAFETY: the caller's promise.
        unsafe {
            let closed = F::close(*unit, shared);
            for (v, lanes) in closed.vectors().iter().enumerate() {
                let first = v * L::COUNT;
                let to = out.add(u * F::UNIT_COLUMNS + first);
                if u + 1 < U {
                    lanes.store(to);
                } else if first < last_columns {
                    lanes.store_first(to, (last_columns - first).min(L::COUNT));
                }
            }
        }
    }
}

/// # Safety
/// As [`StripKernel`], and `j < batch.rows.len()`.
#[inline(always)]
unsafe fn fold_row<L: Lanes, F: Fold<L>, const U: usize, const SKIP: bool>(
    acc: &mut [F::Unit; U],
    batch: &Batch,
    j: usize,
) -> f32 {
    // SAFETY: the caller's promise.
    unsafe {
        let address = *batch.rows.get_unchecked(j);
        if SKIP && address == batch.skipped {
            return 0.0;
        }
        let row = with_exposed_provenance::<u8>(address).add(batch.first_byte);
        let fold = F::open(batch, row, j);
        // The last unit stands apart to keep the loop's body small: only an unrolled loop leaves `acc` in registers.
        for (u, unit) in acc[..U - 1].iter_mut().enumerate() {
            fold.fold(unit, row.add(u * F::UNIT_BYTES));
        }
        fold.fold_first(&mut acc[U - 1], row.add((U - 1) * F::UNIT_BYTES), batch.last_columns);
        fold.shared()
    }
}

/// Ask for the cache lines of the strip in the row at `address`.
#[inline(always)]
fn prefetch_strip<L: Lanes, F: Fold<L>, const U: usize>(batch: &Batch, address: usize) {
    let strip = address.wrapping_add(batch.first_byte);
    let whole = U * F::UNIT_BYTES; // known at compile time, so the loop is unrolled
    for line in 0..whole.div_ceil(LINE_BYTES) {
        prefetch(strip.wrapping_add(line * LINE_BYTES));
    }
    if batch.straddles {
        prefetch(strip.wrapping_add(batch.last_byte));
    }
}

/// Ask for all cache lines of `bytes` bytes at `from`.
#[inline]
pub(super) fn prefetch_bytes(from: usize, bytes: usize, straddles: bool) {
    for line in 0..bytes.div_ceil(LINE_BYTES) {
        prefetch(from.wrapping_add(line * LINE_BYTES));
    }
    if straddles {
        prefetch(from.wrapping_add(bytes.wrapping_sub(1)));
    }
}

#[inline(always)]
fn prefetch(address: usize) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch is a hint: it reads nothing and faults for no address. SSE is part of x86-64.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(without_provenance(address));
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

/// Read 1 to 16 bytes, no others: the byte at `from` becomes the lowest. For tails where a tier has no masked load.
///
/// # Safety
/// `from` can be read for `n` bytes, 1 <= n <= 16.
#[inline(always)]
pub(super) unsafe fn read_first(from: *const u8, n: usize) -> u128 {
    // SAFETY: each arm reads within the first `n` bytes. Two reads that overlap agree where they do.
    unsafe {
        match n {
            8.. => {
                let low = u128::from(from.cast::<u64>().read_unaligned());
                low | u128::from(from.add(n - 8).cast::<u64>().read_unaligned()) << (8 * (n - 8))
            }
            4.. => {
                let low = u128::from(from.cast::<u32>().read_unaligned());
                low | u128::from(from.add(n - 4).cast::<u32>().read_unaligned()) << (8 * (n - 4))
            }
            2.. => {
                let low = u128::from(from.cast::<u16>().read_unaligned());
                low | u128::from(from.add(n - 2).cast::<u16>().read_unaligned()) << (8 * (n - 2))
            }
            _ => u128::from(from.read()),
        }
    }
}

/// How rows become one, as far as kernels differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PoolingKind {
    Sum,
    WeightedSum,
    Max,
}

/// Define a tier's `kernels` function from its `strip` function: one table per format and pooling, one entry per width.
/// Widths are in units, so that each list ends at the registers a strip may fill. (Each entry is a function to compile:
/// the lists leave out what embedding tables are rarely wide.)
macro_rules! define_kernels {
    ($lanes:ty, $doubles:ty; f32: $($f32:literal)+; f64: $($f64:literal)+; bytes: $($byte:literal)+;
     int4: $($int4:literal)+; int2: $($int2:literal)+) => {
        /// The kernels for `pooling` over rows of `format`; `exact` asks for the order of a fused multiply-add per row,
        /// `skip` for the check for the padding row. Where rows are short next to the check it is compiled in or out;
        /// elsewhere it is always there.
        pub(super) fn kernels(
            format: $crate::sls::format::RowFormat,
            pooling: $crate::sls::kernel::PoolingKind,
            exact: bool,
            skip: bool,
        ) -> $crate::sls::kernel::Kernels {
            use $crate::sls::fold::{
                Brain, Exact, Half, Int2, Int4, Int8, Largest, Max, Native, Plain, Quick, Sum, WeightedSum,
            };
            use $crate::sls::format::RowFormat::{Bf16, F16, F32, F64, Int2 as I2, Int4 as I4, Int8 as I8};
            use $crate::sls::kernel::{Fold, Kernels, PoolingKind as Kind};
            macro_rules! table {
                ($l:ty, $f:ty, $n:tt) => {
                    Kernels {
                        unit_columns: <$f as Fold<$l>>::UNIT_COLUMNS,
                        unit_bytes: <$f as Fold<$l>>::UNIT_BYTES,
                        by_units: table!(@ $l, $f, $n),
                    }
                };
                (@ $l:ty, $f:ty, skip_f32) => {
                    if skip { &[$(($f32, strip::<$l, $f, $f32, true>)),+] } else { &[$(($f32, strip::<$l, $f, $f32, false>)),+] }
                };
                (@ $l:ty, $f:ty, skip_bytes) => {
                    if skip { &[$(($byte, strip::<$l, $f, $byte, true>)),+] } else { &[$(($byte, strip::<$l, $f, $byte, false>)),+] }
                };
                (@ $l:ty, $f:ty, skip_int4) => {
                    if skip { &[$(($int4, strip::<$l, $f, $int4, true>)),+] } else { &[$(($int4, strip::<$l, $f, $int4, false>)),+] }
                };
                (@ $l:ty, $f:ty, skip_int2) => {
                    if skip { &[$(($int2, strip::<$l, $f, $int2, true>)),+] } else { &[$(($int2, strip::<$l, $f, $int2, false>)),+] }
                };
                (@ $l:ty, $f:ty, f64) => { &[$(($f64, strip::<$l, $f, $f64, true>)),+] };
                (@ $l:ty, $f:ty, bytes) => { &[$(($byte, strip::<$l, $f, $byte, true>)),+] };
                (@ $l:ty, $f:ty, int4) => { &[$(($int4, strip::<$l, $f, $int4, true>)),+] };
                (@ $l:ty, $f:ty, int2) => { &[$(($int2, strip::<$l, $f, $int2, true>)),+] };
            }
            match (format, pooling) {
                (F32, Kind::Sum) => table!($lanes, Plain<$lanes, Native, Sum>, skip_f32),
                (F32, Kind::WeightedSum) => table!($lanes, Plain<$lanes, Native, WeightedSum>, skip_f32),
                (F32, Kind::Max) => table!($lanes, Plain<$lanes, Native, Max>, skip_f32),
                (F64, Kind::Sum) => table!($doubles, Plain<$doubles, Native, Sum>, f64),
                (F64, Kind::WeightedSum) => table!($doubles, Plain<$doubles, Native, WeightedSum>, f64),
                (F64, Kind::Max) => table!($doubles, Plain<$doubles, Native, Max>, f64),
                (F16, Kind::Sum) => table!($lanes, Plain<$lanes, Half, Sum>, skip_bytes),
                (F16, Kind::WeightedSum) => table!($lanes, Plain<$lanes, Half, WeightedSum>, skip_bytes),
                (F16, Kind::Max) => table!($lanes, Plain<$lanes, Half, Max>, skip_bytes),
                (Bf16, Kind::Sum) => table!($lanes, Plain<$lanes, Brain, Sum>, skip_bytes),
                (Bf16, Kind::WeightedSum) => table!($lanes, Plain<$lanes, Brain, WeightedSum>, skip_bytes),
                (Bf16, Kind::Max) => table!($lanes, Plain<$lanes, Brain, Max>, skip_bytes),
                (I8, Kind::Max) => table!($lanes, Largest<$lanes, Int8>, bytes),
                (I4, Kind::Max) => table!($lanes, Largest<$lanes, Int4>, int4),
                (I2, Kind::Max) => table!($lanes, Largest<$lanes, Int2>, int2),
                (I8, _) if exact => table!($lanes, Exact<$lanes, Int8>, bytes),
                (I4, _) if exact => table!($lanes, Exact<$lanes, Int4>, int4),
                (I2, _) if exact => table!($lanes, Exact<$lanes, Int2>, int2),
                (I8, Kind::Sum) => table!($lanes, Quick<$lanes, Int8, false>, skip_bytes),
                (I8, Kind::WeightedSum) => table!($lanes, Quick<$lanes, Int8, true>, bytes),
                (I4, Kind::Sum) => table!($lanes, Quick<$lanes, Int4, false>, skip_int4),
                (I4, Kind::WeightedSum) => table!($lanes, Quick<$lanes, Int4, true>, int4),
                (I2, Kind::Sum) => table!($lanes, Quick<$lanes, Int2, false>, skip_int2),
                (I2, Kind::WeightedSum) => table!($lanes, Quick<$lanes, Int2, true>, int2),
            }
        }
    };
}
pub(super) use define_kernels;

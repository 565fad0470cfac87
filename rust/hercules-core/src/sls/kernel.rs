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
    /// Lanes of both in turn: `self[0], other[0], self[1], other[1], ...`, in two registers.
    unsafe fn interleave(self, other: Self) -> (Self, Self);
}

/// Lanes of f32 that also read narrower formats.
///
/// # Safety
/// As [`Lanes`]; pointers here need no alignment.
pub(super) trait NarrowLanes: Lanes<Number = f32> {
    /// COUNT lanes of 32 bits.
    type Codes: Copy;
    /// `self * factor + addend`, rounded once.
    unsafe fn mul_add(self, factor: Self, addend: Self) -> Self;
    /// `other` where it is larger than `self`, else `self`; `other` is a number.
    unsafe fn max_of_numbers(self, other: Self) -> Self;
    unsafe fn load_half(from: *const u8) -> Self;
    /// As [`Lanes::load_first`].
    unsafe fn load_half_first(from: *const u8, n: usize) -> Self;
    /// `BYTES` bytes to each lane: 1, 2 or 4, of which a tier has those that its kernels use.
    unsafe fn load_codes<const BYTES: usize>(from: *const u8) -> Self::Codes;
    /// As [`NarrowLanes::load_codes`] for the first `bytes` bytes, at least one; the others are zero and their memory is
    /// not touched.
    unsafe fn load_codes_first<const BYTES: usize>(from: *const u8, bytes: usize) -> Self::Codes;
    /// Each lane without its lowest `BITS` bits.
    unsafe fn next_codes<const BITS: u32>(codes: Self::Codes) -> Self::Codes;
    /// The whole number in the lowest `BITS` bits of each lane; `rest` says whether others may be set.
    unsafe fn decode<const BITS: u32>(codes: Self::Codes, rest: bool) -> Self;
    /// What [`NarrowLanes::value`] needs to know of a row.
    #[inline(always)]
    unsafe fn values<const BITS: u32>(scale: f32, bias: f32) -> [Self; 2] {
        // SAFETY: the caller's promise.
        unsafe { [Self::splat(scale), Self::splat(bias)] }
    }
    /// `decode(codes) * scale + bias`, rounded once.
    #[inline(always)]
    unsafe fn value<const BITS: u32>(codes: Self::Codes, rest: bool, values: [Self; 2]) -> Self {
        // SAFETY: the caller's promise.
        unsafe { Self::decode::<BITS>(codes, rest).mul_add(values[0], values[1]) }
    }
    /// What [`NarrowLanes::add_steps`] needs to know of a scale.
    unsafe fn steps<const BITS: u32>(scale: f32) -> Self;
    /// `self + decode(codes) * scale` with one rounding or two, whichever is faster.
    unsafe fn add_steps<const BITS: u32>(self, codes: Self::Codes, rest: bool, steps: Self) -> Self;
    /// The lower and the upper bfloat16 of each lane.
    unsafe fn split_brains(codes: Self::Codes) -> [Self; 2];
    /// Two neighbouring halves: the scale and the bias of a row.
    unsafe fn two_halves(from: *const u8) -> (f32, f32);
    /// The same as floats.
    #[inline(always)]
    unsafe fn two_floats(from: *const u8) -> (f32, f32) {
        // SAFETY: the caller's promise.
        unsafe { (from.cast::<f32>().read_unaligned(), from.cast::<f32>().add(1).read_unaligned()) }
    }
}

/// Lanes that read codes where they stand.
///
/// # Safety
/// As [`Lanes`].
pub(super) trait PlacedLanes: NarrowLanes {
    /// `self + (codes & mask) * scale`, rounded once; lanes of codes are whole numbers without a sign.
    unsafe fn add_placed(self, codes: Self::Codes, mask: u32, scale: Self) -> Self;
}

/// The registers that one load of a row fills: several where a lane gets several columns.
///
/// Column `c` of a unit of `n` vectors is lane `c / n` of vector `c % n`.
pub(super) trait Unit<L: Lanes>: Copy {
    const VECTORS: usize;
    fn splat(lanes: L) -> Self;
    fn vectors(&self) -> &[L];
    fn vectors_mut(&mut self) -> &mut [L];
    /// Column `c` moved to lane `c % COUNT` of vector `c / COUNT`.
    ///
    /// # Safety
    /// As [`Lanes`].
    unsafe fn in_order(self) -> Self;
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
    #[inline(always)]
    unsafe fn in_order(self) -> Self {
        // Each round of a perfect shuffle halves the distance between neighbouring columns.
        let mut unit = self;
        let mut distance = N;
        while distance > 1 {
            let before = unit;
            for i in 0..N / 2 {
                // SAFETY: the caller's promise.
                (unit[2 * i], unit[2 * i + 1]) = unsafe { before[i].interleave(before[i + N / 2]) };
            }
            distance /= 2;
        }
        unit
    }
}

/// What a lookup does to the accumulators of its bag.
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
    /// Positions, as above, where the bags end: at least that of the bag that holds the last of `rows`, perhaps more.
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
    /// Sum of [`Fold::shared`] over earlier rows of the first bag, if there are any: `out` holds its accumulators.
    pub resumed: Option<f32>,
    /// Where to leave that sum for the bag that stays open, if there is one.
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
/// strip's columns for each bag `b` in `batch.ends`; `ends` never decrease; weights are there for each lookup. `out` points
/// to the fold's numbers.
pub(super) type StripKernel = unsafe fn(batch: &Batch, out: *mut u8) -> usize;

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
    pub fn of<L: Lanes, F: Fold<L>>(by_units: &'static [(usize, StripKernel)]) -> Self {
        Self { unit_columns: F::UNIT_COLUMNS, unit_bytes: F::UNIT_BYTES, by_units }
    }

    /// The first of `choices` whose strips hold a row of `dim` columns, else the last.
    pub fn fitting(dim: usize, choices: &[Self]) -> Self {
        let last = choices.len() - 1;
        choices[choices[..last].iter().position(|kernels| kernels.hold(dim)).unwrap_or(last)]
    }

    /// The widest kernel for a row, or rest of a row, of `columns` columns (at least one).
    pub fn widest(&self, columns: usize) -> (usize, StripKernel) {
        let units = columns.div_ceil(self.unit_columns);
        let fitting = self.by_units.partition_point(|&(width, _)| width <= units);
        self.by_units[fitting - 1]
    }

    /// Whether one strip holds a row of `dim` columns.
    pub fn hold(&self, dim: usize) -> bool {
        self.by_units.last().is_some_and(|(units, _)| units * self.unit_columns >= dim)
    }
}

/// Pool `batch` over a strip of `U` units, the last of which may be partial. `SKIP` looks for rows to skip. Gives the
/// number of bags that ended within the rows; the one after them may have begun.
///
/// # Safety
/// As [`StripKernel`].
#[inline(always)]
pub(super) unsafe fn pool_strip<L: Lanes, F: Fold<L>, const U: usize, const SKIP: bool>(
    batch: &Batch,
    out: *mut u8,
) -> usize {
    let mut out = out.cast::<L::Number>();
    let rows = batch.rows.len();
    let mut resumed = batch.resumed;
    let mut j = 0;
    for (bag, &end) in batch.ends.iter().enumerate() {
        let end = end - batch.position;
        if end > rows && j == rows {
            return bag; // nothing of it is here
        }
        let stop = end.min(rows);
        // SAFETY: the caller promises that the strip's columns of each row and of `out` are there and that the CPU has
        // the instructions; j < stop <= rows. Prefetches never fault, so they need no promise.
        unsafe {
            let mut acc = [F::Unit::splat(L::splat(F::START)); U];
            let mut shared = 0.0;
            if let Some(before) = resumed.take() {
                each_vector::<L, F, U>(batch.last_columns, |u, v, at, n| {
                    acc[u].vectors_mut()[v] = L::load_first(out.add(at), n);
                });
                shared = before;
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
            if end > rows {
                each_vector::<L, F, U>(batch.last_columns, |u, v, at, n| {
                    acc[u].vectors()[v].store_first(out.add(at), n);
                });
                batch.open_shared.set(shared);
                return bag;
            }
            store::<L, F, U>(&acc, shared, out, batch.last_columns);
        }
        out = out.wrapping_add(batch.stride);
    }
    batch.ends.len()
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
/// the lists leave out what embedding tables are rarely wide.) Codes may come by several numbers of bytes to a lane: the
/// first with a strip that holds the row is taken, else the last.
macro_rules! define_kernels {
    ($lanes:ty, $doubles:ty; f32: $($f32:literal)+; f64: $($f64:literal)+; f16: $($f16:literal)+; bf16: $($bf16:literal)+;
     int8: $($byte8:literal => $($int8:literal)+),+; int4: $nibbles:ident $($byte4:literal => $($int4:literal)+),+;
     int2: $($byte2:literal => $($int2:literal)+),+) => {
        /// The kernels for `pooling` over rows of `dim` columns of `format`; `exact` asks for the order of a fused
        /// multiply-add per row, `skip` for the check for rows to skip. Where rows are short next to the check it is
        /// compiled in or out; elsewhere it is always there.
        pub(super) fn kernels(
            format: $crate::sls::format::RowFormat,
            dim: usize,
            pooling: $crate::sls::kernel::PoolingKind,
            exact: bool,
            skip: bool,
        ) -> $crate::sls::kernel::Kernels {
            use $crate::sls::fold::{
                Brain, Each, Exact, Half, Largest, Max, Native, Packed, Plain, Quick, Sum, WeightedSum,
            };
            use $crate::sls::format::RowFormat::{Bf16, F16, F32, F64, Int2, Int4, Int8};
            use $crate::sls::kernel::{Kernels, PoolingKind as Kind};
            use $crate::sls::kernel::{either, strips};
            match (format, pooling) {
                (F32, Kind::Sum) => either!(skip, $lanes, Plain<$lanes, Native, Sum>; $($f32)+),
                (F32, Kind::WeightedSum) => either!(skip, $lanes, Plain<$lanes, Native, WeightedSum>; $($f32)+),
                (F32, Kind::Max) => either!(skip, $lanes, Plain<$lanes, Native, Max>; $($f32)+),
                (F64, Kind::Sum) => strips!(true, $doubles, Plain<$doubles, Native, Sum>; $($f64)+),
                (F64, Kind::WeightedSum) => strips!(true, $doubles, Plain<$doubles, Native, WeightedSum>; $($f64)+),
                (F64, Kind::Max) => strips!(true, $doubles, Plain<$doubles, Native, Max>; $($f64)+),
                (F16, Kind::Sum) => either!(skip, $lanes, Plain<$lanes, Half, Sum>; $($f16)+),
                (F16, Kind::WeightedSum) => either!(skip, $lanes, Plain<$lanes, Half, WeightedSum>; $($f16)+),
                (F16, Kind::Max) => either!(skip, $lanes, Plain<$lanes, Half, Max>; $($f16)+),
                (Bf16, Kind::Sum) => either!(skip, $lanes, Plain<$lanes, Brain, Sum>; $($bf16)+),
                (Bf16, Kind::WeightedSum) => either!(skip, $lanes, Plain<$lanes, Brain, WeightedSum>; $($bf16)+),
                (Bf16, Kind::Max) => either!(skip, $lanes, Plain<$lanes, Brain, Max>; $($bf16)+),
                (Int8, Kind::Max) => Kernels::fitting(dim, &[
                    $(strips!(true, $lanes, Each<Packed<8, $byte8>, Largest<$lanes>>; $($int8)+)),+
                ]),
                (Int4, Kind::Max) => Kernels::fitting(dim, &[
                    $(strips!(true, $lanes, Each<Packed<4, $byte4>, Largest<$lanes>>; $($int4)+)),+
                ]),
                (Int2, Kind::Max) => Kernels::fitting(dim, &[
                    $(strips!(true, $lanes, Each<Packed<2, $byte2>, Largest<$lanes>>; $($int2)+)),+
                ]),
                (Int8, _) if exact => Kernels::fitting(dim, &[
                    $(strips!(true, $lanes, Each<Packed<8, $byte8>, Exact<$lanes>>; $($int8)+)),+
                ]),
                (Int4, _) if exact => Kernels::fitting(dim, &[
                    $(strips!(true, $lanes, Each<Packed<4, $byte4>, Exact<$lanes>>; $($int4)+)),+
                ]),
                (Int2, _) if exact => Kernels::fitting(dim, &[
                    $(strips!(true, $lanes, Each<Packed<2, $byte2>, Exact<$lanes>>; $($int2)+)),+
                ]),
                (Int8, Kind::Sum) => Kernels::fitting(dim, &[
                    $(either!(skip, $lanes, Quick<$lanes, Packed<8, $byte8>, false>; $($int8)+)),+
                ]),
                (Int4, Kind::Sum) => Kernels::fitting(dim, &[
                    $(either!(skip, $lanes, Quick<$lanes, $crate::sls::kernel::nibbles!($nibbles, $byte4), false>; $($int4)+)),+
                ]),
                (Int2, Kind::Sum) => Kernels::fitting(dim, &[
                    $(either!(skip, $lanes, Quick<$lanes, Packed<2, $byte2>, false>; $($int2)+)),+
                ]),
                (Int8, Kind::WeightedSum) => Kernels::fitting(dim, &[
                    $(strips!(true, $lanes, Quick<$lanes, Packed<8, $byte8>, true>; $($int8)+)),+
                ]),
                (Int4, Kind::WeightedSum) => Kernels::fitting(dim, &[
                    $(strips!(true, $lanes, Quick<$lanes, Packed<4, $byte4>, true>; $($int4)+)),+
                ]),
                (Int2, Kind::WeightedSum) => Kernels::fitting(dim, &[
                    $(strips!(true, $lanes, Quick<$lanes, Packed<2, $byte2>, true>; $($int2)+)),+
                ]),
            }
        }
    };
}

/// How codes of four bits are summed without weights.
macro_rules! nibbles {
    (packed, $bytes:literal) => { $crate::sls::fold::Packed<4, $bytes> };
    (placed, $bytes:literal) => { $crate::sls::fold::Placed<$bytes> };
}

/// Kernels of a tier for one fold, compiled with (`true`) or without the check for rows to skip.
macro_rules! strips {
    ($skip:literal, $lanes:ty, $fold:ty; $($units:literal)+) => {
        $crate::sls::kernel::Kernels::of::<$lanes, $fold>(&[$(($units, strip::<$lanes, $fold, $units, $skip>)),+])
    };
}

/// The same, compiled with and without the check.
macro_rules! either {
    ($skip:ident, $lanes:ty, $fold:ty; $($units:literal)+) => {
        if $skip {
            $crate::sls::kernel::strips!(true, $lanes, $fold; $($units)+)
        } else {
            $crate::sls::kernel::strips!(false, $lanes, $fold; $($units)+)
        }
    };
}
pub(super) use {define_kernels, either, nibbles, strips};

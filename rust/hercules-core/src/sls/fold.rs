//! What a lookup adds to its bag: plain rows, and quantised rows in three ways.
//!
//! Plain rows are widened exactly, multiplied by their weight (one rounding) and added (one more), one accumulator per
//! column in the order of the lookups: bit-equal to the naive loop on any tier.
//!
//! Quantised rows hold codes `q` with `value = scale * q + bias`. With `s = weight * scale` and `b = weight * bias`:
//! - [`Exact`]: `acc = fma(q, s, acc + b)`, PyTorch's formula and order, bit-equal on any tier.
//! - [`Quick`]: `acc = acc + q * s` per column and one sum of `b` for all columns, joined when the bag ends. One
//!   addition per vector less, and codes of few bits can be looked up among the multiples of `s`. Both sums are in order.
//! - [`Largest`]: the maximum of `fma(q, scale, bias)`.
//!
//! Where a load brings several columns to a lane, each of them has an accumulator of its own, and columns are put in
//! order when the bag ends: that costs as much as for a few rows, but once.
//!
//! Error of [`Quick`] for `n` lookups against real arithmetic, with unit roundoff `u = 2^-24` and `gamma(k) = k u / (1 -
//! k u)`: each product `w q scale` is rounded at most once when `s` is formed and once as a product, then passes through
//! at most `n - 1` additions that round and the joining one: `n + 2` roundings. Each `w bias` meets no more than that. So
//! the error is at most `gamma(n + 2) * sum(|w q scale| + |w bias|)`, short of underflow. (With [`Exact`] it is
//! `gamma(2 n + 1)` of the same magnitude: two roundings per lookup in each column.)

use super::kernel::{Batch, Fold, Lanes, NarrowLanes, Number, PlacedLanes, Unit};
use std::marker::PhantomData;

/// How plain rows are stored.
///
/// # Safety
/// As [`Lanes`].
pub(super) trait Encoding<L: Lanes>: Copy {
    type Unit: Unit<L>;
    /// Bytes of a value.
    const BYTES: usize;
    unsafe fn load(from: *const u8) -> Self::Unit;
    /// Load the first `n` columns of a unit, at least one; no memory behind them is touched.
    unsafe fn load_first(from: *const u8, n: usize) -> Self::Unit;
}

/// Values of the accumulators' own type.
#[derive(Clone, Copy)]
pub(super) struct Native;
#[derive(Clone, Copy)]
pub(super) struct Half;
/// bfloat16, two to a lane: the upper one is an f32 but for the lower one's bits, and the lower one a shift away.
#[derive(Clone, Copy)]
pub(super) struct Brain;

impl<L: Lanes> Encoding<L> for Native {
    type Unit = [L; 1];
    const BYTES: usize = size_of::<L::Number>();
    #[inline(always)]
    unsafe fn load(from: *const u8) -> [L; 1] {
        // SAFETY: the caller's promise.
        unsafe { [L::load(from.cast())] }
    }
    #[inline(always)]
    unsafe fn load_first(from: *const u8, n: usize) -> [L; 1] {
        // SAFETY: the caller's promise.
        unsafe { [L::load_first(from.cast(), n)] }
    }
}

impl<L: NarrowLanes> Encoding<L> for Half {
    type Unit = [L; 1];
    const BYTES: usize = 2;
    #[inline(always)]
    unsafe fn load(from: *const u8) -> [L; 1] {
        // SAFETY: the caller's promise.
        unsafe { [L::load_half(from)] }
    }
    #[inline(always)]
    unsafe fn load_first(from: *const u8, n: usize) -> [L; 1] {
        // SAFETY: the caller's promise.
        unsafe { [L::load_half_first(from, n)] }
    }
}

impl<L: NarrowLanes> Encoding<L> for Brain {
    type Unit = [L; 2];
    const BYTES: usize = 2;
    #[inline(always)]
    unsafe fn load(from: *const u8) -> [L; 2] {
        // SAFETY: the caller's promise.
        unsafe { L::split_brains(L::load_codes::<4>(from)) }
    }
    #[inline(always)]
    unsafe fn load_first(from: *const u8, n: usize) -> [L; 2] {
        // SAFETY: the caller's promise.
        unsafe { L::split_brains(L::load_codes_first::<4>(from, 2 * n)) }
    }
}

/// How a plain row joins the accumulator.
pub(super) trait Pooling: Copy {
    /// Whether each lookup has a weight.
    const WEIGHTED: bool = false;
    /// Whether a bag starts below every number, not at zero.
    const FROM_LEAST: bool = false;
    /// # Safety
    /// As for [`Lanes`].
    unsafe fn join<L: Lanes>(acc: L, row: L, weight: L) -> L;
}

#[derive(Clone, Copy)]
pub(super) struct Sum;
#[derive(Clone, Copy)]
pub(super) struct WeightedSum;
#[derive(Clone, Copy)]
pub(super) struct Max;

impl Pooling for Sum {
    #[inline(always)]
    unsafe fn join<L: Lanes>(acc: L, row: L, _: L) -> L {
        // SAFETY: the caller's promise.
        unsafe { acc.add(row) }
    }
}

impl Pooling for WeightedSum {
    const WEIGHTED: bool = true;
    #[inline(always)]
    unsafe fn join<L: Lanes>(acc: L, row: L, weight: L) -> L {
        // SAFETY: the caller's promise.
        unsafe { acc.add(weight.mul(row)) }
    }
}

impl Pooling for Max {
    const FROM_LEAST: bool = true;
    #[inline(always)]
    unsafe fn join<L: Lanes>(acc: L, row: L, _: L) -> L {
        // SAFETY: the caller's promise.
        unsafe { acc.max_or_nan(row) }
    }
}

/// A row of plain values.
#[derive(Clone, Copy)]
pub(super) struct Plain<L, E, P> {
    weight: L,
    kinds: PhantomData<(E, P)>,
}

impl<L: Lanes, E: Encoding<L>, P: Pooling> Plain<L, E, P> {
    /// # Safety
    /// As [`Lanes`].
    #[inline(always)]
    unsafe fn join(self, acc: &mut E::Unit, row: E::Unit) {
        for (acc, row) in acc.vectors_mut().iter_mut().zip(row.vectors()) {
            // SAFETY: the caller's promise.
            *acc = unsafe { P::join(*acc, *row, self.weight) };
        }
    }
}

impl<L: Lanes, E: Encoding<L>, P: Pooling> Fold<L> for Plain<L, E, P> {
    type Unit = E::Unit;
    const START: L::Number = if P::FROM_LEAST { L::Number::LEAST } else { L::Number::ZERO };
    const UNIT_BYTES: usize = L::COUNT * E::Unit::VECTORS * E::BYTES;
    #[inline(always)]
    unsafe fn open(batch: &Batch, _: *const u8, j: usize) -> Self {
        // SAFETY: the caller promises a weight for each lookup.
        unsafe {
            let weight = if P::WEIGHTED { batch.weights.cast::<L::Number>().add(j).read() } else { L::Number::ONE };
            Self { weight: L::splat(weight), kinds: PhantomData }
        }
    }
    #[inline(always)]
    unsafe fn fold(self, acc: &mut E::Unit, from: *const u8) {
        // SAFETY: the caller's promise.
        unsafe { self.join(acc, E::load(from)) }
    }
    #[inline(always)]
    unsafe fn fold_first(self, acc: &mut E::Unit, from: *const u8, columns: usize) {
        // SAFETY: the caller's promise.
        unsafe { self.join(acc, E::load_first(from, columns)) }
    }
    #[inline(always)]
    fn shared(self) -> f32 {
        0.0
    }
    #[inline(always)]
    unsafe fn close(acc: E::Unit, _: f32) -> E::Unit {
        // SAFETY: the caller's promise.
        unsafe { acc.in_order() }
    }
}

/// How codes lie in their bytes, which scale and bias follow them, and how they are summed.
///
/// # Safety
/// As [`NarrowLanes`].
pub(super) trait Packing<L: NarrowLanes>: Copy {
    type Unit: Unit<L>;
    /// Bits per column.
    const BITS: u32;
    /// Bytes of codes that a lane takes, so `8 BYTES / BITS` columns.
    const BYTES: usize;
    unsafe fn load(from: *const u8) -> L::Codes;
    unsafe fn load_first(from: *const u8, bytes: usize) -> L::Codes;
    unsafe fn scale_and_bias(from: *const u8) -> (f32, f32);
    /// Make place for the next code of each lane.
    unsafe fn next(codes: L::Codes) -> L::Codes;
    /// What [`Packing::add_steps`] needs to know of a scale.
    unsafe fn steps(scale: f32) -> L;
    /// `acc` with a code of each lane times the scale added, with one rounding or two, whichever is faster. `place` is the
    /// number of codes before it: [`Packing::next`] was called as often.
    unsafe fn add_steps(acc: L, codes: L::Codes, place: usize, steps: L) -> L;
    /// What the sums at `place` are to be multiplied by: a power of two.
    fn worth(place: usize) -> f32;
}

/// Codes that can be told apart.
///
/// # Safety
/// As [`NarrowLanes`].
pub(super) trait Decoding<L: NarrowLanes>: Packing<L> {
    /// The first code of each lane, where `rest` says whether there are others behind it.
    unsafe fn decode(codes: L::Codes, rest: bool) -> L;
    /// What [`Decoding::value`] needs to know of a row.
    unsafe fn values(scale: f32, bias: f32) -> [L; 2];
    /// The value of the first code of each lane, rounded once.
    unsafe fn value(codes: L::Codes, rest: bool, values: [L; 2]) -> L;
}

/// Codes of `BITS` bits, loaded `BYTES` bytes to a lane.
#[derive(Clone, Copy)]
pub(super) struct Packed<const BITS: u32, const BYTES: usize>;

macro_rules! packings {
    ($($bits:literal of $bytes:literal: $columns:literal, $params:ident;)+) => {$(
        impl<L: NarrowLanes> Packing<L> for Packed<$bits, $bytes> {
            type Unit = [L; $columns];
            const BITS: u32 = $bits;
            const BYTES: usize = $bytes;
            #[inline(always)]
            unsafe fn load(from: *const u8) -> L::Codes {
                // SAFETY: the caller's promise.
                unsafe { L::load_codes::<$bytes>(from) }
            }
            #[inline(always)]
            unsafe fn load_first(from: *const u8, bytes: usize) -> L::Codes {
                // SAFETY: the caller's promise.
                unsafe { L::load_codes_first::<$bytes>(from, bytes) }
            }
            #[inline(always)]
            unsafe fn scale_and_bias(from: *const u8) -> (f32, f32) {
                // SAFETY: the caller promises the row's scale and bias at `from`.
                unsafe { L::$params(from) }
            }
            #[inline(always)]
            unsafe fn next(codes: L::Codes) -> L::Codes {
                // SAFETY: the caller's promise.
                unsafe { L::next_codes::<$bits>(codes) }
            }
            #[inline(always)]
            unsafe fn steps(scale: f32) -> L {
                // SAFETY: the caller's promise.
                unsafe { L::steps::<$bits>(scale) }
            }
            #[inline(always)]
            unsafe fn add_steps(acc: L, codes: L::Codes, place: usize, steps: L) -> L {
                // SAFETY: the caller's promise.
                unsafe { acc.add_steps::<$bits>(codes, place + 1 < $columns, steps) }
            }
            #[inline(always)]
            fn worth(_: usize) -> f32 {
                1.0
            }
        }

        impl<L: NarrowLanes> Decoding<L> for Packed<$bits, $bytes> {
            #[inline(always)]
            unsafe fn decode(codes: L::Codes, rest: bool) -> L {
                // SAFETY: the caller's promise.
                unsafe { L::decode::<$bits>(codes, rest) }
            }
            #[inline(always)]
            unsafe fn values(scale: f32, bias: f32) -> [L; 2] {
                // SAFETY: the caller's promise.
                unsafe { L::values::<$bits>(scale, bias) }
            }
            #[inline(always)]
            unsafe fn value(codes: L::Codes, rest: bool, values: [L; 2]) -> L {
                // SAFETY: the caller's promise.
                unsafe { L::value::<$bits>(codes, rest, values) }
            }
        }
    )+};
}
packings! {
    8 of 1: 1, two_floats;
    8 of 4: 4, two_floats;
    4 of 1: 2, two_halves;
    4 of 2: 4, two_halves;
    4 of 4: 8, two_halves;
    2 of 1: 4, two_halves;
}

/// Codes of four bits, summed where they stand in their lane: a code that starts at bit `4 k` counts `16^k` fold, which
/// the power of two takes back, exactly, when the bag ends. That saves the shifts and look-ups of [`Packed`]. Only for
/// sums without weights: scales are halves, so no sum comes near the end of the range.
#[derive(Clone, Copy)]
pub(super) struct Placed<const BYTES: usize>;

impl<L: PlacedLanes, const BYTES: usize> Packing<L> for Placed<BYTES>
where
    Packed<4, BYTES>: Packing<L>,
{
    type Unit = <Packed<4, BYTES> as Packing<L>>::Unit;
    const BITS: u32 = 4;
    const BYTES: usize = BYTES;
    #[inline(always)]
    unsafe fn load(from: *const u8) -> L::Codes {
        // SAFETY: the caller's promise.
        unsafe { L::load_codes::<BYTES>(from) }
    }
    #[inline(always)]
    unsafe fn load_first(from: *const u8, bytes: usize) -> L::Codes {
        // SAFETY: the caller's promise.
        unsafe { L::load_codes_first::<BYTES>(from, bytes) }
    }
    #[inline(always)]
    unsafe fn scale_and_bias(from: *const u8) -> (f32, f32) {
        // SAFETY: the caller's promise.
        unsafe { L::two_halves(from) }
    }
    #[inline(always)]
    unsafe fn next(codes: L::Codes) -> L::Codes {
        codes
    }
    #[inline(always)]
    unsafe fn steps(scale: f32) -> L {
        // SAFETY: the caller's promise.
        unsafe { L::splat(scale) }
    }
    #[inline(always)]
    unsafe fn add_steps(acc: L, codes: L::Codes, place: usize, steps: L) -> L {
        // SAFETY: the caller's promise.
        unsafe { acc.add_placed(codes, 0xF << (4 * place), steps) }
    }
    #[inline(always)]
    fn worth(place: usize) -> f32 {
        1.0 / (1_u32 << (4 * place)) as f32
    }
}

/// Call `visit(vector, codes, place)` for each vector of a unit, from place 0 on, with its codes in front.
///
/// # Safety
/// As [`NarrowLanes`].
#[inline(always)]
unsafe fn each_code<L: NarrowLanes, K: Packing<L>>(
    acc: &mut K::Unit,
    codes: L::Codes,
    visit: impl Fn(&mut L, L::Codes, usize),
) {
    let mut codes = codes;
    for (place, lanes) in acc.vectors_mut().iter_mut().enumerate() {
        visit(lanes, codes, place);
        if place + 1 < K::Unit::VECTORS {
            // SAFETY: the caller promises the tier.
            codes = unsafe { K::next(codes) };
        }
    }
}

/// The scale and bias of lookup `j`, times its weight.
///
/// # Safety
/// As [`Fold::open`] over quantised rows.
#[inline(always)]
unsafe fn weighted<L: NarrowLanes, K: Packing<L>>(batch: &Batch, row: *const u8, j: usize) -> (f32, f32) {
    // SAFETY: the caller promises the row's scale and bias, and weights for each lookup.
    unsafe {
        let (scale, bias) = K::scale_and_bias(row.add(batch.params));
        // Without weights this is 1, which changes nothing.
        let weight = batch.weights.cast::<f32>().add(j * batch.weight_stride).read();
        (weight * scale, weight * bias)
    }
}

/// A quantised row in the fastest order; `WEIGHTED` if lookups have weights.
#[derive(Clone, Copy)]
pub(super) struct Quick<L, K, const WEIGHTED: bool> {
    steps: L,
    bias: f32,
    kind: PhantomData<K>,
}

impl<L: NarrowLanes, K: Packing<L>, const WEIGHTED: bool> Quick<L, K, WEIGHTED> {
    /// # Safety
    /// As [`NarrowLanes`].
    #[inline(always)]
    unsafe fn add(self, acc: &mut K::Unit, codes: L::Codes) {
        // SAFETY: the caller's promise.
        unsafe {
            each_code::<L, K>(acc, codes, |lanes, codes, place| {
                *lanes = K::add_steps(*lanes, codes, place, self.steps);
            });
        }
    }
}

impl<L: NarrowLanes, K: Packing<L>, const WEIGHTED: bool> Fold<L> for Quick<L, K, WEIGHTED> {
    type Unit = K::Unit;
    const START: f32 = 0.0;
    const UNIT_BYTES: usize = L::COUNT * K::BYTES;
    #[inline(always)]
    unsafe fn open(batch: &Batch, row: *const u8, j: usize) -> Self {
        // SAFETY: the caller's promise.
        unsafe {
            let (scale, bias) =
                if WEIGHTED { weighted::<L, K>(batch, row, j) } else { K::scale_and_bias(row.add(batch.params)) };
            Self { steps: K::steps(scale), bias, kind: PhantomData }
        }
    }
    #[inline(always)]
    unsafe fn fold(self, acc: &mut K::Unit, from: *const u8) {
        // SAFETY: the caller's promise.
        unsafe { self.add(acc, K::load(from)) }
    }
    #[inline(always)]
    unsafe fn fold_first(self, acc: &mut K::Unit, from: *const u8, columns: usize) {
        // SAFETY: the caller's promise.
        unsafe { self.add(acc, K::load_first(from, code_bytes::<L, K>(columns))) }
    }
    #[inline(always)]
    fn shared(self) -> f32 {
        self.bias
    }
    #[inline(always)]
    unsafe fn close(acc: K::Unit, shared: f32) -> K::Unit {
        let mut acc = acc;
        // SAFETY: the caller's promise.
        unsafe {
            for (place, lanes) in acc.vectors_mut().iter_mut().enumerate() {
                *lanes = lanes.mul(L::splat(K::worth(place))).add(L::splat(shared));
            }
            acc.in_order()
        }
    }
}

/// Bytes of `columns` codes.
#[inline(always)]
fn code_bytes<L: NarrowLanes, K: Packing<L>>(columns: usize) -> usize {
    columns.div_ceil(8 / K::BITS as usize)
}

/// What a quantised row's values do, one by one, in the order of the lookups.
///
/// # Safety
/// As [`Fold`] over quantised rows.
pub(super) trait Way<L: NarrowLanes, K: Decoding<L>>: Copy {
    const START: f32;
    unsafe fn open(batch: &Batch, row: *const u8, j: usize) -> Self;
    /// Join the first code of each lane to `acc`; `rest` says whether there are others behind it.
    unsafe fn join(self, acc: L, codes: L::Codes, rest: bool) -> L;
}

/// The sum, in PyTorch's order.
#[derive(Clone, Copy)]
pub(super) struct Exact<L> {
    scale: L,
    bias: L,
}

impl<L: NarrowLanes, K: Decoding<L>> Way<L, K> for Exact<L> {
    const START: f32 = 0.0;
    #[inline(always)]
    unsafe fn open(batch: &Batch, row: *const u8, j: usize) -> Self {
        // SAFETY: the caller's promise.
        unsafe {
            let (scale, bias) = weighted::<L, K>(batch, row, j);
            Self { scale: L::splat(scale), bias: L::splat(bias) }
        }
    }
    #[inline(always)]
    unsafe fn join(self, acc: L, codes: L::Codes, rest: bool) -> L {
        // SAFETY: the caller's promise.
        unsafe { K::decode(codes, rest).mul_add(self.scale, acc.add(self.bias)) }
    }
}

/// The maximum.
#[derive(Clone, Copy)]
pub(super) struct Largest<L> {
    values: [L; 2],
    /// Whether scale and bias are finite: then no value is a NaN, which is the dear part of a maximum.
    finite: bool,
}

impl<L: NarrowLanes, K: Decoding<L>> Way<L, K> for Largest<L> {
    const START: f32 = f32::LEAST;
    #[inline(always)]
    unsafe fn open(batch: &Batch, row: *const u8, _: usize) -> Self {
        // SAFETY: the caller promises the row's scale and bias.
        unsafe {
            let (scale, bias) = K::scale_and_bias(row.add(batch.params));
            // One comparison: what is not finite times zero is no number.
            Self { values: K::values(scale, bias), finite: scale * 0.0 + bias * 0.0 == 0.0 }
        }
    }
    #[inline(always)]
    unsafe fn join(self, acc: L, codes: L::Codes, rest: bool) -> L {
        // SAFETY: the caller's promise.
        unsafe {
            let value = K::value(codes, rest, self.values);
            if self.finite { acc.max_of_numbers(value) } else { acc.max_or_nan(value) }
        }
    }
}

/// A quantised row, value by value.
#[derive(Clone, Copy)]
pub(super) struct Each<K, W> {
    way: W,
    kind: PhantomData<K>,
}

impl<K, W: Copy> Each<K, W> {
    /// # Safety
    /// As [`NarrowLanes`].
    #[inline(always)]
    unsafe fn join<L: NarrowLanes>(self, acc: &mut K::Unit, codes: L::Codes)
    where
        K: Decoding<L>,
        W: Way<L, K>,
    {
        // SAFETY: the caller's promise.
        unsafe {
            each_code::<L, K>(acc, codes, |lanes, codes, place| {
                *lanes = self.way.join(*lanes, codes, place + 1 < K::Unit::VECTORS);
            });
        }
    }
}

impl<L: NarrowLanes, K: Decoding<L>, W: Way<L, K>> Fold<L> for Each<K, W> {
    type Unit = K::Unit;
    const START: f32 = W::START;
    const UNIT_BYTES: usize = L::COUNT * K::BYTES;
    #[inline(always)]
    unsafe fn open(batch: &Batch, row: *const u8, j: usize) -> Self {
        // SAFETY: the caller's promise.
        unsafe { Self { way: W::open(batch, row, j), kind: PhantomData } }
    }
    #[inline(always)]
    unsafe fn fold(self, acc: &mut K::Unit, from: *const u8) {
        // SAFETY: the caller's promise.
        unsafe { self.join::<L>(acc, K::load(from)) }
    }
    #[inline(always)]
    unsafe fn fold_first(self, acc: &mut K::Unit, from: *const u8, columns: usize) {
        // SAFETY: the caller's promise.
        unsafe { self.join::<L>(acc, K::load_first(from, code_bytes::<L, K>(columns))) }
    }
    #[inline(always)]
    fn shared(self) -> f32 {
        0.0
    }
    #[inline(always)]
    unsafe fn close(acc: K::Unit, _: f32) -> K::Unit {
        // SAFETY: the caller's promise.
        unsafe { acc.in_order() }
    }
}

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
//! Error of [`Quick`] for `n` lookups against real arithmetic, with unit roundoff `u = 2^-24` and `gamma(k) = k u / (1 -
//! k u)`: each product `w q scale` is rounded at most once when `s` is formed and once as a product, then passes through
//! at most `n - 1` additions that round and the joining one: `n + 2` roundings. Each `w bias` meets no more than that. So
//! the error is at most `gamma(n + 2) * sum(|w q scale| + |w bias|)`, short of underflow. (With [`Exact`] it is
//! `gamma(2 n + 1)` of the same magnitude: two roundings per lookup in each column.)

use super::kernel::{Batch, Fold, Lanes, NarrowLanes, Number, Unit};
use std::marker::PhantomData;

/// How plain rows are stored.
///
/// # Safety
/// As [`Lanes`].
pub(super) trait Encoding<L: Lanes>: Copy {
    /// Bytes of a value.
    const BYTES: usize;
    unsafe fn load(from: *const u8) -> L;
    /// As [`Lanes::load_first`].
    unsafe fn load_first(from: *const u8, n: usize) -> L;
}

/// Values of the accumulators' own type.
#[derive(Clone, Copy)]
pub(super) struct Native;
#[derive(Clone, Copy)]
pub(super) struct Half;
#[derive(Clone, Copy)]
pub(super) struct Brain;

impl<L: Lanes> Encoding<L> for Native {
    const BYTES: usize = size_of::<L::Number>();
    #[inline(always)]
    unsafe fn load(from: *const u8) -> L {
        // SAFETY: the caller's promise.
        unsafe { L::load(from.cast()) }
    }
    #[inline(always)]
    unsafe fn load_first(from: *const u8, n: usize) -> L {
        // SAFETY: the caller's promise.
        unsafe { L::load_first(from.cast(), n) }
    }
}

impl<L: NarrowLanes> Encoding<L> for Half {
    const BYTES: usize = 2;
    #[inline(always)]
    unsafe fn load(from: *const u8) -> L {
        // SAFETY: the caller's promise.
        unsafe { L::load_half(from) }
    }
    #[inline(always)]
    unsafe fn load_first(from: *const u8, n: usize) -> L {
        // SAFETY: the caller's promise.
        unsafe { L::load_half_first(from, n) }
    }
}

impl<L: NarrowLanes> Encoding<L> for Brain {
    const BYTES: usize = 2;
    #[inline(always)]
    unsafe fn load(from: *const u8) -> L {
        // SAFETY: the caller's promise.
        unsafe { L::load_brain(from) }
    }
    #[inline(always)]
    unsafe fn load_first(from: *const u8, n: usize) -> L {
        // SAFETY: the caller's promise.
        unsafe { L::load_brain_first(from, n) }
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

impl<L: Lanes, E: Encoding<L>, P: Pooling> Fold<L> for Plain<L, E, P> {
    type Unit = [L; 1];
    const START: L::Number = if P::FROM_LEAST { L::Number::LEAST } else { L::Number::ZERO };
    const UNIT_BYTES: usize = L::COUNT * E::BYTES;
    #[inline(always)]
    unsafe fn open(batch: &Batch, _: *const u8, j: usize) -> Self {
        // SAFETY: the caller promises a weight for each lookup.
        unsafe {
            let weight = if P::WEIGHTED { batch.weights.cast::<L::Number>().add(j).read() } else { L::Number::ONE };
            Self { weight: L::splat(weight), kinds: PhantomData }
        }
    }
    #[inline(always)]
    unsafe fn fold(self, acc: &mut [L; 1], from: *const u8) {
        // SAFETY: the caller's promise.
        unsafe { acc[0] = P::join(acc[0], E::load(from), self.weight) }
    }
    #[inline(always)]
    unsafe fn fold_first(self, acc: &mut [L; 1], from: *const u8, columns: usize) {
        // SAFETY: the caller's promise.
        unsafe { acc[0] = P::join(acc[0], E::load_first(from, columns), self.weight) }
    }
    #[inline(always)]
    fn shared(self) -> f32 {
        0.0
    }
    #[inline(always)]
    unsafe fn close(acc: [L; 1], _: f32) -> [L; 1] {
        acc
    }
}

/// How codes lie in their bytes, and which scale and bias follow them.
///
/// # Safety
/// As [`NarrowLanes`].
pub(super) trait Packing<L: NarrowLanes>: Copy {
    type Unit: Unit<L>;
    /// Columns per byte.
    const PER_BYTE: usize;
    unsafe fn scale_and_bias(from: *const u8) -> (f32, f32);
    /// The codes as numbers, a vector for each place in the byte.
    unsafe fn decode(codes: L::Codes) -> Self::Unit;
    unsafe fn steps(scale: f32) -> L;
    unsafe fn add_steps(acc: &mut Self::Unit, codes: L::Codes, steps: L);
    /// From a vector for each place in the byte to columns in order.
    unsafe fn in_order(unit: Self::Unit) -> Self::Unit;
}

#[derive(Clone, Copy)]
pub(super) struct Int8;
#[derive(Clone, Copy)]
pub(super) struct Int4;
#[derive(Clone, Copy)]
pub(super) struct Int2;

impl<L: NarrowLanes> Packing<L> for Int8 {
    type Unit = [L; 1];
    const PER_BYTE: usize = 1;
    #[inline(always)]
    unsafe fn scale_and_bias(from: *const u8) -> (f32, f32) {
        let from = from.cast::<f32>();
        // SAFETY: the caller promises the row's scale and bias at `from`.
        unsafe { (from.read_unaligned(), from.add(1).read_unaligned()) }
    }
    #[inline(always)]
    unsafe fn decode(codes: L::Codes) -> [L; 1] {
        // SAFETY: the caller's promise.
        unsafe { [L::decode::<0, 8>(codes)] }
    }
    #[inline(always)]
    unsafe fn steps(scale: f32) -> L {
        // SAFETY: the caller's promise.
        unsafe { L::steps::<8>(scale) }
    }
    #[inline(always)]
    unsafe fn add_steps(acc: &mut [L; 1], codes: L::Codes, steps: L) {
        // SAFETY: the caller's promise.
        unsafe { acc[0] = acc[0].add_steps::<0, 8>(codes, steps) }
    }
    #[inline(always)]
    unsafe fn in_order(unit: [L; 1]) -> [L; 1] {
        unit
    }
}

impl<L: NarrowLanes> Packing<L> for Int4 {
    type Unit = [L; 2];
    const PER_BYTE: usize = 2;
    #[inline(always)]
    unsafe fn scale_and_bias(from: *const u8) -> (f32, f32) {
        // SAFETY: the caller promises the row's scale and bias at `from`.
        unsafe { L::two_halves(from) }
    }
    #[inline(always)]
    unsafe fn decode(codes: L::Codes) -> [L; 2] {
        // SAFETY: the caller's promise.
        unsafe { [L::decode::<0, 4>(codes), L::decode::<4, 4>(codes)] }
    }
    #[inline(always)]
    unsafe fn steps(scale: f32) -> L {
        // SAFETY: the caller's promise.
        unsafe { L::steps::<4>(scale) }
    }
    #[inline(always)]
    unsafe fn add_steps(acc: &mut [L; 2], codes: L::Codes, steps: L) {
        // SAFETY: the caller's promise.
        unsafe {
            acc[0] = acc[0].add_steps::<0, 4>(codes, steps);
            acc[1] = acc[1].add_steps::<4, 4>(codes, steps);
        }
    }
    #[inline(always)]
    unsafe fn in_order([even, odd]: [L; 2]) -> [L; 2] {
        // SAFETY: the caller's promise.
        let (low, high) = unsafe { even.interleave(odd) };
        [low, high]
    }
}

impl<L: NarrowLanes> Packing<L> for Int2 {
    type Unit = [L; 4];
    const PER_BYTE: usize = 4;
    #[inline(always)]
    unsafe fn scale_and_bias(from: *const u8) -> (f32, f32) {
        // SAFETY: the caller promises the row's scale and bias at `from`.
        unsafe { L::two_halves(from) }
    }
    #[inline(always)]
    unsafe fn decode(codes: L::Codes) -> [L; 4] {
        // SAFETY: the caller's promise.
        unsafe {
            [L::decode::<0, 2>(codes), L::decode::<2, 2>(codes), L::decode::<4, 2>(codes), L::decode::<6, 2>(codes)]
        }
    }
    #[inline(always)]
    unsafe fn steps(scale: f32) -> L {
        // SAFETY: the caller's promise.
        unsafe { L::steps::<2>(scale) }
    }
    #[inline(always)]
    unsafe fn add_steps(acc: &mut [L; 4], codes: L::Codes, steps: L) {
        // SAFETY: the caller's promise.
        unsafe {
            acc[0] = acc[0].add_steps::<0, 2>(codes, steps);
            acc[1] = acc[1].add_steps::<2, 2>(codes, steps);
            acc[2] = acc[2].add_steps::<4, 2>(codes, steps);
            acc[3] = acc[3].add_steps::<6, 2>(codes, steps);
        }
    }
    #[inline(always)]
    unsafe fn in_order([p0, p1, p2, p3]: [L; 4]) -> [L; 4] {
        // SAFETY: the caller's promise.
        unsafe {
            let (even_low, even_high) = p0.interleave(p2);
            let (odd_low, odd_high) = p1.interleave(p3);
            let (a, b) = even_low.interleave(odd_low);
            let (c, d) = even_high.interleave(odd_high);
            [a, b, c, d]
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

impl<L: NarrowLanes, K: Packing<L>, const WEIGHTED: bool> Fold<L> for Quick<L, K, WEIGHTED> {
    type Unit = K::Unit;
    const START: f32 = 0.0;
    const UNIT_BYTES: usize = L::COUNT;
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
        unsafe { K::add_steps(acc, L::load_codes(from), self.steps) }
    }
    #[inline(always)]
    unsafe fn fold_first(self, acc: &mut K::Unit, from: *const u8, columns: usize) {
        // SAFETY: the caller's promise.
        unsafe { K::add_steps(acc, L::load_codes_first(from, columns.div_ceil(K::PER_BYTE)), self.steps) }
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
            for lanes in acc.vectors_mut() {
                *lanes = lanes.add(L::splat(shared));
            }
            K::in_order(acc)
        }
    }
}

/// A quantised row in PyTorch's order.
#[derive(Clone, Copy)]
pub(super) struct Exact<L, K> {
    scale: L,
    bias: L,
    kind: PhantomData<K>,
}

impl<L: NarrowLanes, K: Packing<L>> Exact<L, K> {
    /// # Safety
    /// As [`NarrowLanes`].
    #[inline(always)]
    unsafe fn add(self, acc: &mut K::Unit, codes: L::Codes) {
        // SAFETY: the caller's promise.
        unsafe {
            for (lanes, code) in acc.vectors_mut().iter_mut().zip(K::decode(codes).vectors()) {
                *lanes = code.mul_add(self.scale, lanes.add(self.bias));
            }
        }
    }
}

impl<L: NarrowLanes, K: Packing<L>> Fold<L> for Exact<L, K> {
    type Unit = K::Unit;
    const START: f32 = 0.0;
    const UNIT_BYTES: usize = L::COUNT;
    #[inline(always)]
    unsafe fn open(batch: &Batch, row: *const u8, j: usize) -> Self {
        // SAFETY: the caller's promise.
        unsafe {
            let (scale, bias) = weighted::<L, K>(batch, row, j);
            Self { scale: L::splat(scale), bias: L::splat(bias), kind: PhantomData }
        }
    }
    #[inline(always)]
    unsafe fn fold(self, acc: &mut K::Unit, from: *const u8) {
        // SAFETY: the caller's promise.
        unsafe { self.add(acc, L::load_codes(from)) }
    }
    #[inline(always)]
    unsafe fn fold_first(self, acc: &mut K::Unit, from: *const u8, columns: usize) {
        // SAFETY: the caller's promise.
        unsafe { self.add(acc, L::load_codes_first(from, columns.div_ceil(K::PER_BYTE))) }
    }
    #[inline(always)]
    fn shared(self) -> f32 {
        0.0
    }
    #[inline(always)]
    unsafe fn close(acc: K::Unit, _: f32) -> K::Unit {
        // SAFETY: the caller's promise.
        unsafe { K::in_order(acc) }
    }
}

/// A quantised row of which the largest values are wanted.
#[derive(Clone, Copy)]
pub(super) struct Largest<L, K> {
    scale: L,
    bias: L,
    kind: PhantomData<K>,
}

impl<L: NarrowLanes, K: Packing<L>> Largest<L, K> {
    /// # Safety
    /// As [`NarrowLanes`].
    #[inline(always)]
    unsafe fn join(self, acc: &mut K::Unit, codes: L::Codes) {
        // SAFETY: the caller's promise.
        unsafe {
            for (lanes, code) in acc.vectors_mut().iter_mut().zip(K::decode(codes).vectors()) {
                *lanes = lanes.max_or_nan(code.mul_add(self.scale, self.bias));
            }
        }
    }
}

impl<L: NarrowLanes, K: Packing<L>> Fold<L> for Largest<L, K> {
    type Unit = K::Unit;
    const START: f32 = f32::LEAST;
    const UNIT_BYTES: usize = L::COUNT;
    #[inline(always)]
    unsafe fn open(batch: &Batch, row: *const u8, _: usize) -> Self {
        // SAFETY: the caller promises the row's scale and bias.
        unsafe {
            let (scale, bias) = K::scale_and_bias(row.add(batch.params));
            Self { scale: L::splat(scale), bias: L::splat(bias), kind: PhantomData }
        }
    }
    #[inline(always)]
    unsafe fn fold(self, acc: &mut K::Unit, from: *const u8) {
        // SAFETY: the caller's promise.
        unsafe { self.join(acc, L::load_codes(from)) }
    }
    #[inline(always)]
    unsafe fn fold_first(self, acc: &mut K::Unit, from: *const u8, columns: usize) {
        // SAFETY: the caller's promise.
        unsafe { self.join(acc, L::load_codes_first(from, columns.div_ceil(K::PER_BYTE))) }
    }
    #[inline(always)]
    fn shared(self) -> f32 {
        0.0
    }
    #[inline(always)]
    unsafe fn close(acc: K::Unit, _: f32) -> K::Unit {
        // SAFETY: the caller's promise.
        unsafe { K::in_order(acc) }
    }
}

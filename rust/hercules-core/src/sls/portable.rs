//! The tier for any CPU: lanes in an array, which the compiler maps to the baseline's vectors.

use super::half::{brain_to_f32, f32_to_half, half_to_f32};
use super::input::Table;
use super::kernel::{Batch, Fold, Lanes, NarrowLanes, Number, define_kernels, pool_strip, read_first};
use super::window;
use std::ops::{Add, Mul};

/// Lanes in an array. The other tiers use it for f64, where it is compiled with their instructions.
#[derive(Clone, Copy)]
pub(super) struct Array<N, const COUNT: usize>([N; COUNT]);

impl<N: Copy, const COUNT: usize> Array<N, COUNT> {
    #[inline(always)]
    fn zip(self, other: Self, f: impl Fn(N, N) -> N) -> Self {
        Self(std::array::from_fn(|i| f(self.0[i], other.0[i])))
    }
}

impl<N: Number + Add<Output = N> + Mul<Output = N> + PartialOrd, const COUNT: usize> Lanes for Array<N, COUNT> {
    type Number = N;
    const COUNT: usize = COUNT;
    #[inline(always)]
    unsafe fn splat(x: N) -> Self {
        Self([x; COUNT])
    }
    #[inline(always)]
    unsafe fn load(from: *const N) -> Self {
        // SAFETY: the caller promises COUNT readable values at `from`.
        unsafe { Self(from.cast::<[N; COUNT]>().read()) }
    }
    #[inline(always)]
    unsafe fn load_first(from: *const N, n: usize) -> Self {
        if n == COUNT {
            // SAFETY: the caller promises `n` readable values at `from`.
            return unsafe { Self::load(from) };
        }
        // SAFETY: as above; i < n.
        Self(std::array::from_fn(|i| if i < n { unsafe { from.add(i).read() } } else { N::ZERO }))
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut N) {
        // SAFETY: the caller promises COUNT writable values at `to`.
        unsafe { to.cast::<[N; COUNT]>().write(self.0) }
    }
    #[inline(always)]
    unsafe fn store_first(self, to: *mut N, n: usize) {
        // SAFETY: the caller promises `n` writable values at `to`, and n <= COUNT.
        unsafe { self.0.as_ptr().copy_to_nonoverlapping(to, n) }
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        self.zip(other, |a, b| a + b)
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        self.zip(other, |a, b| a * b)
    }
    #[inline(always)]
    #[allow(clippy::eq_op)] // only a NaN differs from itself
    unsafe fn max_or_nan(self, other: Self) -> Self {
        self.zip(other, |a, b| if b > a || b != b { b } else { a })
    }
    #[inline(always)]
    unsafe fn interleave(self, other: Self) -> (Self, Self) {
        let turn = |first: usize| Self(std::array::from_fn(|i| [self.0, other.0][i % 2][first + i / 2]));
        (turn(0), turn(COUNT / 2))
    }
}

type Quad = Array<f32, 4>;

impl Quad {
    #[inline(always)]
    fn map<T: Copy>(values: [T; 4], f: impl Fn(T) -> f32) -> Self {
        Self(std::array::from_fn(|i| f(values[i])))
    }
}

/// The first `n` of eight bytes' worth of two-byte values, the others zero.
///
/// # Safety
/// `from` can be read for `n` values of two bytes, 1 <= n <= 4.
#[inline(always)]
unsafe fn first_pairs(from: *const u8, n: usize) -> [u16; 4] {
    // SAFETY: the caller's promise.
    let bits = unsafe { read_first(from, 2 * n) };
    std::array::from_fn(|i| (bits >> (16 * i)) as u16)
}

impl NarrowLanes for Quad {
    type Codes = [u32; 4];
    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, addend: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i].mul_add(factor.0[i], addend.0[i])))
    }
    #[inline(always)]
    unsafe fn max_of_numbers(self, other: Self) -> Self {
        self.zip(other, |a, b| if b > a { b } else { a })
    }
    #[inline(always)]
    unsafe fn load_half(from: *const u8) -> Self {
        // SAFETY: the caller promises four readable values of two bytes at `from`.
        unsafe { Self::map(from.cast::<[u16; 4]>().read_unaligned(), half_to_f32) }
    }
    #[inline(always)]
    unsafe fn load_half_first(from: *const u8, n: usize) -> Self {
        // SAFETY: the caller promises `n` such values.
        unsafe { if n == 4 { Self::load_half(from) } else { Self::map(first_pairs(from, n), half_to_f32) } }
    }
    #[inline(always)]
    unsafe fn load_codes<const BYTES: usize>(from: *const u8) -> [u32; 4] {
        // SAFETY: the caller promises four times BYTES readable bytes at `from`.
        unsafe {
            match BYTES {
                1 => from.cast::<[u8; 4]>().read().map(u32::from),
                2 => from.cast::<[u16; 4]>().read_unaligned().map(u32::from),
                _ => from.cast::<[u32; 4]>().read_unaligned(),
            }
        }
    }
    #[inline(always)]
    unsafe fn load_codes_first<const BYTES: usize>(from: *const u8, bytes: usize) -> [u32; 4] {
        if bytes == 4 * BYTES {
            // SAFETY: the caller promises `bytes` readable bytes at `from`.
            return unsafe { Self::load_codes::<BYTES>(from) };
        }
        // SAFETY: as above; at most 16.
        let bits = unsafe { read_first(from, bytes) };
        std::array::from_fn(|i| (bits >> (8 * BYTES * i)) as u32 & (u32::MAX >> (32 - 8 * BYTES)))
    }
    #[inline(always)]
    unsafe fn next_codes<const BITS: u32>(codes: [u32; 4]) -> [u32; 4] {
        codes.map(|code| code >> BITS)
    }
    #[inline(always)]
    unsafe fn decode<const BITS: u32>(codes: [u32; 4], _: bool) -> Self {
        Self::map(codes, |code| (code & (u32::MAX >> (32 - BITS))) as i32 as f32)
    }
    #[inline(always)]
    unsafe fn steps<const BITS: u32>(scale: f32) -> Self {
        Self([scale; 4])
    }
    #[inline(always)]
    unsafe fn add_steps<const BITS: u32>(self, codes: [u32; 4], rest: bool, steps: Self) -> Self {
        // SAFETY: no instructions beyond the baseline.
        unsafe { self.add(Self::decode::<BITS>(codes, rest).mul(steps)) }
    }
    #[inline(always)]
    unsafe fn split_brains(codes: [u32; 4]) -> [Self; 2] {
        let upper = |bits: u32| brain_to_f32((bits >> 16) as u16);
        [Self::map(codes, |bits| upper(bits << 16)), Self::map(codes, upper)]
    }
    #[inline(always)]
    unsafe fn two_halves(from: *const u8) -> (f32, f32) {
        // SAFETY: the caller promises two readable values of two bytes at `from`.
        let [first, second] = unsafe { from.cast::<[u16; 2]>().read_unaligned() };
        (half_to_f32(first), half_to_f32(second))
    }
}

/// See [`window::Resolver`].
pub(super) unsafe fn resolve(slots: &mut [usize], table: &Table, skip: Option<i64>) -> bool {
    window::resolve(slots, table, skip)
}

unsafe fn strip<L: Lanes, F: Fold<L>, const U: usize, const SKIP: bool>(batch: &Batch, out: *mut u8) -> usize {
    // SAFETY: the caller's promise; no instructions beyond the baseline are used.
    unsafe { pool_strip::<L, F, U, SKIP>(batch, out) }
}

define_kernels!(
    Quad, Array<f64, 2>;
    f32: 1 2 3 4 5 6 7 8; f64: 1 2 4 8; f16: 1 2 4 8; bf16: 1 2 4;
    int8: 1 => 1 2 3, 4 => 1 2; int4: packed 1 => 1 2 3, 4 => 1; int2: 1 => 1 2
);

pub(super) unsafe fn round_to_half(from: *const f32, to: *mut u16, n: usize) {
    for i in 0..n {
        // SAFETY: the caller promises `n` values at both.
        unsafe { to.add(i).write(f32_to_half(from.add(i).read())) }
    }
}

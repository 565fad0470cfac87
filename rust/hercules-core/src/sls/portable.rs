//! The tier for any CPU: four lanes in an array, which the compiler maps to the baseline's vectors.

use super::kernel::{Batch, Lanes, Pooling, define_kernels, pool_strip};

#[derive(Clone, Copy)]
struct Quad([f32; 4]);

impl Quad {
    #[inline(always)]
    fn zip(self, other: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        Self(std::array::from_fn(|i| f(self.0[i], other.0[i])))
    }
}

impl Lanes for Quad {
    const COUNT: usize = 4;
    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        Self([x; 4])
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller promises four readable values at `from`.
        unsafe { Self(from.cast::<[f32; 4]>().read()) }
    }
    #[inline(always)]
    unsafe fn load_first(from: *const f32, n: usize) -> Self {
        // SAFETY: the caller promises `n` readable values at `from`; each arm reads exactly `n`.
        unsafe {
            match n {
                1 => Self([from.read(), 0.0, 0.0, 0.0]),
                2 => Self([from.read(), from.add(1).read(), 0.0, 0.0]),
                3 => Self([from.read(), from.add(1).read(), from.add(2).read(), 0.0]),
                _ => Self::load(from),
            }
        }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller promises four writable values at `to`.
        unsafe { to.cast::<[f32; 4]>().write(self.0) }
    }
    #[inline(always)]
    unsafe fn store_first(self, to: *mut f32, n: usize) {
        // SAFETY: the caller promises `n` writable values at `to`, and n <= 4.
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
    unsafe fn max_or_nan(self, other: Self) -> Self {
        self.zip(other, |a, b| if b > a || b.is_nan() { b } else { a })
    }
}

unsafe fn strip<P: Pooling, const V: usize, const SKIP: bool>(batch: &Batch, out: *mut f32) {
    // SAFETY: the caller's promise; no instructions beyond the baseline are used.
    unsafe { pool_strip::<Quad, P, V, SKIP>(batch, out) }
}

define_kernels!(Quad; 1 2 3 4 5 6 7 8);

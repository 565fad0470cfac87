//! The AVX-512 tier: sixteen lanes, tails by mask registers, up to sixteen of the thirty-two registers per strip.

use super::kernel::{Batch, Lanes, Pooling, define_kernels, pool_strip};
use std::arch::x86_64::{
    __m512, __mmask16, _CMP_UNORD_Q, _mm512_add_ps, _mm512_cmp_ps_mask, _mm512_loadu_ps, _mm512_mask_mov_ps,
    _mm512_mask_storeu_ps, _mm512_maskz_loadu_ps, _mm512_max_ps, _mm512_mul_ps, _mm512_set1_ps, _mm512_storeu_ps,
};

#[derive(Clone, Copy)]
struct Zmm(__m512);

/// A mask of the first `n` lanes, 1 <= n <= 16.
#[inline(always)]
fn first(n: usize) -> __mmask16 {
    ((1_u32 << n) - 1) as __mmask16
}

// SAFETY of the blocks below: the trait's callers promise AVX-512F and pointers valid for the lanes that are touched;
// masked lanes are not touched.
impl Lanes for Zmm {
    const COUNT: usize = 16;
    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        // SAFETY: see above.
        unsafe { Self(_mm512_set1_ps(x)) }
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: see above.
        unsafe { Self(_mm512_loadu_ps(from)) }
    }
    #[inline(always)]
    unsafe fn load_first(from: *const f32, n: usize) -> Self {
        // SAFETY: see above.
        unsafe { Self(_mm512_maskz_loadu_ps(first(n), from)) }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: see above.
        unsafe { _mm512_storeu_ps(to, self.0) }
    }
    #[inline(always)]
    unsafe fn store_first(self, to: *mut f32, n: usize) {
        // SAFETY: see above.
        unsafe { _mm512_mask_storeu_ps(to, first(n), self.0) }
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: see above.
        unsafe { Self(_mm512_add_ps(self.0, other.0)) }
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        // SAFETY: see above.
        unsafe { Self(_mm512_mul_ps(self.0, other.0)) }
    }
    #[inline(always)]
    unsafe fn max_or_nan(self, other: Self) -> Self {
        // SAFETY: see above. `max(other, self)` gives `self` when either is not a number or both are zero.
        unsafe {
            let larger = _mm512_max_ps(other.0, self.0);
            let not_a_number = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(other.0, other.0);
            Self(_mm512_mask_mov_ps(larger, not_a_number, other.0))
        }
    }
}

#[target_feature(enable = "avx512f")]
unsafe fn strip<P: Pooling, const V: usize, const SKIP: bool>(batch: &Batch, out: *mut f32) {
    // SAFETY: the caller's promise; this function carries the tier's features.
    unsafe { pool_strip::<Zmm, P, V, SKIP>(batch, out) }
}

define_kernels!(Zmm; 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16);

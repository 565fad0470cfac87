//! The AVX2 tier: eight lanes; a strip of up to eight vectors leaves half of the sixteen registers for loads.

use super::kernel::{Batch, Lanes, Pooling, define_kernels, pool_strip};
use std::arch::x86_64::{
    __m256, __m256i, _CMP_UNORD_Q, _mm256_add_ps, _mm256_blendv_ps, _mm256_cmp_ps, _mm256_loadu_ps, _mm256_loadu_si256,
    _mm256_maskload_ps, _mm256_maskstore_ps, _mm256_max_ps, _mm256_mul_ps, _mm256_set1_ps, _mm256_storeu_ps,
};

#[derive(Clone, Copy)]
struct Ymm(__m256);

/// Eight set words, then eight clear ones: the eight from position `8 - n` are a mask of the first `n` lanes.
static MASKS: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];

/// # Safety
/// AVX2, and 1 <= n <= 8.
#[inline(always)]
unsafe fn first(n: usize) -> __m256i {
    // SAFETY: 8 - n + 8 <= 16, so the load stays inside MASKS.
    unsafe { _mm256_loadu_si256(MASKS.as_ptr().add(8 - n).cast()) }
}

// SAFETY of the blocks below: the trait's callers promise AVX2 and pointers valid for the lanes that are touched;
// masked lanes are not touched.
impl Lanes for Ymm {
    const COUNT: usize = 8;
    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        // SAFETY: see above.
        unsafe { Self(_mm256_set1_ps(x)) }
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: see above.
        unsafe { Self(_mm256_loadu_ps(from)) }
    }
    #[inline(always)]
    unsafe fn load_first(from: *const f32, n: usize) -> Self {
        // SAFETY: see above.
        unsafe { Self(_mm256_maskload_ps(from, first(n))) }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: see above.
        unsafe { _mm256_storeu_ps(to, self.0) }
    }
    #[inline(always)]
    unsafe fn store_first(self, to: *mut f32, n: usize) {
        // SAFETY: see above.
        unsafe { _mm256_maskstore_ps(to, first(n), self.0) }
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: see above.
        unsafe { Self(_mm256_add_ps(self.0, other.0)) }
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        // SAFETY: see above.
        unsafe { Self(_mm256_mul_ps(self.0, other.0)) }
    }
    #[inline(always)]
    unsafe fn max_or_nan(self, other: Self) -> Self {
        // SAFETY: see above. `max(other, self)` gives `self` when either is not a number or both are zero.
        unsafe {
            let larger = _mm256_max_ps(other.0, self.0);
            let not_a_number = _mm256_cmp_ps::<_CMP_UNORD_Q>(other.0, other.0);
            Self(_mm256_blendv_ps(larger, other.0, not_a_number))
        }
    }
}

#[target_feature(enable = "avx2")]
unsafe fn strip<P: Pooling, const V: usize, const SKIP: bool>(batch: &Batch, out: *mut f32) {
    // SAFETY: the caller's promise; this function carries the tier's features.
    unsafe { pool_strip::<Ymm, P, V, SKIP>(batch, out) }
}

define_kernels!(Ymm; 1 2 3 4 5 6 7 8);

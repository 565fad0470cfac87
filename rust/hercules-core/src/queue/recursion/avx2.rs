//! The AVX2 tier: a row is two registers.

use std::arch::x86_64::{
    __m256d, _mm256_add_pd, _mm256_loadu_pd, _mm256_max_pd, _mm256_min_pd, _mm256_storeu_pd, _mm256_sub_pd,
};

#[derive(Clone, Copy)]
struct Ymm([__m256d; 2]);

// SAFETY of the blocks below: the trait's callers promise AVX2; rows are eight numbers.
impl kernels::Lanes for Ymm {
    #[inline(always)]
    unsafe fn load(from: &Row) -> Self {
        // SAFETY: see above.
        unsafe { Self([_mm256_loadu_pd(from.as_ptr()), _mm256_loadu_pd(from.as_ptr().add(4))]) }
    }
    #[inline(always)]
    unsafe fn store(self, to: &mut Row) {
        // SAFETY: see above.
        unsafe {
            _mm256_storeu_pd(to.as_mut_ptr(), self.0[0]);
            _mm256_storeu_pd(to.as_mut_ptr().add(4), self.0[1]);
        }
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: see above.
        unsafe { Self([_mm256_add_pd(self.0[0], other.0[0]), _mm256_add_pd(self.0[1], other.0[1])]) }
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        // SAFETY: see above.
        unsafe { Self([_mm256_sub_pd(self.0[0], other.0[0]), _mm256_sub_pd(self.0[1], other.0[1])]) }
    }
    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        // SAFETY: see above.
        unsafe { Self([_mm256_max_pd(self.0[0], other.0[0]), _mm256_max_pd(self.0[1], other.0[1])]) }
    }
    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        // SAFETY: see above.
        unsafe { Self([_mm256_min_pd(self.0[0], other.0[0]), _mm256_min_pd(self.0[1], other.0[1])]) }
    }
}

super::kernels::define_kernels!(Ymm, "avx2");

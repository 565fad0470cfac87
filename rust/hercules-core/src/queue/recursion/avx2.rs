//! The AVX2 tier: a row is two registers.

use std::arch::x86_64::{
    __m256d, _CMP_EQ_OQ, _CMP_LE_OQ, _CMP_LT_OQ, _mm256_add_pd, _mm256_and_pd, _mm256_blendv_pd, _mm256_cmp_pd,
    _mm256_loadu_pd, _mm256_max_pd, _mm256_min_pd, _mm256_or_pd, _mm256_storeu_pd, _mm256_sub_pd,
};

#[derive(Clone, Copy)]
struct Ymm([__m256d; 2]);

// SAFETY of the blocks below: the trait's callers promise AVX2; rows are eight numbers.
impl kernels::Lanes for Ymm {
    type Mask = [__m256d; 2];
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
    #[inline(always)]
    unsafe fn at_most(self, other: Self) -> [__m256d; 2] {
        // SAFETY: see above.
        unsafe {
            [_mm256_cmp_pd::<_CMP_LE_OQ>(self.0[0], other.0[0]), _mm256_cmp_pd::<_CMP_LE_OQ>(self.0[1], other.0[1])]
        }
    }
    #[inline(always)]
    unsafe fn precedes(self, number: Self, other: Self, other_number: Self) -> [__m256d; 2] {
        // SAFETY: see above.
        unsafe {
            std::array::from_fn(|half| {
                let (a, b) = (self.0[half], other.0[half]);
                let lower = _mm256_cmp_pd::<_CMP_LT_OQ>(number.0[half], other_number.0[half]);
                let same = _mm256_and_pd(_mm256_cmp_pd::<_CMP_EQ_OQ>(a, b), lower);
                _mm256_or_pd(_mm256_cmp_pd::<_CMP_LT_OQ>(a, b), same)
            })
        }
    }
    #[inline(always)]
    unsafe fn where_set(self, mask: [__m256d; 2], other: Self) -> Self {
        // SAFETY: see above.
        unsafe {
            Self([_mm256_blendv_pd(other.0[0], self.0[0], mask[0]), _mm256_blendv_pd(other.0[1], self.0[1], mask[1])])
        }
    }
}

super::kernels::define_kernels!(Ymm, "avx2,fma");

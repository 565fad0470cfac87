//! The AVX-512 tier: a row is one register.

use std::arch::x86_64::{
    __m512d, __mmask8, _CMP_EQ_OQ, _CMP_LE_OQ, _CMP_LT_OQ, _mm512_add_pd, _mm512_cmp_pd_mask, _mm512_loadu_pd,
    _mm512_mask_blend_pd, _mm512_max_pd, _mm512_min_pd, _mm512_storeu_pd, _mm512_sub_pd,
};

#[derive(Clone, Copy)]
struct Zmm(__m512d);

// SAFETY of the blocks below: the trait's callers promise AVX-512 F; rows are eight numbers.
impl kernels::Lanes for Zmm {
    type Mask = __mmask8;
    #[inline(always)]
    unsafe fn load(from: &Row) -> Self {
        // SAFETY: see above.
        unsafe { Self(_mm512_loadu_pd(from.as_ptr())) }
    }
    #[inline(always)]
    unsafe fn store(self, to: &mut Row) {
        // SAFETY: see above.
        unsafe { _mm512_storeu_pd(to.as_mut_ptr(), self.0) }
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: see above.
        unsafe { Self(_mm512_add_pd(self.0, other.0)) }
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        // SAFETY: see above.
        unsafe { Self(_mm512_sub_pd(self.0, other.0)) }
    }
    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        // SAFETY: see above.
        unsafe { Self(_mm512_max_pd(self.0, other.0)) }
    }
    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        // SAFETY: see above.
        unsafe { Self(_mm512_min_pd(self.0, other.0)) }
    }
    #[inline(always)]
    unsafe fn at_most(self, other: Self) -> __mmask8 {
        // SAFETY: see above.
        unsafe { _mm512_cmp_pd_mask::<_CMP_LE_OQ>(self.0, other.0) }
    }
    #[inline(always)]
    unsafe fn precedes(self, number: Self, other: Self, other_number: Self) -> __mmask8 {
        // SAFETY: see above.
        unsafe {
            let same = _mm512_cmp_pd_mask::<_CMP_EQ_OQ>(self.0, other.0);
            _mm512_cmp_pd_mask::<_CMP_LT_OQ>(self.0, other.0)
                | (same & _mm512_cmp_pd_mask::<_CMP_LT_OQ>(number.0, other_number.0))
        }
    }
    #[inline(always)]
    unsafe fn where_set(self, mask: __mmask8, other: Self) -> Self {
        // SAFETY: see above.
        unsafe { Self(_mm512_mask_blend_pd(mask, other.0, self.0)) }
    }
}

super::kernels::define_kernels!(Zmm, "avx512f,avx512vl,avx512bw,avx512dq");

//! The AVX-512 tier: a row is one register.

use std::arch::x86_64::{
    __m512d, _mm512_add_pd, _mm512_loadu_pd, _mm512_max_pd, _mm512_min_pd, _mm512_storeu_pd, _mm512_sub_pd,
};

#[derive(Clone, Copy)]
struct Zmm(__m512d);

// SAFETY of the blocks below: the trait's callers promise AVX-512 F; rows are eight numbers.
impl kernels::Lanes for Zmm {
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
}

super::kernels::define_kernels!(Zmm, "avx512f,avx512vl,avx512bw,avx512dq");

//! The AVX-512 tier: sixteen lanes, tails by mask registers, up to sixteen of the thirty-two registers per strip.

use super::avx2;
use super::input::Table;
use super::kernel::{Batch, Fold, Lanes, NarrowLanes, define_kernels, pool_strip};
use super::portable::Array;
use super::window;
use std::arch::x86_64::{
    __m256i, __m512, __m512i, __mmask16, _CMP_UNORD_Q, _mm_loadu_si128, _mm_maskz_loadu_epi8, _mm256_loadu_si256,
    _mm256_maskz_loadu_epi16, _mm512_add_ps, _mm512_and_si512, _mm512_castsi512_ps, _mm512_cmp_ps_mask,
    _mm512_cvtepi32_ps, _mm512_cvtepu8_epi32, _mm512_cvtepu16_epi32, _mm512_cvtph_ps, _mm512_fmadd_ps, _mm512_loadu_ps,
    _mm512_mask_mov_ps, _mm512_mask_storeu_ps, _mm512_maskz_loadu_ps, _mm512_max_ps, _mm512_mul_ps,
    _mm512_permutex2var_ps, _mm512_permutexvar_ps, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setr_epi32,
    _mm512_setr_ps, _mm512_slli_epi32, _mm512_srli_epi32, _mm512_storeu_ps,
};

#[derive(Clone, Copy)]
struct Zmm(__m512);

/// A mask of the first `n` lanes, 1 <= n <= 16.
#[inline(always)]
fn first(n: usize) -> __mmask16 {
    ((1_u32 << n) - 1) as __mmask16
}

// SAFETY of the blocks below: the traits' callers promise AVX-512 F, BW and VL, F16C and pointers valid for the lanes that are touched;
// masked lanes are not touched.
impl Lanes for Zmm {
    type Number = f32;
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

#[inline(always)]
unsafe fn widen_brains(brains: __m256i) -> Zmm {
    // SAFETY: the caller promises AVX-512F.
    unsafe { Zmm(_mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(brains)))) }
}

impl NarrowLanes for Zmm {
    type Codes = __m512i;
    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, addend: Self) -> Self {
        // SAFETY: see above.
        unsafe { Self(_mm512_fmadd_ps(self.0, factor.0, addend.0)) }
    }
    #[inline(always)]
    unsafe fn load_half(from: *const u8) -> Self {
        // SAFETY: see above.
        unsafe { Self(_mm512_cvtph_ps(_mm256_loadu_si256(from.cast()))) }
    }
    #[inline(always)]
    unsafe fn load_half_first(from: *const u8, n: usize) -> Self {
        // SAFETY: see above.
        unsafe { Self(_mm512_cvtph_ps(_mm256_maskz_loadu_epi16(first(n), from.cast()))) }
    }
    #[inline(always)]
    unsafe fn load_brain(from: *const u8) -> Self {
        // SAFETY: see above.
        unsafe { widen_brains(_mm256_loadu_si256(from.cast())) }
    }
    #[inline(always)]
    unsafe fn load_brain_first(from: *const u8, n: usize) -> Self {
        // SAFETY: see above.
        unsafe { widen_brains(_mm256_maskz_loadu_epi16(first(n), from.cast())) }
    }
    #[inline(always)]
    unsafe fn load_codes(from: *const u8) -> __m512i {
        // SAFETY: see above.
        unsafe { _mm512_cvtepu8_epi32(_mm_loadu_si128(from.cast())) }
    }
    #[inline(always)]
    unsafe fn load_codes_first(from: *const u8, n: usize) -> __m512i {
        // SAFETY: see above.
        unsafe { _mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(first(n), from.cast())) }
    }
    #[inline(always)]
    unsafe fn decode<const SHIFT: u32, const BITS: u32>(codes: __m512i) -> Self {
        // SAFETY: see above.
        unsafe {
            let shifted = shift_right::<SHIFT>(codes);
            let mask = _mm512_set1_epi32((1 << BITS) - 1);
            let code = if SHIFT + BITS == 8 { shifted } else { _mm512_and_si512(shifted, mask) };
            Self(_mm512_cvtepi32_ps(code))
        }
    }
    #[inline(always)]
    unsafe fn steps<const BITS: u32>(scale: f32) -> Self {
        // SAFETY: see above.
        unsafe {
            let scale = _mm512_set1_ps(scale);
            // Sixteen multiples for codes of four bits. Codes of two bits index the same four, four times over: the
            // upper bits of an index are the next column's.
            let four =
                _mm512_setr_ps(0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0, 13.0, 14.0, 15.0);
            let two = _mm512_setr_ps(0.0, 1.0, 2.0, 3.0, 0.0, 1.0, 2.0, 3.0, 0.0, 1.0, 2.0, 3.0, 0.0, 1.0, 2.0, 3.0);
            Self(match BITS {
                2 => _mm512_mul_ps(two, scale),
                4 => _mm512_mul_ps(four, scale),
                _ => scale,
            })
        }
    }
    #[inline(always)]
    unsafe fn add_steps<const SHIFT: u32, const BITS: u32>(self, codes: __m512i, steps: Self) -> Self {
        // SAFETY: see above. A permutation looks at the lowest four bits of an index only.
        unsafe {
            if BITS <= 4 {
                self.add(Self(_mm512_permutexvar_ps(shift_right::<SHIFT>(codes), steps.0)))
            } else {
                Self::decode::<SHIFT, BITS>(codes).mul_add(steps, self)
            }
        }
    }
    #[inline(always)]
    unsafe fn interleave(self, other: Self) -> (Self, Self) {
        // SAFETY: see above. Indices from 16 on are lanes of `other`.
        unsafe {
            let low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
            let high = _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
            (Self(_mm512_permutex2var_ps(self.0, low, other.0)), Self(_mm512_permutex2var_ps(self.0, high, other.0)))
        }
    }
    #[inline(always)]
    unsafe fn two_halves(from: *const u8) -> (f32, f32) {
        // SAFETY: see above; four bytes are loaded.
        unsafe { avx2::two_halves(from) }
    }
}

#[inline(always)]
unsafe fn shift_right<const BITS: u32>(codes: __m512i) -> __m512i {
    // SAFETY: the caller promises AVX-512F. (The shift's count is a literal, hence the arms.)
    unsafe {
        match BITS {
            2 => _mm512_srli_epi32::<2>(codes),
            4 => _mm512_srli_epi32::<4>(codes),
            6 => _mm512_srli_epi32::<6>(codes),
            _ => codes,
        }
    }
}

/// See [`window::Resolver`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")]
pub(super) unsafe fn resolve(slots: &mut [usize], table: &Table, skip: Option<i64>) -> bool {
    window::resolve(slots, table, skip)
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")]
unsafe fn strip<L: Lanes, F: Fold<L>, const U: usize, const SKIP: bool>(batch: &Batch, out: *mut u8) {
    // SAFETY: the caller's promise; this function carries the tier's features.
    unsafe { pool_strip::<L, F, U, SKIP>(batch, out) }
}

define_kernels!(
    Zmm, Array<f64, 8>;
    f32: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16;
    f64: 1 2 4 8;
    bytes: 1 2 3 4 6 8 12 16;
    int4: 1 2 3 4 6 8;
    int2: 1 2 3 4
);

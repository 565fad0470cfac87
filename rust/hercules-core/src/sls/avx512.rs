//! The AVX-512 tier: sixteen lanes, tails by mask registers, up to sixteen of the thirty-two registers per strip.

use super::avx2;
use super::input::Table;
use super::kernel::{Batch, Fold, Lanes, NarrowLanes, PlacedLanes, define_kernels, pool_strip};
use super::portable::Array;
use super::window;
use std::arch::x86_64::{
    __m512, __m512i, __mmask16, __mmask32, _CMP_UNORD_Q, _mm_loadu_si128, _mm_maskz_loadu_epi8, _mm256_loadu_si256,
    _mm256_maskz_loadu_epi8, _mm256_maskz_loadu_epi16, _mm512_add_ps, _mm512_and_si512, _mm512_castsi512_ps,
    _mm512_cmp_ps_mask, _mm512_cvtepi32_ps, _mm512_cvtepu8_epi32, _mm512_cvtepu16_epi32, _mm512_cvtepu32_ps,
    _mm512_cvtph_ps, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_loadu_si512, _mm512_mask_mov_ps, _mm512_mask_storeu_ps,
    _mm512_maskz_loadu_epi8, _mm512_maskz_loadu_ps, _mm512_max_ps, _mm512_mul_ps, _mm512_permutex2var_ps,
    _mm512_permutexvar_ps, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setr_epi32, _mm512_setr_ps, _mm512_slli_epi32,
    _mm512_srli_epi32, _mm512_storeu_ps,
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
    #[inline(always)]
    unsafe fn interleave(self, other: Self) -> (Self, Self) {
        // SAFETY: see above. Indices from 16 on are lanes of `other`.
        unsafe {
            let low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
            let high = _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
            (Self(_mm512_permutex2var_ps(self.0, low, other.0)), Self(_mm512_permutex2var_ps(self.0, high, other.0)))
        }
    }
}

/// What sixteen neighbouring codes of `BITS` bits count, 2 or 4. Those of two bits are four, four times over: the upper
/// bits of an index are the next column's.
#[inline(always)]
unsafe fn multiples<const BITS: u32>() -> Zmm {
    // SAFETY: the caller promises AVX-512F.
    unsafe {
        Zmm(if BITS == 4 {
            _mm512_setr_ps(0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0, 13.0, 14.0, 15.0)
        } else {
            _mm512_setr_ps(0.0, 1.0, 2.0, 3.0, 0.0, 1.0, 2.0, 3.0, 0.0, 1.0, 2.0, 3.0, 0.0, 1.0, 2.0, 3.0)
        })
    }
}

impl NarrowLanes for Zmm {
    type Codes = __m512i;
    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, addend: Self) -> Self {
        // SAFETY: see above.
        unsafe { Self(_mm512_fmadd_ps(self.0, factor.0, addend.0)) }
    }
    #[inline(always)]
    unsafe fn max_of_numbers(self, other: Self) -> Self {
        // SAFETY: see above. If `self` is not a number, it stays.
        unsafe { Self(_mm512_max_ps(other.0, self.0)) }
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
    unsafe fn load_codes<const BYTES: usize>(from: *const u8) -> __m512i {
        // SAFETY: see above; sixteen times BYTES bytes are loaded.
        unsafe {
            match BYTES {
                1 => _mm512_cvtepu8_epi32(_mm_loadu_si128(from.cast())),
                2 => _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast())),
                _ => _mm512_loadu_si512(from.cast()),
            }
        }
    }
    #[inline(always)]
    unsafe fn load_codes_first<const BYTES: usize>(from: *const u8, bytes: usize) -> __m512i {
        let mask = u64::MAX >> (64 - bytes);
        // SAFETY: see above.
        unsafe {
            match BYTES {
                1 => _mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(mask as __mmask16, from.cast())),
                2 => _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi8(mask as __mmask32, from.cast())),
                _ => _mm512_maskz_loadu_epi8(mask, from.cast()),
            }
        }
    }
    #[inline(always)]
    unsafe fn next_codes<const BITS: u32>(codes: __m512i) -> __m512i {
        // SAFETY: see above. (The shift's count is a literal, hence the arms.)
        unsafe {
            match BITS {
                2 => _mm512_srli_epi32::<2>(codes),
                4 => _mm512_srli_epi32::<4>(codes),
                _ => _mm512_srli_epi32::<8>(codes),
            }
        }
    }
    #[inline(always)]
    unsafe fn decode<const BITS: u32>(codes: __m512i, rest: bool) -> Self {
        // SAFETY: see above.
        unsafe {
            let mask = _mm512_set1_epi32((1 << BITS) - 1);
            Self(_mm512_cvtepi32_ps(if rest { _mm512_and_si512(codes, mask) } else { codes }))
        }
    }
    #[inline(always)]
    unsafe fn values<const BITS: u32>(scale: f32, bias: f32) -> [Self; 2] {
        // SAFETY: see above.
        unsafe {
            let (scale, bias) = (Self::splat(scale), Self::splat(bias));
            if BITS <= 4 { [multiples::<BITS>().mul_add(scale, bias), bias] } else { [scale, bias] }
        }
    }
    #[inline(always)]
    unsafe fn value<const BITS: u32>(codes: __m512i, rest: bool, values: [Self; 2]) -> Self {
        // SAFETY: see above. A permutation looks at the lowest four bits of an index only.
        unsafe {
            if BITS <= 4 {
                Self(_mm512_permutexvar_ps(codes, values[0].0))
            } else {
                Self::decode::<BITS>(codes, rest).mul_add(values[0], values[1])
            }
        }
    }
    #[inline(always)]
    unsafe fn steps<const BITS: u32>(scale: f32) -> Self {
        // SAFETY: see above.
        unsafe {
            let scale = Self::splat(scale);
            if BITS <= 4 { multiples::<BITS>().mul(scale) } else { scale }
        }
    }
    #[inline(always)]
    unsafe fn add_steps<const BITS: u32>(self, codes: __m512i, rest: bool, steps: Self) -> Self {
        // SAFETY: see above. A permutation looks at the lowest four bits of an index only.
        unsafe {
            if BITS <= 4 {
                self.add(Self(_mm512_permutexvar_ps(codes, steps.0)))
            } else {
                Self::decode::<BITS>(codes, rest).mul_add(steps, self)
            }
        }
    }
    #[inline(always)]
    unsafe fn split_brains(codes: __m512i) -> [Self; 2] {
        // SAFETY: see above.
        unsafe {
            let upper = _mm512_and_si512(codes, _mm512_set1_epi32(!0xFFFF));
            [Self(_mm512_castsi512_ps(_mm512_slli_epi32::<16>(codes))), Self(_mm512_castsi512_ps(upper))]
        }
    }
    #[inline(always)]
    unsafe fn two_halves(from: *const u8) -> (f32, f32) {
        // SAFETY: see above; four bytes are loaded.
        unsafe { avx2::two_halves(from) }
    }
}

impl PlacedLanes for Zmm {
    #[inline(always)]
    unsafe fn add_placed(self, codes: __m512i, mask: u32, scale: Self) -> Self {
        // SAFETY: see above.
        unsafe {
            let code = _mm512_cvtepu32_ps(_mm512_and_si512(codes, _mm512_set1_epi32(mask as i32)));
            Self(_mm512_fmadd_ps(code, scale.0, self.0))
        }
    }
}

/// See [`window::Resolver`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")]
pub(super) unsafe fn resolve(slots: &mut [usize], table: &Table, skip: Option<i64>) -> bool {
    window::resolve(slots, table, skip)
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")]
unsafe fn strip<L: Lanes, F: Fold<L>, const U: usize, const SKIP: bool>(batch: &Batch, out: *mut u8) -> usize {
    // SAFETY: the caller's promise; this function carries the tier's features.
    unsafe { pool_strip::<L, F, U, SKIP>(batch, out) }
}

define_kernels!(
    Zmm, Array<f64, 8>;
    f32: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16; f64: 1 2 4 8; f16: 1 2 3 4 6 8 12 16; bf16: 1 2 3 4 6 8;
    int8: 1 => 1 2 3, 4 => 1 2 3 4; int4: placed 1 => 1, 2 => 1, 4 => 1 2 3; int2: 1 => 1 2 3 4
);

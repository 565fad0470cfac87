//! The AVX2 tier: eight lanes; a strip of up to eight vectors leaves half of the sixteen registers for loads.

use super::input::Table;
use super::kernel::{Batch, Fold, Lanes, NarrowLanes, define_kernels, pool_strip, read_first};
use super::portable::{self, Array};
use super::window;
use std::arch::x86_64::{
    __m128i, __m256, __m256i, _CMP_UNORD_Q, _MM_FROUND_TO_NEAREST_INT, _mm_cvtph_ps, _mm_cvtsi32_si128, _mm_cvtss_f32,
    _mm_loadl_epi64, _mm_loadu_si128, _mm_movehdup_ps, _mm_set_epi64x, _mm_storeu_si128, _mm256_add_ps,
    _mm256_and_si256, _mm256_blendv_ps, _mm256_castsi256_ps, _mm256_cmp_ps, _mm256_cvtepi32_ps, _mm256_cvtepu8_epi32,
    _mm256_cvtepu16_epi32, _mm256_cvtph_ps, _mm256_cvtps_ph, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_loadu_si256,
    _mm256_maskload_ps, _mm256_maskstore_ps, _mm256_max_ps, _mm256_mul_ps, _mm256_permute2f128_ps,
    _mm256_permutevar8x32_ps, _mm256_set_m128i, _mm256_set1_epi32, _mm256_set1_ps, _mm256_setr_ps, _mm256_slli_epi32,
    _mm256_srli_epi32, _mm256_storeu_ps, _mm256_unpackhi_ps, _mm256_unpacklo_ps, _mm256_zextsi128_si256,
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

// SAFETY of the blocks below: the traits' callers promise AVX2, FMA, F16C and pointers valid for the lanes that are touched;
// masked lanes are not touched.
impl Lanes for Ymm {
    type Number = f32;
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
    #[inline(always)]
    unsafe fn interleave(self, other: Self) -> (Self, Self) {
        // SAFETY: see above.
        unsafe {
            let low = _mm256_unpacklo_ps(self.0, other.0);
            let high = _mm256_unpackhi_ps(self.0, other.0);
            (Self(_mm256_permute2f128_ps::<0x20>(low, high)), Self(_mm256_permute2f128_ps::<0x31>(low, high)))
        }
    }
}

/// The first `n` bytes at `from`, the others zero.
///
/// # Safety
/// `from` can be read for `n` bytes, 1 <= n <= 16.
#[inline(always)]
unsafe fn first_bytes(from: *const u8, n: usize) -> __m128i {
    // SAFETY: the caller's promise.
    unsafe {
        if n == 16 {
            return _mm_loadu_si128(from.cast());
        }
        let bits = read_first(from, n);
        _mm_set_epi64x((bits >> 64) as i64, bits as i64)
    }
}

impl NarrowLanes for Ymm {
    type Codes = __m256i;
    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, addend: Self) -> Self {
        // SAFETY: see above.
        unsafe { Self(_mm256_fmadd_ps(self.0, factor.0, addend.0)) }
    }
    #[inline(always)]
    unsafe fn max_of_numbers(self, other: Self) -> Self {
        // SAFETY: see above. If `self` is not a number, it stays.
        unsafe { Self(_mm256_max_ps(other.0, self.0)) }
    }
    #[inline(always)]
    unsafe fn load_half(from: *const u8) -> Self {
        // SAFETY: see above.
        unsafe { Self(_mm256_cvtph_ps(_mm_loadu_si128(from.cast()))) }
    }
    #[inline(always)]
    unsafe fn load_half_first(from: *const u8, n: usize) -> Self {
        // SAFETY: see above.
        unsafe { Self(_mm256_cvtph_ps(first_bytes(from, 2 * n))) }
    }
    #[inline(always)]
    unsafe fn load_codes<const BYTES: usize>(from: *const u8) -> __m256i {
        // SAFETY: see above; eight times BYTES bytes are loaded.
        unsafe {
            match BYTES {
                1 => _mm256_cvtepu8_epi32(_mm_loadl_epi64(from.cast())),
                2 => _mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast())),
                _ => _mm256_loadu_si256(from.cast()),
            }
        }
    }
    #[inline(always)]
    unsafe fn load_codes_first<const BYTES: usize>(from: *const u8, bytes: usize) -> __m256i {
        // SAFETY: see above; bytes <= 8 * BYTES, and the second half is read where there are bytes of it.
        unsafe {
            if bytes == 8 * BYTES {
                return Self::load_codes::<BYTES>(from);
            }
            let low = first_bytes(from, bytes.min(16));
            match BYTES {
                1 => _mm256_cvtepu8_epi32(low),
                2 => _mm256_cvtepu16_epi32(low),
                _ if bytes > 16 => _mm256_set_m128i(first_bytes(from.add(16), bytes - 16), low),
                _ => _mm256_zextsi128_si256(low),
            }
        }
    }
    #[inline(always)]
    unsafe fn next_codes<const BITS: u32>(codes: __m256i) -> __m256i {
        // SAFETY: see above. (The shift's count is a literal, hence the arms.)
        unsafe {
            match BITS {
                2 => _mm256_srli_epi32::<2>(codes),
                4 => _mm256_srli_epi32::<4>(codes),
                _ => _mm256_srli_epi32::<8>(codes),
            }
        }
    }
    #[inline(always)]
    unsafe fn decode<const BITS: u32>(codes: __m256i, rest: bool) -> Self {
        // SAFETY: see above.
        unsafe {
            let mask = _mm256_set1_epi32((1 << BITS) - 1);
            Self(_mm256_cvtepi32_ps(if rest { _mm256_and_si256(codes, mask) } else { codes }))
        }
    }
    #[inline(always)]
    unsafe fn steps<const BITS: u32>(scale: f32) -> Self {
        // SAFETY: see above.
        unsafe {
            let scale = _mm256_set1_ps(scale);
            // Codes of two bits index the four multiples, twice: the third bit of an index is the next column's.
            let multiples = _mm256_setr_ps(0.0, 1.0, 2.0, 3.0, 0.0, 1.0, 2.0, 3.0);
            Self(if BITS == 2 { _mm256_mul_ps(multiples, scale) } else { scale })
        }
    }
    #[inline(always)]
    unsafe fn add_steps<const BITS: u32>(self, codes: __m256i, rest: bool, steps: Self) -> Self {
        // SAFETY: see above. A permutation looks at the lowest three bits of an index only.
        unsafe {
            if BITS == 2 {
                self.add(Self(_mm256_permutevar8x32_ps(steps.0, codes)))
            } else {
                Self::decode::<BITS>(codes, rest).mul_add(steps, self)
            }
        }
    }
    #[inline(always)]
    unsafe fn split_brains(codes: __m256i) -> [Self; 2] {
        // SAFETY: see above.
        unsafe {
            let upper = _mm256_and_si256(codes, _mm256_set1_epi32(!0xFFFF));
            [Self(_mm256_castsi256_ps(_mm256_slli_epi32::<16>(codes))), Self(_mm256_castsi256_ps(upper))]
        }
    }
    #[inline(always)]
    unsafe fn two_halves(from: *const u8) -> (f32, f32) {
        // SAFETY: see above; four bytes are loaded.
        unsafe { two_halves(from) }
    }
}

/// # Safety
/// F16C, and `from` can be read for four bytes.
#[inline(always)]
pub(super) unsafe fn two_halves(from: *const u8) -> (f32, f32) {
    // SAFETY: the caller's promise.
    unsafe {
        let both = _mm_cvtph_ps(_mm_cvtsi32_si128(from.cast::<i32>().read_unaligned()));
        (_mm_cvtss_f32(both), _mm_cvtss_f32(_mm_movehdup_ps(both)))
    }
}

/// See [`window::Resolver`].
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn resolve(slots: &mut [usize], table: &Table, skip: Option<i64>) -> bool {
    window::resolve(slots, table, skip)
}

#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn strip<L: Lanes, F: Fold<L>, const U: usize, const SKIP: bool>(batch: &Batch, out: *mut u8) -> usize {
    // SAFETY: the caller's promise; this function carries the tier's features.
    unsafe { pool_strip::<L, F, U, SKIP>(batch, out) }
}

define_kernels!(
    Ymm, Array<f64, 4>;
    f32: 1 2 3 4 5 6 7 8; f64: 1 2 4 8; f16: 1 2 3 4 6 8; bf16: 1 2 3 4;
    int8: 1 => 1 2 3 4 6 8; int4: packed 1 => 1 2 3 4; int2: 1 => 1 2
);

/// See [`super::kernel::Rounder`].
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn round_to_half(from: *const f32, to: *mut u16, n: usize) {
    let whole = n - n % Ymm::COUNT;
    // SAFETY: the caller promises `n` values at both; `whole + n % COUNT == n`.
    unsafe {
        for i in (0..whole).step_by(Ymm::COUNT) {
            let halves = _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(_mm256_loadu_ps(from.add(i)));
            _mm_storeu_si128(to.add(i).cast(), halves);
        }
        portable::round_to_half(from.add(whole), to.add(whole), n - whole);
    }
}

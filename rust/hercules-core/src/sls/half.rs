//! Sixteen-bit floats without special instructions: IEEE binary16 ("half") and bfloat16, to and from f32.
//!
//! Widening is exact, narrowing rounds to nearest, ties to even. No step needs subnormal f32 values, so a process that
//! flushes those to zero gets the same results.

/// The smallest f32 that rounds to infinity as a half.
const HALF_OVERFLOW: u32 = 0x477F_F000;
/// 2^-14, the smallest normal half.
const HALF_NORMAL: u32 = 0x3880_0000;
const INFINITY: u32 = 0x7F80_0000;

#[inline(always)]
pub fn half_to_f32(half: u16) -> f32 {
    let bits = u32::from(half);
    let magnitude = (bits & 0x7FFF) << 13;
    let rebias = if magnitude >= 0x7C00 << 13 { 224 << 23 } else { 112 << 23 };
    let normal = magnitude + rebias;
    // A subnormal half is its bits times 2^-24: they become the low bits of 2^-14, which is then taken away.
    let subnormal = (f32::from_bits(HALF_NORMAL | magnitude) - f32::from_bits(HALF_NORMAL)).to_bits();
    let magnitude = if magnitude < 0x0400 << 13 { subnormal } else { normal };
    f32::from_bits(magnitude | (bits & 0x8000) << 16)
}

#[inline(always)]
pub fn f32_to_half(x: f32) -> u16 {
    let sign = (x.to_bits() >> 16) & 0x8000;
    let magnitude = x.to_bits() & 0x7FFF_FFFF;
    let half = if magnitude > INFINITY {
        0x7E00 | (magnitude >> 13) & 0x3FF
    } else if magnitude >= HALF_OVERFLOW {
        0x7C00
    } else if magnitude < HALF_NORMAL {
        // Adding 0.5, whose last place is 2^-24, lets the addition round to a multiple of the least half.
        (f32::from_bits(magnitude) + 0.5).to_bits() - 0.5_f32.to_bits()
    } else {
        (magnitude - (112 << 23) + 0x0FFF + ((magnitude >> 13) & 1)) >> 13
    };
    (sign | half) as u16
}

#[inline(always)]
pub fn brain_to_f32(brain: u16) -> f32 {
    f32::from_bits(u32::from(brain) << 16)
}

#[inline(always)]
pub fn f32_to_brain(x: f32) -> u16 {
    let bits = x.to_bits();
    if x.is_nan() {
        return (bits >> 16) as u16 | 0x40; // a quiet NaN: rounding could carry a NaN's bits into infinity
    }
    ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16) as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Purpose, Stream};

    /// A half by its definition, in f64, where nothing rounds.
    fn half_by_definition(half: u16) -> f64 {
        let sign = if half & 0x8000 == 0 { 1.0 } else { -1.0 };
        let (exponent, fraction) = (i32::from(half >> 10 & 31), f64::from(half & 0x3FF) / 1024.0);
        match exponent {
            0 => sign * fraction * 2.0_f64.powi(-14),
            31 if fraction == 0.0 => sign * f64::INFINITY,
            31 => f64::NAN,
            _ => sign * (1.0 + fraction) * 2.0_f64.powi(exponent - 15),
        }
    }

    /// The nearest half of `x`, found by looking at its neighbours in f64.
    fn nearest_half(x: f32) -> u16 {
        let sign = ((x.to_bits() >> 16) & 0x8000) as u16;
        let target = f64::from(x.abs());
        // Infinity stands for 2^16 when it comes to rounding.
        let value = |half: u16| if half == 0x7C00 { 65536.0 } else { half_by_definition(half) };
        let (mut low, mut high) = (0_u16, 0x7C00_u16);
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if value(middle) <= target { low = middle } else { high = middle }
        }
        let (below, above) = (target - value(low), value(high) - target);
        let up = above < below || (above == below && high % 2 == 0);
        sign | if up { high } else { low }
    }

    #[test]
    fn every_half_widens_by_definition_and_comes_back() {
        for half in 0..=u16::MAX {
            let (ours, right) = (half_to_f32(half), half_by_definition(half));
            if right.is_nan() {
                assert!(ours.is_nan() && half_to_f32(f32_to_half(ours)).is_nan(), "{half:#x}");
            } else {
                assert_eq!(f64::from(ours), right, "{half:#x}");
                assert_eq!(ours.is_sign_negative(), half & 0x8000 != 0);
                assert_eq!(f32_to_half(ours), half, "{half:#x}");
            }
        }
    }

    #[test]
    fn narrowing_is_to_the_nearest_ties_to_even() {
        let stream = Stream::new(1, Purpose::Search, 0);
        let random = (0..20_000_u64).map(|i| f32::from_bits(stream.bits(i) as u32)).filter(|x| !x.is_nan());
        // Each half, the midpoint to the next one, and the values just beside the midpoint.
        let ties = (0..0x7C00_u16).step_by(7).flat_map(|half| {
            let next = if half == 0x7BFF { 65536.0 } else { half_by_definition(half + 1) };
            let middle = f64::midpoint(half_by_definition(half), next) as f32;
            [middle, f32::from_bits(middle.to_bits() + 1), f32::from_bits(middle.to_bits() - 1), -middle]
        });
        for x in random.chain(ties).chain([0.0, -0.0, 65519.996, 65520.0, f32::MAX, f32::INFINITY, f32::MIN_POSITIVE]) {
            assert_eq!(f32_to_half(x), nearest_half(x), "{x:e}");
        }
    }

    #[test]
    fn brains_are_rounded_to_even_and_widen_exactly() {
        for brain in 0..=u16::MAX {
            let wide = brain_to_f32(brain);
            if wide.is_nan() {
                assert!(brain_to_f32(f32_to_brain(wide)).is_nan());
                continue;
            }
            assert_eq!(f32_to_brain(wide), brain);
            if wide.is_finite() {
                let tie = f32::from_bits(wide.to_bits() | 0x8000);
                assert_eq!(f32_to_brain(tie), brain + brain % 2, "a tie goes to the even one");
                assert_eq!(f32_to_brain(f32::from_bits(tie.to_bits() - 1)), brain);
                assert_eq!(f32_to_brain(f32::from_bits(tie.to_bits() + 1)), brain + 1);
            }
        }
    }
}

//! Counter-based random numbers: a value is a pure function of (seed, stream, index, draw).
//!
//! There is no state to share or to advance, so any piece of work can draw its own numbers in any order, two
//! configurations see the same queries (common random numbers), and threads never change a result.
//!
//! The generator is two rounds of the SplitMix64 finaliser (Steele, Lea & Flood 2014, with Stafford's "variant 13"
//! constants) over a keyed counter, enough for simulation, not for cryptography. Logarithms are our own polynomial:
//! the platform's libm changes its last bits with the instruction set.

/// What a stream of random numbers is for. The numbers are part of the random stream's version: never reorder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub enum Purpose {
    Arrivals = 1,
    Sizes = 2,
    Service = 3,
    Search = 4,
}

/// Version of the random streams; it changes whenever the same seed would give other numbers.
pub const STREAM_VERSION: u32 = 1;

/// A named stream: draws are indexed, not consumed.
#[derive(Debug, Clone, Copy)]
pub struct Stream {
    key: u64,
}

#[inline]
const fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Stream {
    /// The stream of `seed` for `purpose`; `replication` gives independent copies.
    pub const fn new(seed: u64, purpose: Purpose, replication: u64) -> Self {
        let a = mix(seed ^ 0x9e37_79b9_7f4a_7c15);
        let b = mix(a ^ (purpose as u64).wrapping_mul(0xd1b5_4a32_d192_ed03));
        Self { key: mix(b ^ replication.wrapping_mul(0x8cb9_2ba7_2f3d_8dd7)) }
    }

    /// 64 random bits at `index`.
    #[inline]
    pub const fn bits(self, index: u64) -> u64 {
        mix(mix(self.key.wrapping_add(index.wrapping_mul(0x9e37_79b9_7f4a_7c15))) ^ self.key)
    }

    /// Uniform in the open interval (0, 1): 52 bits plus a half step, so never 0 and never 1.
    #[inline]
    pub fn uniform(self, index: u64) -> f64 {
        ((self.bits(index) >> 12) as f64 + 0.5) * (1.0 / 4_503_599_627_370_496.0)
    }

    /// Exponential with mean 1.
    #[inline]
    pub fn exponential(self, index: u64) -> f64 {
        -ln(self.uniform(index))
    }
}

/// Natural logarithm of a positive, finite, normal `x`: additions, multiplications and one division only, so the
/// same bits on every machine. Relative error below 1e-15 (tested against the platform's).
///
/// With x = 2^k m, m in [sqrt(1/2), sqrt(2)), and s = (m-1)/(m+1): ln m = 2 artanh s = 2 (s + s^3/3 + s^5/5 + ...).
/// |s| <= 0.1716, so eleven terms leave less than 2 * 0.1716^23/23 = 2e-19.
#[inline]
pub fn ln(x: f64) -> f64 {
    const LN2_HI: f64 = 6.931_471_803_691_238e-1; // 33 bits, so k * LN2_HI is exact
    const LN2_LO: f64 = 1.908_214_929_270_587_7e-10;
    let bits = x.to_bits();
    // Shift the exponent's border from 1 to sqrt(1/2): add the difference of the bit patterns of 1 and sqrt(1/2).
    let shifted = bits.wrapping_add(0x3ff0_0000_0000_0000 - 0x3fe6_a09e_667f_3bcd);
    let k = ((shifted >> 52) as i64 - 1023) as f64;
    let m = f64::from_bits((shifted & 0x000f_ffff_ffff_ffff).wrapping_add(0x3fe6_a09e_667f_3bcd));
    let f = m - 1.0;
    let s = f / (m + 1.0);
    let z = s * s;
    let mut p = 1.0 / 23.0;
    p = p * z + 1.0 / 21.0;
    p = p * z + 1.0 / 19.0;
    p = p * z + 1.0 / 17.0;
    p = p * z + 1.0 / 15.0;
    p = p * z + 1.0 / 13.0;
    p = p * z + 1.0 / 11.0;
    p = p * z + 1.0 / 9.0;
    p = p * z + 1.0 / 7.0;
    p = p * z + 1.0 / 5.0;
    p = p * z + 1.0 / 3.0;
    // ln m = 2s + 2s * z * p, and 2s = f - s f keeps the leading term exact.
    let tail = s * (2.0 * z * p - f) + f;
    k * LN2_HI + (tail + k * LN2_LO)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ln_agrees_with_the_platform_to_a_few_ulp() {
        let stream = Stream::new(7, Purpose::Search, 0);
        for i in 0..200_000 {
            let u = stream.uniform(i);
            for x in [u, 1.0 / u, 1.0 + u * 1e-9, u * 1e300] {
                let (ours, theirs) = (ln(x), x.ln());
                assert!((ours - theirs).abs() <= 4.0 * f64::EPSILON * theirs.abs().max(1e-300), "ln({x:e})");
            }
        }
        assert_eq!(ln(1.0), 0.0);
    }

    #[test]
    fn uniforms_have_the_right_moments_and_streams_differ() {
        let n = 1_000_000_u64;
        let a = Stream::new(1, Purpose::Arrivals, 0);
        let b = Stream::new(1, Purpose::Sizes, 0);
        let (mut mean, mut square, mut cross, mut lag) = (0.0, 0.0, 0.0, 0.0);
        for i in 0..n {
            let (x, y, z) = (a.uniform(i) - 0.5, b.uniform(i) - 0.5, a.uniform(i + 1) - 0.5);
            mean += x;
            square += x * x;
            cross += x * y;
            lag += x * z;
        }
        let n = n as f64;
        // Five standard errors of each moment.
        assert!((mean / n).abs() < 5.0 * (1.0 / 12.0_f64).sqrt() / n.sqrt());
        assert!((square / n - 1.0 / 12.0).abs() < 5.0 * (1.0 / 180.0_f64).sqrt() / n.sqrt());
        assert!((cross / n).abs() < 5.0 / 12.0 / n.sqrt());
        assert!((lag / n).abs() < 5.0 / 12.0 / n.sqrt());
    }

    #[test]
    fn streams_are_pinned() {
        // The same seed must give the same bytes for ever (or STREAM_VERSION changes).
        let s = Stream::new(42, Purpose::Arrivals, 3);
        assert_eq!([s.bits(0), s.bits(1), s.bits(u64::MAX)].map(|b| b >> 40), PINNED);
    }

    const PINNED: [u64; 3] = [15_218_898, 6_287_484, 1_526_301];
}

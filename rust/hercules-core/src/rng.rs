//! Counter-based random numbers: a value is a pure function of (seed, stream, index, draw).
//!
//! There is no state to share or to advance, so any piece of work can draw its own numbers in any order, two
//! configurations see the same queries (common random numbers), and threads never change a result.
//!
//! The generator is the SplitMix64 finaliser (Steele, Lea & Flood 2014, with Stafford's "variant 13" constants) over the
//! Weyl sequence of SplitMix64, under a key for each stream: enough for simulation, not for cryptography. Two 64-bit
//! multiplications per number keep it cheap in vector registers. Logarithms and exponentials are our own polynomials
//! (the platform's libm changes its last bits with the instruction set) without a branch, so that loops over them become
//! vector code, and the same bits.

/// What a stream of random numbers is for. The numbers are part of the random stream's version: never reorder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub enum Purpose {
    Arrivals = 1,
    Sizes = 2,
    Service = 3,
    Search = 4,
    /// Changes of the phase of a modulated arrival process.
    Phases = 5,
    /// How many queries come together.
    Groups = 6,
    /// Disturbances of a plan in whole machines.
    WholeMachines = 7,
}

/// Version of the random streams; it changes whenever the same seed would give other numbers.
pub const STREAM_VERSION: u32 = 2;

/// A named stream: draws are indexed, not consumed.
#[derive(Debug, Clone, Copy, Default)]
#[repr(transparent)]
pub struct Stream {
    key: u64,
}

#[inline(always)] // so that it is compiled with the instructions of the loop around it
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

    /// A stream whose numbers are those of one `index` of this one: for laws that need as many as it takes.
    #[inline]
    #[must_use]
    pub const fn inner(self, index: u64) -> Self {
        Self { key: self.bits(index) }
    }

    /// 64 random bits at `index`.
    #[inline(always)]
    pub const fn bits(self, index: u64) -> u64 {
        mix(index.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ self.key)
    }

    /// Uniform in the open interval (0, 1): 52 bits plus a half step, so never 0 and never 1.
    #[inline(always)]
    pub const fn uniform(self, index: u64) -> f64 {
        // 1.m from the bits, less 1 and a half step: exact, and no conversion of an integer, which AVX2 does not have.
        const LESS: f64 = 1.0 - 0.5 / 4_503_599_627_370_496.0;
        f64::from_bits(0x3ff0_0000_0000_0000 | (self.bits(index) >> 12)) - LESS
    }

    /// Exponential with mean 1: minus the logarithm of [`Stream::uniform`], to a relative error below 2e-10, which no
    /// simulation resolves. Half of what a simulated job costs is spent here, hence no division as in [`ln`], and fused
    /// multiply-adds, which round alike wherever they are done.
    #[inline(always)]
    pub fn exponential(self, index: u64) -> f64 {
        // With u = 2^k m, m in [2/3, 4/3), and f = m - 1: ln u = k ln 2 + f P(f), P through the Chebyshev points of
        // ln(1 + f)/f on [-1/3, 1/3].
        const BORDER: u64 = 0x3fe5_5555_5555_5555;
        let shifted = self.uniform(index).to_bits().wrapping_add(0x3ff0_0000_0000_0000 - BORDER);
        let k = f64::from_bits(0x4330_0000_0000_0000 | (shifted >> 52)) - (4_503_599_627_370_496.0 + 1023.0);
        let f = f64::from_bits((shifted & 0x000f_ffff_ffff_ffff).wrapping_add(BORDER)) - 1.0;
        let mut p = -0.112_229_693_749_312_29;
        for coefficient in [
            0.121_969_540_420_115_12,
            -0.096_166_553_095_367,
            0.106_992_802_533_392_72,
            -0.125_227_080_892_888_6,
            0.143_101_037_021_861_9,
            -0.166_660_666_329_984_05,
            0.199_993_556_234_311_66,
            -0.250_000_057_549_762_3,
            0.333_333_395_132_169_85,
            -0.499_999_999_911_067_97,
            0.999_999_999_904_503,
        ] {
            p = f64::mul_add(p, f, coefficient);
        }
        f64::mul_add(-f, p, k * -std::f64::consts::LN_2)
    }
}

const LN2_HI: f64 = 6.931_471_803_691_238e-1; // 33 bits, so k * LN2_HI is exact
const LN2_LO: f64 = 1.908_214_929_270_587_7e-10;

/// Natural logarithm of a positive, finite, normal `x`: additions, multiplications and one division only, so the
/// same bits on every machine. Relative error below 1e-15 (tested against the platform's).
///
/// With x = 2^k m, m in [sqrt(1/2), sqrt(2)), and s = (m-1)/(m+1): ln m = 2 artanh s = 2 (s + s^3/3 + s^5/5 + ...).
/// |s| <= 0.1716, so what nine terms leave is less than 3e-17 of the sum. Terms are added in pairs, pairs in pairs: the
/// chain of dependent operations is what a loop over many numbers waits for.
#[inline(always)]
pub const fn ln(x: f64) -> f64 {
    let bits = x.to_bits();
    // Shift the exponent's border from 1 to sqrt(1/2): add the difference of the bit patterns of 1 and sqrt(1/2).
    let shifted = bits.wrapping_add(0x3ff0_0000_0000_0000 - 0x3fe6_a09e_667f_3bcd);
    // The integer as the low bits of 2^52 + integer: exact.
    let k = f64::from_bits(0x4330_0000_0000_0000 | (shifted >> 52)) - (4_503_599_627_370_496.0 + 1023.0);
    let m = f64::from_bits((shifted & 0x000f_ffff_ffff_ffff).wrapping_add(0x3fe6_a09e_667f_3bcd));
    let f = m - 1.0;
    let s = f / (m + 1.0);
    let z = s * s;
    let (z2, z4) = (z * z, (z * z) * (z * z));
    let low = (1.0 / 3.0 + z * (1.0 / 5.0)) + z2 * (1.0 / 7.0 + z * (1.0 / 9.0));
    let high = (1.0 / 11.0 + z * (1.0 / 13.0)) + z2 * (1.0 / 15.0 + z * (1.0 / 17.0));
    let p = low + z4 * (high + z4 * (1.0 / 19.0));
    // ln m = 2s + 2s * z * p, and 2s = f - s f keeps the leading term exact.
    let tail = s * (2.0 * z * p - f) + f;
    k * LN2_HI + (tail + k * LN2_LO)
}

/// e^x for |x| <= 700 by range reduction and a Taylor polynomial; relative error below 2e-15.
#[inline(always)]
pub fn exp(x: f64) -> f64 {
    const SHIFT: f64 = 6_755_399_441_055_744.0; // 1.5 * 2^52: adding it rounds to a whole number, in the low bits
    let shifted = x * std::f64::consts::LOG2_E + SHIFT;
    let k = shifted - SHIFT;
    let r = (x - k * LN2_HI) - k * LN2_LO;
    // |r| <= 0.35: the first term left out is r^14/14! < 5e-18.
    let mut sum = 1.0 / 6_227_020_800.0;
    for coefficient in [
        1.0 / 479_001_600.0,
        1.0 / 39_916_800.0,
        1.0 / 3_628_800.0,
        1.0 / 362_880.0,
        1.0 / 40_320.0,
        1.0 / 5_040.0,
        1.0 / 720.0,
        1.0 / 120.0,
        1.0 / 24.0,
        1.0 / 6.0,
        0.5,
        1.0,
        1.0,
    ] {
        sum = f64::mul_add(sum, r, coefficient);
    }
    sum * f64::from_bits((shifted.to_bits() << 52).wrapping_add(0x3ff0_0000_0000_0000))
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
    fn exponentials_are_logarithms_of_uniforms() {
        let stream = Stream::new(3, Purpose::Service, 1);
        for i in 0..1_000_000 {
            let exact = -stream.uniform(i).ln();
            assert!((stream.exponential(i) / exact - 1.0).abs() < 2e-10, "{i}");
        }
    }

    #[test]
    fn exp_agrees_with_the_platform() {
        for i in -69_000..69_000 {
            let x = f64::from(i) * 0.0101;
            assert!((exp(x) / x.exp() - 1.0).abs() < 2e-15, "exp({x})");
        }
        assert_eq!(exp(0.0), 1.0);
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

    /// Mean of the product of two sequences of uniforms less a half, in standard errors.
    fn correlation(n: u64, x: impl Fn(u64) -> f64, y: impl Fn(u64) -> f64) -> f64 {
        (0..n).map(|i| (x(i) - 0.5) * (y(i) - 0.5)).sum::<f64>() * 12.0 / (n as f64).sqrt()
    }

    #[test]
    fn neighbours_parts_and_streams_are_uncorrelated() {
        const N: u64 = 200_000;
        const PART: u64 = 1 << 44;
        type Other = (String, Box<dyn Fn(u64) -> f64>);
        let first = Stream::new(0, Purpose::Service, 0);
        let mut others: Vec<Other> = Vec::new();
        for lag in [1, 2, 3, 7, 8, 64, 128, 4096, PART, 2 * PART, 3 * PART, 64 * PART, PART + 1, PART - 1] {
            others.push((format!("lag {lag}"), Box::new(move |i| first.uniform(i.wrapping_add(lag)))));
        }
        for (name, stream) in [
            ("next seed", Stream::new(1, Purpose::Service, 0)),
            ("seed of the top bit", Stream::new(1 << 63, Purpose::Service, 0)),
            ("next station", Stream::new(0, Purpose::Service, 1)),
            ("next segment", Stream::new(0, Purpose::Service, 1 << 16)),
            ("next purpose", Stream::new(0, Purpose::Search, 0)),
            ("inner", first.inner(5)),
        ] {
            others.push((name.to_owned(), Box::new(move |i| stream.uniform(i))));
        }
        others.push(("inner streams of neighbours".to_owned(), Box::new(move |i| first.inner(i).uniform(0))));
        for (name, other) in others {
            assert!(correlation(N, |i| first.uniform(i), &other).abs() < 5.0, "{name}");
            // Large numbers, which make large latencies, come together no more often than they should.
            let both = (0..N).filter(|i| first.uniform(*i) > 0.99 && other(*i) > 0.99).count() as f64;
            assert!((both - N as f64 * 1e-4).abs() < 5.0 * (N as f64 * 1e-4).sqrt(), "{name}: {both} together");
        }
    }

    #[test]
    fn every_bit_is_even_and_flips_with_every_bit_of_the_index() {
        let stream = Stream::new(9, Purpose::Service, 3);
        let n = 20_000_u32;
        let error = 5.0 * 0.5 * f64::from(n).sqrt();
        for bit in 0..64 {
            let ones = (0..n).filter(|i| stream.bits(u64::from(*i)) >> bit & 1 == 1).count() as f64;
            assert!((ones - f64::from(n) / 2.0).abs() < error, "bit {bit}: {ones} of {n}");
            let flips: u32 =
                (0..n).map(|i| (stream.bits(u64::from(i)) ^ stream.bits(u64::from(i) ^ 1 << bit)).count_ones()).sum();
            let share = f64::from(flips) / f64::from(n) / 64.0;
            assert!((share - 0.5).abs() < 5.0 * 0.5 / (f64::from(n) * 64.0).sqrt(), "index bit {bit}: {share}");
        }
    }

    #[test]
    fn uniforms_fill_their_interval_evenly() {
        // Chi-square over 1024 cells for the queries of each of three parts: mean 1023, deviation 45.
        let stream = Stream::new(2, Purpose::Service, 0);
        for part in 0..3_u64 {
            let mut cells = [0_u32; 1024];
            for i in 0..1_024_000 {
                cells[(stream.uniform(i + (part << 44)) * 1024.0) as usize] += 1;
            }
            let square: f64 = cells.iter().map(|count| (f64::from(*count) - 1000.0).powi(2) / 1000.0).sum();
            assert!((square - 1023.0).abs() < 5.0 * 45.2, "part {part}: {square}");
        }
    }

    #[test]
    fn streams_are_pinned() {
        // The same seed must give the same bytes for ever (or STREAM_VERSION changes).
        let s = Stream::new(42, Purpose::Arrivals, 3);
        assert_eq!([s.bits(0), s.bits(1), s.bits(u64::MAX)].map(|b| b >> 40), PINNED);
    }

    const PINNED: [u64; 3] = [9_670_655, 2_180_404, 3_525_030];
}

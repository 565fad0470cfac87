//! Instruction-set tiers: detected once, capped by `HERCULES_FAST_ISA` or by an argument, chosen once per call; and
//! threads bound to CPUs.

use crate::error::{Error, Result};
use std::sync::OnceLock;
use std::{fmt, io};

/// Name of the environment variable that caps the tier.
pub const ISA_VARIABLE: &str = "HERCULES_FAST_ISA";

/// A tier of kernels. Ordered: a CPU that has one has all before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Isa {
    /// Plain Rust that the compiler vectorises for the baseline target.
    Portable,
    /// AVX2 with FMA and F16C.
    Avx2,
    /// AVX-512 F, VL, BW and DQ.
    Avx512,
}

impl Isa {
    pub const ALL: [Self; 3] = [Self::Portable, Self::Avx2, Self::Avx512];

    pub fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
        }
    }

    /// Parse a tier's name as it stands in `HERCULES_FAST_ISA`.
    pub fn parse(text: &str) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|isa| isa.name() == text)
            .ok_or_else(|| Error::invalid(ISA_VARIABLE, format!("is {text:?}; allowed are portable, avx2, avx512")))
    }

    /// The best tier that this CPU has, whatever the cap says.
    pub fn detected() -> Self {
        static DETECTED: OnceLock<Isa> = OnceLock::new();
        *DETECTED.get_or_init(detect)
    }

    /// The tier to use: the detected one, no higher than `cap` or, without it, than `HERCULES_FAST_ISA`, which is read
    /// once: the environment is long next to a small call.
    pub fn chosen(cap: Option<Self>) -> Result<Self> {
        static FROM_ENVIRONMENT: OnceLock<Result<Isa>> = OnceLock::new();
        if let Some(cap) = cap {
            return Ok(cap.min(Self::detected()));
        }
        FROM_ENVIRONMENT
            .get_or_init(|| match std::env::var(ISA_VARIABLE) {
                Ok(text) if !text.is_empty() => Self::parse(&text).map(|cap| cap.min(Self::detected())),
                _ => Ok(Self::detected()),
            })
            .clone()
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(target_arch = "x86_64")]
fn detect() -> Isa {
    let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c");
    let avx512 = avx2
        && is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq");
    match (avx2, avx512) {
        (_, true) => Isa::Avx512,
        (true, false) => Isa::Avx2,
        (false, false) => Isa::Portable,
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn detect() -> Isa {
    Isa::Portable
}

/// CPUs have numbers below this: what the kernel can be built for.
pub const MAX_CPUS: usize = 8192;

/// Bind the calling thread to these CPUs; an error where the system refuses, say since none of them exists.
#[cfg(target_os = "linux")]
pub fn pin_this_thread(cpus: &[usize]) -> io::Result<()> {
    const BITS: usize = libc::c_ulong::BITS as usize;
    let mut mask: [libc::c_ulong; MAX_CPUS / BITS] = [0; _];
    for &cpu in cpus {
        *mask.get_mut(cpu / BITS).ok_or(io::ErrorKind::InvalidInput)? |= 1 << (cpu % BITS);
    }
    // SAFETY: the call reads as many bytes of `mask` as it is told; 0 is the calling thread.
    let failed = unsafe { libc::sched_setaffinity(0, size_of_val(&mask), mask.as_ptr().cast()) };
    if failed == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Other systems do not bind threads to CPUs.
#[cfg(not(target_os = "linux"))]
pub fn pin_this_thread(_cpus: &[usize]) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_cap_never_raises() {
        for isa in Isa::ALL {
            assert_eq!(Isa::parse(isa.name()), Ok(isa));
            assert!(Isa::chosen(Some(isa)).unwrap() <= isa);
            assert!(Isa::chosen(Some(isa)).unwrap() <= Isa::detected());
        }
        assert!(Isa::parse("AVX9").unwrap_err().to_string().contains("portable, avx2, avx512"));
    }
}

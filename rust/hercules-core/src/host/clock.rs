//! The clock that a core runs at: additions that wait for each other take a cycle each, whatever else it could do.

use super::spin::check_seconds;
use crate::control::Control;
use crate::error::{Error, Result};
use std::time::{Duration, Instant};

/// Additions in one pass through the loop, and passes of a block; a block takes some 50 us.
const UNROLLED: u64 = 64;
const PASSES: u64 = 2000;

/// GHz of the core that this thread runs on, by the fastest of the blocks of dependent additions that fit into
/// `seconds`: whatever comes between makes a block slower. None on processors whose assembly is not written here.
pub fn clock_ghz(seconds: f64, control: &Control) -> Result<Option<f64>> {
    check_seconds("seconds", seconds)?;
    let began = Instant::now();
    let mut fastest: Option<Duration> = None;
    while began.elapsed().as_secs_f64() < seconds {
        if control.cancelled() {
            return Err(Error::Cancelled);
        }
        let start = Instant::now();
        if !add_in_turn(PASSES) {
            return Ok(None);
        }
        let block = start.elapsed();
        fastest = Some(fastest.map_or(block, |so_far| so_far.min(block)));
    }
    Ok(fastest.map(|block| (UNROLLED * PASSES) as f64 / block.as_secs_f64() / 1e9))
}

/// `passes` times 64 additions, each of which needs the sum of the one before. Both operands are registers: some cores
/// fold additions of constants.
#[cfg(target_arch = "x86_64")]
fn add_in_turn(passes: u64) -> bool {
    // SAFETY: registers only, all of them declared.
    unsafe {
        std::arch::asm!(
            "2:",
            ".rept 64",
            "add {sum}, {one}",
            ".endr",
            "dec {passes}",
            "jnz 2b",
            sum = inout(reg) 0_u64 => _,
            one = in(reg) 1_u64,
            passes = inout(reg) passes => _,
            options(nomem, nostack),
        );
    }
    true
}

#[cfg(target_arch = "aarch64")]
fn add_in_turn(passes: u64) -> bool {
    // SAFETY: registers only, all of them declared.
    unsafe {
        std::arch::asm!(
            "2:",
            ".rept 64",
            "add {sum}, {sum}, {one}",
            ".endr",
            "subs {passes}, {passes}, #1",
            "b.ne 2b",
            sum = inout(reg) 0_u64 => _,
            one = in(reg) 1_u64,
            passes = inout(reg) passes => _,
            options(nomem, nostack),
        );
    }
    true
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn add_in_turn(_passes: u64) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_that_of_a_processor_of_our_time() {
        if let Some(ghz) = clock_ghz(0.02, &Control::new()).unwrap() {
            assert!((0.2..10.0).contains(&ghz), "{ghz} GHz");
        }
        assert!(clock_ghz(0.0, &Control::new()).unwrap_err().to_string().contains("seconds: is 0"));
        let control = Control::new();
        control.cancel();
        assert_eq!(clock_ghz(9.0, &control), Err(Error::Cancelled));
    }
}

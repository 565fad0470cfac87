//! How much of a CPU's time a thread really gets: it does nothing but read the clock, and the gaps between two readings
//! are the time that others had: other threads, interrupts, a hypervisor.

use super::Error;
use crate::control::Control;
use crate::cpu;
use crate::error::Result;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Longest probe.
pub const MAX_SECONDS: f64 = 60.0;

/// What one spinning thread saw.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Gaps {
    /// Share of the time that was lost in gaps longer than the least one that counts.
    pub lost_share: f64,
    /// The longest time between two readings, counted or not, in seconds.
    pub longest_s: f64,
    /// Whether the thread was bound to its CPU.
    pub pinned: bool,
}

/// Clock readings, given one after another, and the gaps between them.
#[derive(Debug, Clone, Copy)]
struct Readings {
    first: Instant,
    last: Instant,
    lost: Duration,
    longest: Duration,
}

impl Readings {
    fn starting(at: Instant) -> Self {
        Self { first: at, last: at, lost: Duration::ZERO, longest: Duration::ZERO }
    }

    fn add(&mut self, now: Instant, least: Duration) {
        let gap = now - self.last;
        self.last = now;
        self.longest = self.longest.max(gap);
        if gap > least {
            self.lost += gap;
        }
    }

    fn gaps(&self, pinned: bool) -> Gaps {
        let elapsed = (self.last - self.first).as_secs_f64();
        let lost_share = if elapsed > 0.0 { self.lost.as_secs_f64() / elapsed } else { 0.0 };
        Gaps { lost_share, longest_s: self.longest.as_secs_f64(), pinned }
    }
}

/// Spin on all of `cpus` at once for `seconds`, a thread on each; gaps longer than `least_gap_s` are lost time.
///
/// A thread that cannot be bound to its CPU spins where the system puts it, and its entry says so.
pub fn spin_gaps(cpus: &[usize], seconds: f64, least_gap_s: f64, control: &Control) -> Result<Vec<Gaps>> {
    if cpus.is_empty() || cpus.len() > crate::pool::MAX_THREADS {
        let most = crate::pool::MAX_THREADS;
        return Err(Error::invalid("cpus", format!("names {} CPUs; allowed are 1 to {most}", cpus.len())));
    }
    if let Some(far) = cpus.iter().find(|&&id| id >= cpu::MAX_CPUS) {
        return Err(Error::invalid("cpus", format!("names {far}; allowed are numbers below {}", cpu::MAX_CPUS)));
    }
    check_seconds("seconds", seconds)?;
    check_seconds("least_gap_s", least_gap_s)?;
    let (window, least) = (Duration::from_secs_f64(seconds), Duration::from_secs_f64(least_gap_s));
    let ready = AtomicUsize::new(0);
    let spin = |id: usize| {
        let pinned = cpu::pin_this_thread(&[id]).is_ok();
        ready.fetch_add(1, Ordering::AcqRel);
        while ready.load(Ordering::Acquire) < cpus.len() && !control.cancelled() {
            thread::yield_now(); // two of them may stand on one CPU
        }
        let mut readings = Readings::starting(Instant::now());
        while readings.last - readings.first < window && !control.cancelled() {
            readings.add(Instant::now(), least);
        }
        readings.gaps(pinned)
    };
    let found = thread::scope(|scope| {
        let spin = &spin;
        let spawn =
            |&id| thread::Builder::new().name(format!("hercules-spin-{id}")).spawn_scoped(scope, move || spin(id));
        let threads: std::io::Result<Vec<_>> = cpus.iter().map(spawn).collect();
        let threads = threads.map_err(|e| {
            ready.fetch_add(cpus.len(), Ordering::AcqRel); // nobody waits for those that never come
            Error::Internal(format!("cannot start {} threads: {e}", cpus.len()))
        })?;
        let join = |t: thread::ScopedJoinHandle<'_, Gaps>| {
            t.join().map_err(|_| Error::Internal("a spinning thread panicked".to_owned()))
        };
        threads.into_iter().map(join).collect::<Result<Vec<_>>>()
    })?;
    if control.cancelled() { Err(Error::Cancelled) } else { Ok(found) }
}

pub(super) fn check_seconds(name: &str, value: f64) -> Result<()> {
    if value > 0.0 && value <= MAX_SECONDS {
        return Ok(());
    }
    Err(Error::invalid(name, format!("is {value}; allowed is 0 < {name} <= {MAX_SECONDS}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn lost_time_is_the_sum_of_the_gaps_that_count(gaps_us in prop::collection::vec(0_u64..200, 1..50)) {
            let start = Instant::now();
            let mut readings = Readings::starting(start);
            let mut now = start;
            for &gap in &gaps_us {
                now += Duration::from_micros(gap);
                readings.add(now, Duration::from_micros(50));
            }
            let total: u64 = gaps_us.iter().sum();
            let lost: u64 = gaps_us.iter().filter(|&&gap| gap > 50).sum();
            let wanted = if total == 0 { 0.0 } else { lost as f64 / total as f64 };
            let found = readings.gaps(true);
            prop_assert!((found.lost_share - wanted).abs() < 1e-12);
            prop_assert!((found.longest_s * 1e6 - *gaps_us.iter().max().unwrap() as f64).abs() < 1e-6);
        }
    }

    #[test]
    fn each_cpu_has_its_entry_and_one_that_is_not_there_says_so() {
        let found = spin_gaps(&[0, cpu::MAX_CPUS - 1], 0.02, 50e-6, &Control::new()).unwrap();
        assert_eq!(found.len(), 2);
        assert!(!found[1].pinned, "nobody has that many CPUs");
        for gaps in found {
            assert!((0.0..=1.0).contains(&gaps.lost_share) && gaps.longest_s > 0.0);
        }
    }

    #[test]
    fn a_cancelled_probe_ends_without_a_result() {
        let control = Control::new();
        control.cancel();
        assert_eq!(spin_gaps(&[0], 60.0, 50e-6, &control), Err(Error::Cancelled));
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        for (cpus, seconds, least, message) in [
            (vec![], 1.0, 1e-6, "cpus: names 0 CPUs"),
            (vec![cpu::MAX_CPUS], 1.0, 1e-6, "cpus: names 8192; allowed are numbers below 8192"),
            (vec![0], 0.0, 1e-6, "seconds: is 0"),
            (vec![0], f64::NAN, 1e-6, "seconds: is NaN"),
            (vec![0], 1.0, f64::INFINITY, "least_gap_s: is inf"),
        ] {
            let error = spin_gaps(&cpus, seconds, least, &Control::new()).unwrap_err().to_string();
            assert!(error.contains(message), "{error}");
        }
    }
}

//! The generator: lets each query enter when its time has come.

use super::clock::{come_first, now_ns, sleep_until, wake_exactly};
use super::{Crew, Service};
use crate::control::Control;

/// Longest sleep: a stop is seen in between.
const NAP_NS: i64 = 20_000_000;

/// On a CPU of its own the generator wakes so long before an arrival and spins. It does not spin all the time: where a
/// host rations the time of its virtual CPUs, a second busy one takes time away from the one that is measured.
const EARLY_NS: i64 = 100_000;

/// Mean gap between arrivals from which on the generator mostly sleeps.
const CALM_NS: i64 = 4 * EARLY_NS;

/// A spinning thread that sees this much time go by at once was not running.
const GAP_NS: i64 = 50_000;

/// Let queries enter at `arrival_ns`, the first `ends[i]` jobs at the i-th, and write how late each was. Stops early
/// where the crew or `control` does. On a CPU of its own it answers which share of the time it was kept from running.
pub fn play<S: Service>(
    crew: &Crew<S>,
    arrival_ns: &[i64],
    ends: &[u32],
    own_cpu: bool,
    lag_ns: &mut Vec<i64>,
    control: &Control,
) -> Option<f64> {
    wake_exactly();
    let span_ns = arrival_ns.last().map_or(0, |last| last - arrival_ns[0]);
    if own_cpu && span_ns / arrival_ns.len() as i64 >= CALM_NS {
        come_first(); // where it mostly sleeps: the system takes a thread that never does off its CPU for 50 ms a second
    }
    let mut gaps = Gaps::default();
    let begun = now_ns();
    let over = || crew.stopped() || control.cancelled();
    for (&at, &end) in arrival_ns.iter().zip(ends) {
        let due = crew.start_ns() + at;
        let in_time = if own_cpu { gaps.wait_until(due, over) } else { sleep(due, over) };
        if !in_time {
            break;
        }
        lag_ns.push(now_ns() - due);
        crew.admit(end as usize);
        control.advance();
    }
    own_cpu.then(|| gaps.lost_ns as f64 / (now_ns() - begun).max(1) as f64)
}

/// False where it was `over` before.
fn sleep(due: i64, over: impl Fn() -> bool) -> bool {
    loop {
        let now = now_ns();
        if now >= due {
            return !over();
        }
        if over() {
            return false;
        }
        sleep_until(due.min(now + NAP_NS));
    }
}

#[derive(Default)]
struct Gaps {
    /// Time in which the thread should have run and did not: gaps while it spun, and late wakings.
    lost_ns: i64,
}

impl Gaps {
    /// False where it was `over` before. What the generator does in between is not looked at.
    fn wait_until(&mut self, due: i64, over: impl Fn() -> bool) -> bool {
        let early = due - EARLY_NS;
        if now_ns() < early {
            if !sleep(early, &over) {
                return false;
            }
            self.count(now_ns() - early);
        }
        let mut last = now_ns();
        while last < due {
            if over() {
                return false;
            }
            std::hint::spin_loop();
            let now = now_ns();
            self.count(now - last);
            last = now;
        }
        !over()
    }

    fn count(&mut self, gap_ns: i64) {
        if gap_ns > GAP_NS {
            self.lost_ns += gap_ns;
        }
    }
}

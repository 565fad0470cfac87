//! The generator: lets each query enter when its time has come.

use super::clock::{now_ns, sleep_until, wake_exactly};
use super::{Crew, Service};
use crate::control::Control;

/// Longest sleep: a stop is seen in between.
const NAP_NS: i64 = 20_000_000;

/// A spinning thread that sees this much time go by at once was not running.
const GAP_NS: i64 = 50_000;

/// Let queries enter at `arrival_ns`, the first `ends[i]` jobs at the i-th, and write how late each was. Stops early
/// where the crew or `control` does. On a CPU of its own it never sleeps, and answers which share of its time it lost.
pub fn play<S: Service>(
    crew: &Crew<S>,
    arrival_ns: &[i64],
    ends: &[u32],
    own_cpu: bool,
    lag_ns: &mut Vec<i64>,
    control: &Control,
) -> Option<f64> {
    wake_exactly();
    let mut gaps = Gaps::default();
    let over = || crew.stopped() || control.cancelled();
    for (&at, &end) in arrival_ns.iter().zip(ends) {
        let due = crew.start_ns() + at;
        let in_time = if own_cpu { gaps.spin_until(due, over) } else { sleep(due, over) };
        if !in_time {
            break;
        }
        lag_ns.push(now_ns() - due);
        crew.admit(end as usize);
        control.advance();
    }
    own_cpu.then(|| gaps.share())
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
    lost_ns: i64,
    all_ns: i64,
}

impl Gaps {
    /// False where it was `over` before. What the generator does in between is not looked at.
    fn spin_until(&mut self, due: i64, over: impl Fn() -> bool) -> bool {
        let start = now_ns();
        let mut last = start;
        while last < due {
            if over() {
                return false;
            }
            std::hint::spin_loop();
            let now = now_ns();
            if now - last > GAP_NS {
                self.lost_ns += now - last;
            }
            last = now;
        }
        self.all_ns += last - start;
        !over()
    }

    fn share(&self) -> f64 {
        if self.all_ns > 0 { self.lost_ns as f64 / self.all_ns as f64 } else { 0.0 }
    }
}

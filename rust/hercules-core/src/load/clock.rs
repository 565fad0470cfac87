//! What the system says of time and threads: the monotonic clock, a thread's own CPU time, and how often a core was
//! taken away from it. Elsewhere than on Linux, CPU time is wall time and no switch is seen.

#[cfg(target_os = "linux")]
mod system {
    fn read(clock: libc::clockid_t) -> i64 {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: writes one timespec. These clocks exist on every Linux, so the call cannot fail.
        unsafe { libc::clock_gettime(clock, &raw mut time) };
        time.tv_sec * 1_000_000_000 + time.tv_nsec
    }

    pub fn now_ns() -> i64 {
        read(libc::CLOCK_MONOTONIC)
    }

    pub fn thread_cpu_ns() -> i64 {
        read(libc::CLOCK_THREAD_CPUTIME_ID)
    }

    pub fn switches() -> i64 {
        // SAFETY: plain numbers, all zeros is a value.
        let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
        // SAFETY: writes one rusage.
        unsafe { libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage) };
        usage.ru_nivcsw
    }

    pub fn sleep_until(at_ns: i64) {
        let at = libc::timespec { tv_sec: at_ns / 1_000_000_000, tv_nsec: at_ns % 1_000_000_000 };
        // SAFETY: reads one timespec. A signal ends it early; callers look at the clock.
        unsafe {
            libc::clock_nanosleep(libc::CLOCK_MONOTONIC, libc::TIMER_ABSTIME, &raw const at, std::ptr::null_mut())
        };
    }

    pub fn wake_exactly() {
        // SAFETY: sets a number of the calling thread.
        unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1 as libc::c_ulong) };
    }

    pub fn come_first() {
        let first = libc::sched_param { sched_priority: 1 };
        // SAFETY: reads one number; 0 is the calling thread. Refused without the right to do so, which is no fault.
        unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const first) };
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    use std::sync::OnceLock;
    use std::time::{Duration, Instant};

    pub fn now_ns() -> i64 {
        static ORIGIN: OnceLock<Instant> = OnceLock::new();
        ORIGIN.get_or_init(Instant::now).elapsed().as_nanos() as i64
    }

    pub fn thread_cpu_ns() -> i64 {
        now_ns()
    }

    pub fn switches() -> i64 {
        0
    }

    pub fn sleep_until(at_ns: i64) {
        std::thread::sleep(Duration::from_nanos(u64::try_from(at_ns - now_ns()).unwrap_or(0)));
    }

    pub fn wake_exactly() {}

    pub fn come_first() {}
}

/// The monotonic clock, in nanoseconds.
pub fn now_ns() -> i64 {
    system::now_ns()
}

/// CPU time of the calling thread.
pub fn thread_cpu_ns() -> i64 {
    system::thread_cpu_ns()
}

/// How often a core was taken away from the calling thread.
pub fn switches() -> i64 {
    system::switches()
}

/// Sleep until the monotonic clock shows `at_ns`; it may be less, never much more.
pub fn sleep_until(at_ns: i64) {
    system::sleep_until(at_ns);
}

/// Ask that the calling thread's sleeps end when they should; the system rounds them up by 50 us to save power.
pub fn wake_exactly() {
    system::wake_exactly();
}

/// Ask that the calling thread runs as soon as it wants to, whatever else wants its CPU; most systems ask for a privilege.
pub fn come_first() {
    system::come_first();
}

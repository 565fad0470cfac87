//! Threads that help a caller with short work: of well below a millisecond, or in parts of some microseconds.
//!
//! A pool is wrong for it twice over. Whoever wakes the threads of a pool goes to sleep itself, and a scheduler that looks
//! at one CPU only may then leave all of them there for milliseconds (seen with two threads on a virtual machine: half of
//! the calls ran no faster than with one). And a pool's caller waits for every thread that it woke. Here the caller works
//! too, helpers are woken on other CPUs than its own, and one that has not come when the work is done is sent home.
//!
//! Helpers are kept per process id, like pools: a child of `fork` starts its own.

use crate::pool;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread::{self, Thread};

/// Turns of a loop to wait before going to sleep: helpers that are still at work are nearly done.
const TURNS_TO_WAIT: usize = 2_000;

/// What a caller wants done, on its stack.
struct Task<'a> {
    work: &'a (dyn Fn() + Sync),
    caller: Thread,
    /// Helpers that took the task and are through with it.
    finished: AtomicUsize,
    panicked: AtomicBool,
}

impl<'a> Task<'a> {
    fn new(work: &'a (dyn Fn() + Sync)) -> Self {
        Self { work, caller: thread::current(), finished: AtomicUsize::new(0), panicked: AtomicBool::new(false) }
    }
}

/// Marks a helper that is at work.
const AT_WORK: *mut Task<'static> = ptr::without_provenance_mut(1);

struct Helper {
    thread: OnceLock<Thread>,
    /// Null: free. A task: offered, not yet taken. [`AT_WORK`]: taken.
    offer: AtomicPtr<Task<'static>>,
    home: Home,
}

impl Helper {
    fn start(number: usize) -> std::io::Result<&'static Self> {
        let helper: &'static Self = Box::leak(Box::new(Self {
            thread: OnceLock::new(),
            offer: AtomicPtr::new(ptr::null_mut()),
            home: Home::default(),
        }));
        let handle = thread::Builder::new().name(format!("hercules-help-{number}")).spawn(|| helper.serve())?;
        let _ = helper.thread.set(handle.thread().clone());
        Ok(helper)
    }

    /// The helper's life.
    fn serve(&self) {
        self.home.settle();
        loop {
            thread::park();
            let seen = self.offer.load(Ordering::Relaxed);
            if seen.is_null() {
                continue; // woken for nothing, or the offer was taken back
            }
            // What is taken, and not what was seen: that one may be gone and another stand in the same place of a stack.
            let Ok(task) = self.offer.compare_exchange(seen, AT_WORK, Ordering::AcqRel, Ordering::Relaxed) else {
                continue;
            };
            // SAFETY: a caller waits for every helper that took its task, until `finished` says that it is through.
            let Task { work, caller, finished, panicked } = unsafe { &*task };
            let caller = caller.clone();
            if catch_unwind(AssertUnwindSafe(work)).is_err() {
                panicked.store(true, Ordering::Relaxed);
            }
            self.offer.store(ptr::null_mut(), Ordering::Release);
            finished.fetch_add(1, Ordering::Release); // the last look at the task
            caller.unpark();
        }
    }

    /// Offer `task`; false if the helper is not free.
    fn offer(&self, task: *mut Task<'static>) -> bool {
        let free = self.offer.compare_exchange(ptr::null_mut(), task, Ordering::AcqRel, Ordering::Relaxed).is_ok();
        if free {
            self.home.leave_this_cpu();
            if let Some(thread) = self.thread.get() {
                thread.unpark();
            }
        }
        free
    }

    /// Take the offer of `task` back; false if the helper took it.
    fn take_back(&self, task: *mut Task<'static>) -> bool {
        self.offer.compare_exchange(task, ptr::null_mut(), Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }
}

/// Offers that are open; waits for those that were taken when it goes.
struct Offers<'a> {
    task: &'a Task<'a>,
    to: Vec<&'static Helper>,
}

impl<'a> Offers<'a> {
    fn of(task: &'a Task<'a>) -> Self {
        Self { task, to: Vec::new() }
    }

    /// Offer the task to `wanted` of `helpers`, fewer if fewer are free and there are as many as CPUs.
    fn make(&mut self, helpers: &Helpers, wanted: usize) {
        let mut all = helpers.all.lock().unwrap_or_else(PoisonError::into_inner);
        let task = self.pointer();
        self.to.reserve(wanted);
        self.to.extend(all.iter().filter(|helper| helper.offer(task)).take(wanted));
        // More than a CPU has to run would only take turns; one caller is given what it asks for, though.
        let most = wanted.max(pool::available_cpus());
        while self.to.len() < wanted && all.len() < most {
            let Ok(helper) = Helper::start(all.len()) else { break }; // the caller does the work alone
            all.push(helper);
            self.to.extend(helper.offer(task).then_some(helper));
        }
    }

    /// The task as helpers know it. Its lifetime ends after that of the offers, which wait for everybody who took it.
    fn pointer(&self) -> *mut Task<'static> {
        ptr::from_ref(self.task).cast_mut().cast()
    }
}

impl Drop for Offers<'_> {
    fn drop(&mut self) {
        let task = self.pointer();
        let taken = self.to.iter().filter(|helper| !helper.take_back(task)).count();
        let mut turns = 0;
        while self.task.finished.load(Ordering::Acquire) < taken {
            turns += 1;
            if turns < TURNS_TO_WAIT {
                std::hint::spin_loop();
            } else {
                thread::park();
            }
        }
    }
}

struct Helpers {
    pid: u32,
    all: Mutex<Vec<&'static Helper>>,
}

static HELPERS: AtomicPtr<Helpers> = AtomicPtr::new(ptr::null_mut());

/// The helpers of this process: those of a parent are left behind, on purpose.
fn helpers() -> &'static Helpers {
    pool::of_this_process(&HELPERS, |helpers| helpers.pid, |pid| Helpers { pid, all: Mutex::new(Vec::new()) })
}

/// `work(0)`, `work(1)`, ... up to `count`, done by the calling thread and up to `threads - 1` helpers, each taking the next
/// one; the results in order. On a thread of a pool, the caller does it all.
pub fn share<R: Send + Sync>(threads: usize, count: usize, work: impl Fn(usize) -> R + Sync) -> Vec<R> {
    let results: Vec<OnceLock<R>> = (0..count).map(|_| OnceLock::new()).collect();
    let next = AtomicUsize::new(0);
    let drain = || {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(result) = results.get(index) else { break };
            let _ = result.set(work(index)); // nobody else has this index
        }
    };
    let wanted = threads.min(count).saturating_sub(1);
    if wanted == 0 || rayon::current_thread_index().is_some() {
        drain();
    } else {
        let task = Task::new(&drain);
        let mut offers = Offers::of(&task);
        offers.make(helpers(), wanted);
        let own = catch_unwind(AssertUnwindSafe(drain));
        drop(offers);
        if let Err(panic) = own {
            resume_unwind(panic);
        }
        assert!(!task.panicked.into_inner(), "a helping thread panicked");
    }
    results.into_iter().filter_map(OnceLock::into_inner).collect()
}

/// Where a helper may run.
#[cfg(target_os = "linux")]
#[derive(Default)]
struct Home {
    thread: std::sync::atomic::AtomicI32,
    /// The CPU that it stays away from, plus one; 0 for none.
    away: AtomicUsize,
}

#[cfg(target_os = "linux")]
impl Home {
    /// To be called by the helper.
    fn settle(&self) {
        // SAFETY: asks for a number.
        self.thread.store(unsafe { libc::gettid() }, Ordering::Release);
    }

    /// Let the helper run on any CPU that the calling thread may use, but for the one that it is on, if there is another.
    /// Whatever goes wrong, the helper is woken anyway.
    fn leave_this_cpu(&self) {
        let helper = self.thread.load(Ordering::Acquire);
        // SAFETY: asks for a number.
        let Ok(here) = usize::try_from(unsafe { libc::sched_getcpu() }) else { return };
        if helper == 0
            || here >= 8 * size_of::<libc::cpu_set_t>()
            || self.away.swap(here + 1, Ordering::Relaxed) == here + 1
        {
            return;
        }
        // SAFETY: an empty set of CPUs is all zeros; the calls read and write it with its size, and `here` lies in it.
        unsafe {
            let mut allowed: libc::cpu_set_t = std::mem::zeroed();
            if libc::sched_getaffinity(0, size_of_val(&allowed), &raw mut allowed) == 0 {
                if libc::CPU_COUNT(&allowed) > 1 {
                    libc::CPU_CLR(here, &mut allowed);
                }
                libc::sched_setaffinity(helper, size_of_val(&allowed), &raw const allowed);
            }
        }
    }
}

#[cfg(not(target_os = "linux"))]
#[derive(Default)]
struct Home;

#[cfg(not(target_os = "linux"))]
impl Home {
    fn settle(&self) {}
    fn leave_this_cpu(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    #[test]
    fn work_is_done_once_and_given_in_order() {
        for threads in 1..5 {
            for count in [0, 1, 2, 100] {
                let calls = AtomicUsize::new(0);
                let squares = share(threads, count, |i| {
                    calls.fetch_add(1, Ordering::Relaxed);
                    i * i
                });
                assert_eq!(squares, (0..count).map(|i| i * i).collect::<Vec<_>>());
                assert_eq!(calls.into_inner(), count);
            }
        }
    }

    #[test]
    fn callers_at_once_and_in_one_another_get_their_own_results() {
        thread::scope(|scope| {
            for caller in 0..6_usize {
                scope.spawn(move || {
                    for round in 0..300 {
                        let sums = share(3, 7, |i| {
                            let inner = share(2, 2, |k| caller + k);
                            inner[0] + inner[1] + i * round
                        });
                        assert_eq!(sums, (0..7).map(|i| 2 * caller + 1 + i * round).collect::<Vec<_>>());
                    }
                });
            }
        });
        let nested = pool::install(2, || share(3, 3, |_| rayon::current_num_threads())).unwrap();
        assert_eq!(nested, [2, 2, 2], "a thread of a pool does it all");
    }

    #[test]
    fn helpers_do_their_part() {
        // Each piece waits for the other one, but not for ever: helpers may be busy with other callers just now.
        let shared = || {
            let here = AtomicUsize::new(0);
            let both = share(2, 2, |_| {
                here.fetch_add(1, Ordering::SeqCst);
                let start = Instant::now();
                while here.load(Ordering::SeqCst) < 2 && start.elapsed() < Duration::from_millis(100) {
                    thread::yield_now();
                }
                thread::current().id()
            });
            both[0] != both[1]
        };
        assert!((0..100).any(|_| shared()), "one thread did it all");
    }

    #[test]
    fn the_next_helper_is_asked_where_one_is_busy() {
        let helpers = Helpers { pid: std::process::id(), all: Mutex::new(Vec::new()) };
        let released = AtomicBool::new(false);
        let nothing = || ();
        let wait = || {
            while !released.load(Ordering::Relaxed) {
                thread::yield_now();
            }
        };
        let (easy, long) = (Task::new(&nothing), Task::new(&wait));
        let mut first = Offers::of(&easy);
        first.make(&helpers, 2);
        drop(first); // two helpers, both free
        let (mut busy, mut asked) = (Offers::of(&long), Offers::of(&easy));
        busy.make(&helpers, 1);
        asked.make(&helpers, 1);
        released.store(true, Ordering::Relaxed); // before anything can fail: offers wait when they go
        assert_eq!((busy.to.len(), asked.to.len()), (1, 1));
        assert!(!ptr::eq(busy.to[0], asked.to[0]));
    }

    #[test]
    fn a_panic_reaches_the_caller_and_helpers_live_on() {
        for bad in [0, 5] {
            let outcome = catch_unwind(|| share(3, 6, |i| assert_ne!(i, bad)));
            assert!(outcome.is_err());
        }
        assert_eq!(share(3, 3, |i| i), [0, 1, 2]);
    }
}

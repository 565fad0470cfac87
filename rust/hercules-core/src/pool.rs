//! One thread pool per process id and thread count, built at first use.
//!
//! A rayon pool does not survive `fork`: the child inherits its registry without the threads, and the first
//! parallel call waits for ever. So the global pool is never touched: pools are kept per process id, a child builds
//! its own, and the parent's is leaked there (joining threads that do not exist would hang).
//!
//! The lock that guards the pools is taken only to look one up. It is keyed by process id too, so that a `fork` in
//! the middle of a look-up on another thread cannot leave the child with a lock that nobody will release.

use crate::error::{Error, Result};
use rayon::{ThreadPool, ThreadPoolBuilder};
use std::collections::BTreeMap;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Mutex, OnceLock};

/// Environment variables that set the number of threads, in order of precedence.
pub const THREAD_VARIABLES: [&str; 2] = ["HERCULES_FAST_NUM_THREADS", "RAYON_NUM_THREADS"];

/// Largest number of threads that a caller may ask for.
pub const MAX_THREADS: usize = 1024;

struct Pools {
    pid: u32,
    by_threads: Mutex<BTreeMap<usize, &'static ThreadPool>>,
}

static POOLS: AtomicPtr<Pools> = AtomicPtr::new(ptr::null_mut());

/// The pools of this process: those of a parent are left behind, on purpose.
fn pools() -> &'static Pools {
    of_this_process(&POOLS, |pools| pools.pid, |pid| Pools { pid, by_threads: Mutex::new(BTreeMap::new()) })
}

/// What `slot` holds for this process, made where it holds nothing or what a parent left there.
pub(crate) fn of_this_process<T: Sync>(
    slot: &'static AtomicPtr<T>,
    pid_of: impl Fn(&T) -> u32,
    make: impl FnOnce(u32) -> T,
) -> &'static T {
    let pid = std::process::id();
    let seen = slot.load(Ordering::Acquire);
    if !seen.is_null() {
        // SAFETY: non-null values of a slot come from Box::into_raw below and are never freed.
        let known = unsafe { &*seen };
        if pid_of(known) == pid {
            return known;
        }
    }
    let fresh = Box::into_raw(Box::new(make(pid)));
    match slot.compare_exchange(seen, fresh, Ordering::AcqRel, Ordering::Acquire) {
        // SAFETY: `fresh` was just leaked from a Box and now belongs to the slot for the life of the process.
        Ok(_) => unsafe { &*fresh },
        Err(winner) => {
            // SAFETY: the exchange failed, so nobody else has seen `fresh`; `winner` was leaked by the thread that won.
            unsafe {
                drop(Box::from_raw(fresh));
                &*winner
            }
        }
    }
}

/// Number of threads to use: the argument, else the environment, else what this process may use
/// (`available_parallelism` heeds affinity and cgroup limits).
pub fn resolve_threads(requested: Option<usize>) -> Result<usize> {
    if let Some(n) = requested {
        return check(n, "threads");
    }
    for name in THREAD_VARIABLES {
        if let Ok(text) = std::env::var(name) {
            let text = text.trim();
            if text.is_empty() {
                continue;
            }
            let n = text.parse::<usize>().map_err(|_| {
                Error::invalid(name, format!("is {text:?}; allowed is a whole number from 1 to {MAX_THREADS}"))
            })?;
            return check(n, name);
        }
    }
    Ok(available_cpus())
}

/// CPUs that this process may use, at most [`MAX_THREADS`].
pub fn available_cpus() -> usize {
    // Read once: it parses cgroup files, which costs tens of microseconds, more than a small call of a kernel.
    static AVAILABLE: OnceLock<usize> = OnceLock::new();
    *AVAILABLE.get_or_init(|| std::thread::available_parallelism().map_or(1, usize::from).min(MAX_THREADS))
}

fn check(n: usize, name: &str) -> Result<usize> {
    if (1..=MAX_THREADS).contains(&n) {
        Ok(n)
    } else {
        Err(Error::invalid(name, format!("is {n}; allowed is a whole number from 1 to {MAX_THREADS}")))
    }
}

/// This process's pool of `threads` threads.
fn pool_of(threads: usize) -> Result<&'static ThreadPool> {
    let mut map = pools().by_threads.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(pool) = map.get(&threads) {
        return Ok(pool);
    }
    let pool = ThreadPoolBuilder::new()
        .num_threads(threads)
        .thread_name(|i| format!("hercules-{i}"))
        .build()
        .map_err(|e| Error::Internal(format!("cannot start {threads} threads: {e}")))?;
    let pool: &'static ThreadPool = Box::leak(Box::new(pool));
    map.insert(threads, pool);
    Ok(pool)
}

/// Run `work` on this process's pool of `threads` threads, so that rayon calls inside use exactly these.
///
/// Called from inside a pool, it runs `work` where it stands: threads are never started inside threads.
pub fn install<R: Send>(threads: usize, work: impl FnOnce() -> R + Send) -> Result<R> {
    if rayon::current_thread_index().is_some() {
        return Ok(work());
    }
    Ok(pool_of(threads)?.install(work))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rayon::prelude::*;

    #[test]
    fn install_uses_the_number_asked_for_and_nests_inline() {
        for threads in 1..4 {
            let inside = install(threads, || {
                let nested = install(7, rayon::current_num_threads).unwrap();
                (rayon::current_num_threads(), nested, (0..100u64).into_par_iter().sum::<u64>())
            })
            .unwrap();
            assert_eq!(inside, (threads, threads, 4950));
        }
    }

    #[test]
    fn refuses_zero_and_absurd_counts() {
        assert!(resolve_threads(Some(0)).unwrap_err().to_string().contains("1 to 1024"));
        assert!(resolve_threads(Some(MAX_THREADS + 1)).is_err());
        assert_eq!(resolve_threads(Some(3)), Ok(3));
    }
}

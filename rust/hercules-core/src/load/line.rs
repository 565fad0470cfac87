//! A pool's line: what entered it in order, who waits for work, and who waits for room.

use super::clock::now_ns;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, Thread};

/// A part of a query, as it goes from line to line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Job {
    /// Its number in the order of the first line.
    pub part: u32,
    /// The query's number in the order of arrival.
    pub query: u32,
    pub items: u32,
    /// What the caller knows the query by.
    pub name: u64,
}

/// What a thread has taken, and when.
pub struct Taken<P> {
    pub job: Job,
    pub payload: Option<P>,
    pub start_ns: i64,
}

/// Whoever puts jobs in line takes no lock where the jobs stand there already ([`Line::admit`]), so a thread that loses
/// its core in the middle of a lock does not hold up the generator.
pub struct Line<P> {
    state: Mutex<State<P>>,
    freed: Condvar,
    /// Jobs that may be taken: a prefix of those that stand here.
    entered: AtomicUsize,
    /// Jobs that were; changed only under the lock.
    taken: AtomicUsize,
    /// Jobs that may be in the pool at once: its waiting places and its threads.
    room: usize,
    /// Whether threads look at an empty line without end, instead of sleeping.
    polls: bool,
    seats: Box<[Seat]>,
}

struct State<P> {
    jobs: Vec<(Job, Option<P>)>,
    /// Jobs whose result has left the pool; not counted where room has no limit.
    left: usize,
}

/// Where a thread of the pool sits between services.
#[derive(Default)]
struct Seat {
    thread: OnceLock<Thread>,
    /// It has seen an empty line and will sleep. Whoever clears it wakes the thread.
    idle: AtomicBool,
}

impl<P> Line<P> {
    /// A line with `jobs` that have not entered yet; the vector never grows beyond its capacity.
    pub fn new(jobs: Vec<(Job, Option<P>)>, room: usize, threads: usize, polls: bool) -> Self {
        Self {
            state: Mutex::new(State { jobs, left: 0 }),
            freed: Condvar::new(),
            entered: AtomicUsize::new(0),
            taken: AtomicUsize::new(0),
            room,
            polls,
            seats: (0..threads).map(|_| Seat::default()).collect(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State<P>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// To be called by the thread that takes `seat`.
    pub fn sit_down(&self, seat: usize) {
        let _ = self.seats[seat].thread.set(thread::current());
    }

    /// Let the first `entered` jobs that stand here be taken.
    pub fn admit(&self, entered: usize) {
        let before = self.entered.swap(entered, Ordering::SeqCst);
        self.wake(entered - before);
    }

    /// Put `jobs` at the end of the line; the place of the last.
    pub fn push(&self, jobs: impl IntoIterator<Item = (Job, Option<P>)>) -> usize {
        let mut state = self.state();
        let before = state.jobs.len();
        state.jobs.extend(jobs);
        let entered = state.jobs.len();
        self.entered.store(entered, Ordering::SeqCst);
        drop(state);
        self.wake(entered - before);
        entered - 1
    }

    /// Wake up to `count` threads that have nothing to do.
    fn wake(&self, mut count: usize) {
        for seat in &self.seats {
            if count == 0 {
                return;
            }
            if seat.idle.load(Ordering::SeqCst) && seat.idle.swap(false, Ordering::SeqCst) {
                if let Some(thread) = seat.thread.get() {
                    thread.unpark();
                }
                count -= 1;
            }
        }
    }

    /// The next job, first come, first served; None once `stopped`. The start is stamped in the order of the line.
    pub fn take(&self, seat: usize, stopped: &AtomicBool) -> Option<Taken<P>> {
        let idle = &self.seats[seat].idle;
        loop {
            if stopped.load(Ordering::SeqCst) {
                return None;
            }
            if let Some(taken) = self.try_take() {
                return Some(taken);
            }
            if self.polls {
                while !self.has_job() && !stopped.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
                continue;
            }
            // Whoever admits a job after this look sees that the thread is idle, and wakes it.
            idle.store(true, Ordering::SeqCst);
            if let Some(taken) = self.try_take() {
                if !idle.swap(false, Ordering::SeqCst) {
                    self.wake(1); // it may have been for another job than this one
                }
                return Some(taken);
            }
            if !stopped.load(Ordering::SeqCst) {
                thread::park();
            }
            idle.store(false, Ordering::SeqCst);
        }
    }

    fn has_job(&self) -> bool {
        self.taken.load(Ordering::Relaxed) < self.entered.load(Ordering::SeqCst)
    }

    fn try_take(&self) -> Option<Taken<P>> {
        let mut state = self.state();
        if !self.has_job() {
            return None;
        }
        let place = self.taken.fetch_add(1, Ordering::Relaxed);
        let (job, payload) = &mut state.jobs[place];
        Some(Taken { job: *job, payload: payload.take(), start_ns: now_ns() })
    }

    /// One job's result has left the pool, which makes room for another.
    pub fn leave(&self) {
        if self.room < usize::MAX {
            self.state().left += 1;
            self.freed.notify_all();
        }
    }

    /// Wait until there is room for the job at `place`, or `stopped`.
    pub fn wait_for_room(&self, place: usize, stopped: &AtomicBool) {
        if self.room < usize::MAX {
            let full = |state: &mut State<P>| place >= state.left + self.room && !stopped.load(Ordering::SeqCst);
            drop(self.freed.wait_while(self.state(), full).unwrap_or_else(PoisonError::into_inner));
        }
    }

    /// Wake everybody, after `stopped` was set.
    pub fn stop(&self) {
        for thread in self.seats.iter().filter_map(|seat| seat.thread.get()) {
            thread.unpark();
        }
        drop(self.state()); // whoever waits for room has looked before, or looks after
        self.freed.notify_all();
    }

    /// The jobs that ever stood here.
    pub fn jobs(&self) -> Vec<Job> {
        self.state().jobs.iter().map(|(job, _)| *job).collect()
    }
}

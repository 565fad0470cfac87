//! Threads that serve chained lines, and what they record.

use super::clock::{now_ns, switches, thread_cpu_ns};
use super::line::{Job, Line};
use super::{GRACE, GRACE_INTERRUPTED, MAX_POOLS, MAX_SERVICES, MAX_WORKERS, Pool, Service, check_cpus, reserved};
use crate::control::Control;
use crate::cpu;
use crate::error::{Error, Result};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicI64, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, Instant};

/// Stands for a time that has not come.
pub const NEVER: i64 = i64::MIN;

/// How long threads may take to start, and how long a waiting thread sleeps between two looks at what it waits for.
const START: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(20);

/// What is known of one service. Written by one thread; one that was left behind may write while the figures are read.
struct Cell {
    start_ns: AtomicI64,
    end_ns: AtomicI64,
    cpu_ns: AtomicI64,
    thread: AtomicI32,
    preempted: AtomicBool,
}

impl Cell {
    fn new() -> Self {
        Self {
            start_ns: AtomicI64::new(NEVER),
            end_ns: AtomicI64::new(NEVER),
            cpu_ns: AtomicI64::new(NEVER),
            thread: AtomicI32::new(-1),
            preempted: AtomicBool::new(false),
        }
    }
}

/// What the threads share.
struct Floor<S: Service> {
    lines: Vec<Line<S::Payload>>,
    /// By pool and part.
    cells: Vec<Vec<Cell>>,
    /// Parts of each query that have not ended; how many parts ended.
    open: Vec<AtomicU32>,
    ended: AtomicUsize,
    /// At so many ended parts the waiter is woken.
    target: AtomicUsize,
    stopped: AtomicBool,
    failure: Mutex<Option<S::Failure>>,
    notes: Mutex<Vec<String>>,
    ready: AtomicUsize,
    gone: AtomicUsize,
    /// Whoever waits for the end; the thread that called, unless it says otherwise.
    waiter: Mutex<Thread>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<S: Service> Floor<S> {
    fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
        for line in &self.lines {
            line.stop();
        }
        self.wake_waiter();
    }

    fn wake_waiter(&self) {
        locked(&self.waiter).unpark();
    }

    fn pin(&self, who: &str, cpus: &[usize]) -> bool {
        match cpu::pin_this_thread(cpus) {
            Ok(()) => true,
            Err(error) => {
                locked(&self.notes).push(format!("{who} could not be pinned to CPUs {cpus:?}: {error}"));
                false
            }
        }
    }

    /// All that a thread does.
    fn work(&self, pool: usize, seat: usize, service: &mut S) {
        self.lines[pool].sit_down(seat);
        self.ready.fetch_add(1, Ordering::SeqCst);
        self.wake_waiter();
        while let Some(taken) = self.lines[pool].take(seat, &self.stopped) {
            let job = taken.job;
            let cell = &self.cells[pool][job.part as usize];
            cell.start_ns.store(taken.start_ns, Ordering::Relaxed);
            cell.thread.store(seat as i32, Ordering::Relaxed);
            let (switches_before, cpu_before) = (switches(), thread_cpu_ns());
            let outcome = service.serve(job.name, job.items, taken.payload);
            let (cpu_ns, preempted) = (thread_cpu_ns() - cpu_before, switches() != switches_before);
            let end_ns = now_ns(); // last: the system calls above are part of the service, not of the hand-over
            let outcome = outcome.and_then(|payload| {
                cell.preempted.store(preempted, Ordering::Relaxed);
                cell.cpu_ns.store(cpu_ns, Ordering::Relaxed);
                cell.end_ns.store(end_ns, Ordering::Release);
                self.hand_on(pool, job, payload, service)
            });
            if let Err(failure) = outcome {
                locked(&self.failure).get_or_insert(failure);
                self.stop();
            }
        }
    }

    fn hand_on(
        &self,
        pool: usize,
        job: Job,
        payload: Option<S::Payload>,
        service: &mut S,
    ) -> std::result::Result<(), S::Failure> {
        if let Some(next) = self.lines.get(pool + 1) {
            let place = next.push([(job, payload)]);
            next.wait_for_room(place, &self.stopped);
            self.lines[pool].leave();
            return Ok(());
        }
        self.lines[pool].leave();
        if self.open[job.query as usize].fetch_sub(1, Ordering::AcqRel) == 1 {
            service.finished(job.name)?;
        }
        if self.ended.fetch_add(1, Ordering::SeqCst) + 1 == self.target.load(Ordering::SeqCst) {
            self.wake_waiter();
        }
        Ok(())
    }
}

/// Counts a thread out, however it ends.
struct Leaving<'a, S: Service>(&'a Floor<S>, &'a AtomicBool);

impl<S: Service> Drop for Leaving<'_, S> {
    fn drop(&mut self) {
        self.1.store(true, Ordering::Release);
        self.0.gone.fetch_add(1, Ordering::SeqCst);
        self.0.wake_waiter();
    }
}

struct Member {
    pool: usize,
    seat: usize,
    gone: Arc<AtomicBool>,
    handle: JoinHandle<()>,
}

/// Pools at work.
pub(super) struct Crew<S: Service> {
    floor: Arc<Floor<S>>,
    members: Vec<Member>,
    start_ns: i64,
}

impl<S: Service> Crew<S> {
    /// Start the threads of `pools` on a first line with `jobs`, of up to `queries` queries. None has entered yet.
    ///
    /// What is recorded has as many places as `jobs` has room.
    pub fn start(pools: Vec<Pool<S>>, jobs: Vec<Job>, queries: usize) -> Result<Self> {
        check_pools(&pools)?;
        let parts = jobs.capacity();
        if parts.saturating_mul(pools.len()) > MAX_SERVICES {
            let message = format!("make {parts} services in each of {} pools", pools.len());
            return Err(Error::invalid("sizes", format!("{message}; allowed are {MAX_SERVICES} in all")));
        }
        let mut open: Vec<AtomicU32> = reserved(queries)?;
        open.resize_with(queries, AtomicU32::default);
        for job in &jobs {
            *open[job.query as usize].get_mut() += 1;
        }
        let mut lines = Vec::with_capacity(pools.len());
        let mut cells = Vec::with_capacity(pools.len());
        let mut jobs = Some(jobs);
        for pool in &pools {
            let threads = pool.workers.len();
            let mut standing = reserved(parts)?;
            standing.extend(jobs.take().into_iter().flatten().map(|job| (job, None)));
            let room = pool.buffer.map_or(usize::MAX, |buffer| buffer + threads);
            lines.push(Line::new(standing, room, threads, pool.polls));
            let mut of_pool = reserved(parts)?;
            of_pool.resize_with(parts, Cell::new);
            cells.push(of_pool);
        }
        let floor = Arc::new(Floor {
            lines,
            cells,
            open,
            ended: AtomicUsize::new(0),
            target: AtomicUsize::new(usize::MAX),
            stopped: AtomicBool::new(false),
            failure: Mutex::new(None),
            notes: Mutex::new(Vec::new()),
            ready: AtomicUsize::new(0),
            gone: AtomicUsize::new(0),
            waiter: Mutex::new(thread::current()),
        });
        let mut crew = Self { floor, members: Vec::new(), start_ns: 0 };
        for (pool, Pool { workers, mut cpus, .. }) in pools.into_iter().enumerate() {
            cpus.resize(workers.len(), Vec::new());
            for (seat, (service, cpus)) in workers.into_iter().zip(cpus).enumerate() {
                crew.hire(pool, seat, service, cpus)?;
            }
        }
        let all = crew.members.len();
        let patience = Instant::now();
        while crew.floor.ready.load(Ordering::SeqCst) < all && crew.floor.gone.load(Ordering::SeqCst) == 0 {
            if patience.elapsed() > START {
                return Err(Error::Internal(format!("not all of {all} threads started within {START:?}")));
            }
            thread::park_timeout(LOOK);
        }
        crew.start_ns = now_ns();
        Ok(crew)
    }

    fn hire(&mut self, pool: usize, seat: usize, service: S, cpus: Vec<usize>) -> Result<()> {
        let floor = Arc::clone(&self.floor);
        let gone = Arc::new(AtomicBool::new(false));
        let own = Arc::clone(&gone);
        let life = move || {
            let _leaving = Leaving(&floor, &own);
            if !cpus.is_empty() {
                floor.pin(&format!("thread {seat} of pool {pool}"), &cpus);
            }
            service.around(|service| floor.work(pool, seat, service));
        };
        let spawned = thread::Builder::new().name(format!("hercules-{pool}-{seat}")).spawn(life);
        let handle = spawned.map_err(|error| Error::Internal(format!("cannot start a thread: {error}")))?;
        self.members.push(Member { pool, seat, gone, handle });
        Ok(())
    }

    /// The monotonic clock at the start of the run.
    pub fn start_ns(&self) -> i64 {
        self.start_ns
    }

    /// Let the run start `lead_ns` from now.
    pub(super) fn start_in(&mut self, lead_ns: i64) {
        self.start_ns = now_ns() + lead_ns;
    }

    /// Whether the run has ended early.
    pub fn stopped(&self) -> bool {
        self.floor.stopped.load(Ordering::Relaxed) || self.floor.gone.load(Ordering::Relaxed) > 0
    }

    /// Pin the calling thread; where that fails it is noted.
    pub(super) fn pinned(&self, who: &str, cpus: &[usize]) -> bool {
        self.floor.pin(who, cpus)
    }

    /// Let the first `entered` jobs of the first line be served.
    pub(super) fn admit(&self, entered: usize) {
        self.floor.lines[0].admit(entered);
    }

    /// Put the parts of a query at the end of the first line.
    pub(super) fn push(&self, query: usize, jobs: impl ExactSizeIterator<Item = Job>) {
        self.floor.open[query].store(jobs.len() as u32, Ordering::Release);
        self.floor.lines[0].push(jobs.map(|job| (job, None)));
    }

    /// Wait until `parts` have ended, or for the monotonic clock to show `deadline`, then send the threads home.
    pub(super) fn finish(mut self, deadline: i64, parts: usize, control: &Control) -> Result<Outcome<S::Failure>> {
        let floor = Arc::clone(&self.floor);
        let over = |now| now >= deadline || self.stopped() || control.cancelled();
        *locked(&floor.waiter) = thread::current();
        floor.target.store(parts, Ordering::SeqCst);
        while floor.ended.load(Ordering::SeqCst) < parts && !over(now_ns()) {
            let left = u64::try_from(deadline.saturating_sub(now_ns())).unwrap_or(0);
            thread::park_timeout(LOOK.min(Duration::from_nanos(left)));
        }
        let gave_up_ns = now_ns();
        floor.stop();
        let grace = if control.cancelled() { GRACE_INTERRUPTED } else { GRACE };
        let patience = Instant::now();
        while floor.gone.load(Ordering::SeqCst) < self.members.len() && patience.elapsed() < grace {
            thread::park_timeout(LOOK);
        }
        let mut stuck = Vec::new();
        for Member { pool, seat, gone, handle } in self.members.drain(..) {
            if !gone.load(Ordering::Acquire) {
                stuck.push(Stuck { pool, thread: seat });
            } else if handle.join().is_err() {
                return Err(Error::Internal(format!("thread {seat} of pool {pool} stopped unexpectedly")));
            }
        }
        let jobs = floor.lines[0].jobs();
        let complete = floor.ended.load(Ordering::Acquire) >= parts;
        let mut report = Report::of(jobs, &floor.cells, self.start_ns);
        if !complete {
            report.duration_ns = report.duration_ns.max(gave_up_ns - self.start_ns);
        }
        report.notes.append(&mut locked(&floor.notes));
        let failure = locked(&floor.failure).take();
        Ok(Outcome { report, failure, stuck })
    }
}

impl<S: Service> Drop for Crew<S> {
    /// Send threads home where a start failed half-way; they are not waited for.
    fn drop(&mut self) {
        self.floor.stop();
    }
}

fn check_pools<S>(pools: &[Pool<S>]) -> Result<()> {
    if pools.is_empty() || pools.len() > MAX_POOLS {
        return Err(Error::invalid("pools", format!("are {}; allowed are 1 to {MAX_POOLS}", pools.len())));
    }
    for (k, pool) in pools.iter().enumerate() {
        let workers = pool.workers.len();
        if workers == 0 || workers > MAX_WORKERS {
            let allowed = format!("allowed are 1 to {MAX_WORKERS}");
            return Err(Error::invalid(format!("pools[{k}].workers"), format!("are {workers}; {allowed}")));
        }
        if !pool.cpus.is_empty() && pool.cpus.len() != workers {
            let message = format!("has {} entries; allowed is one per worker, {workers}", pool.cpus.len());
            return Err(Error::invalid(format!("pools[{k}].cpus"), message));
        }
        for (i, cpus) in pool.cpus.iter().enumerate() {
            check_cpus(&format!("pools[{k}].cpus[{i}]"), cpus)?;
        }
        if pool.buffer.is_some_and(|buffer| k == 0 || buffer > MAX_SERVICES) {
            let allowed = format!("allowed are up to {MAX_SERVICES} places, none given for the first pool");
            return Err(Error::invalid(format!("pools[{k}].buffer"), format!("is {:?}; {allowed}", pool.buffer)));
        }
    }
    Ok(())
}

/// A thread that did not come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stuck {
    pub pool: usize,
    pub thread: usize,
}

/// What came of a run.
#[derive(Debug)]
pub struct Outcome<F> {
    pub report: Report,
    /// The first failure of a service.
    pub failure: Option<F>,
    /// Threads that were left behind.
    pub stuck: Vec<Stuck>,
}

/// Figures of one pool, by part; times from the start, [`NEVER`] where they have not come.
#[derive(Debug, Default)]
pub struct Served {
    pub start_ns: Vec<i64>,
    pub end_ns: Vec<i64>,
    pub cpu_ns: Vec<i64>,
    pub thread: Vec<i32>,
    pub preempted: Vec<bool>,
}

/// All that was recorded.
#[derive(Debug, Default)]
pub struct Report {
    pub arrival_ns: Vec<i64>,
    pub lag_ns: Vec<i64>,
    /// By query: arrival to the end of the last part, or [`NEVER`].
    pub latency_ns: Vec<i64>,
    /// By part, in the order of the first line.
    pub jobs: Vec<Job>,
    pub pools: Vec<Served>,
    pub duration_ns: i64,
    pub generator_lost_share: Option<f64>,
    pub notes: Vec<String>,
}

impl Report {
    fn of(jobs: Vec<Job>, cells: &[Vec<Cell>], start_ns: i64) -> Self {
        let since_start = |time: &AtomicI64| match time.load(Ordering::Acquire) {
            NEVER => NEVER,
            at => at - start_ns,
        };
        let served = |cells: &Vec<Cell>| {
            let cells = &cells[..jobs.len()];
            Served {
                start_ns: cells.iter().map(|cell| since_start(&cell.start_ns)).collect(),
                end_ns: cells.iter().map(|cell| since_start(&cell.end_ns)).collect(),
                cpu_ns: cells.iter().map(|cell| cell.cpu_ns.load(Ordering::Relaxed)).collect(),
                thread: cells.iter().map(|cell| cell.thread.load(Ordering::Relaxed)).collect(),
                preempted: cells.iter().map(|cell| cell.preempted.load(Ordering::Relaxed)).collect(),
            }
        };
        let pools: Vec<Served> = cells.iter().map(served).collect();
        let last = pools.iter().flat_map(|pool| &pool.end_ns).copied().max().unwrap_or(0);
        Self { jobs, pools, duration_ns: last.max(0), ..Self::default() }
    }

    /// Latencies of queries that arrived at `arrival_ns`.
    pub(super) fn settle(&mut self, arrival_ns: Vec<i64>, lag_ns: Vec<i64>) {
        let mut last_ns = vec![0; arrival_ns.len()];
        if let Some(pool) = self.pools.last() {
            for (job, &end_ns) in self.jobs.iter().zip(&pool.end_ns) {
                let last = &mut last_ns[job.query as usize];
                *last = if end_ns == NEVER || *last == NEVER { NEVER } else { end_ns.max(*last) };
            }
        }
        let latency = |(&last, &at): (&i64, &i64)| if last == NEVER { NEVER } else { last - at };
        self.latency_ns = last_ns.iter().zip(&arrival_ns).map(latency).collect();
        self.arrival_ns = arrival_ns;
        self.lag_ns = lag_ns;
    }
}

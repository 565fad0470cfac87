//! Times here are loose on purpose: other work may have the cores.

use super::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

/// Sleeps a while, hands on how often its part was served, fails or never returns at some query.
#[derive(Clone)]
struct Nap {
    ns: u64,
    fails_at: u64,
    hangs_at: u64,
    release: Arc<AtomicBool>,
    finished: Arc<AtomicUsize>,
}

impl Nap {
    fn of(ns: u64) -> Self {
        let (release, finished) = (Arc::default(), Arc::default());
        Self { ns, fails_at: u64::MAX, hangs_at: u64::MAX, release, finished }
    }
}

impl Service for Nap {
    type Payload = usize;
    type Failure = String;

    fn serve(&mut self, query: u64, _: u32, payload: Option<usize>) -> std::result::Result<Option<usize>, String> {
        if query == self.fails_at {
            return Err(format!("query {query}"));
        }
        while query == self.hangs_at && !self.release.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(1));
        }
        thread::sleep(Duration::from_nanos(self.ns));
        Ok(Some(payload.unwrap_or(0) + 1))
    }

    fn finished(&mut self, _: u64) -> std::result::Result<(), String> {
        self.finished.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

fn pool(nap: &Nap, threads: usize, buffer: Option<usize>) -> Pool<Nap> {
    Pool { workers: vec![nap.clone(); threads], cpus: Vec::new(), buffer, polls: false }
}

fn all_at_once(queries: usize) -> Schedule {
    Schedule::new(&vec![0.0; queries], &vec![1; queries], None).unwrap()
}

#[test]
fn threads_that_poll_serve_the_same_and_go_home() {
    let nap = Nap::of(1000);
    let polling = |threads| Pool { polls: true, ..pool(&nap, threads, None) };
    let arrivals: Vec<f64> = (0..60).map(|i| f64::from(i) * 5e-4).collect();
    let schedule = Schedule::new(&arrivals, &[2; 60], Some(1)).unwrap();
    let outcome = run(vec![polling(2), polling(1)], schedule, None, 30.0, &Control::new()).unwrap();
    assert!(outcome.stuck.is_empty());
    assert_eq!(nap.finished.load(Ordering::Relaxed), 60);
    assert!(outcome.report.pools.iter().all(|pool| pool.start_ns.iter().all(|&ns| ns > 0)));
    assert!(outcome.report.pools[0].start_ns.is_sorted(), "first come, first served");
}

#[test]
fn each_part_is_served_once_in_each_pool_and_starts_in_the_order_of_the_line() {
    let sizes: Vec<i64> = (0..200).map(|i| 1 + i % 7).collect();
    let arrivals: Vec<f64> = (0..200).map(|i| f64::from(i) * 1e-4).collect();
    let nap = Nap::of(1000);
    let schedule = Schedule::new(&arrivals, &sizes, Some(3)).unwrap();
    let outcome = run(vec![pool(&nap, 3, None), pool(&nap, 2, None)], schedule, None, 30.0, &Control::new()).unwrap();
    let report = outcome.report;
    let parts: Vec<(u32, u32)> = report.jobs.iter().map(|job| (job.query, job.items)).collect();
    let expected: Vec<(u32, u32)> = (0..200u32)
        .flat_map(|q| {
            let size = 1 + q % 7;
            (0..size.div_ceil(3)).map(move |k| (q, 3.min(size - 3 * k)))
        })
        .collect();
    assert_eq!(parts, expected);
    assert_eq!(nap.finished.load(Ordering::Relaxed), 200);
    assert!(report.latency_ns.iter().all(|&ns| ns > 0));
    assert!(report.pools[0].start_ns.is_sorted(), "first come, first served");
    for pool in &report.pools {
        assert!(pool.start_ns.iter().zip(&pool.end_ns).all(|(start, end)| start <= end));
        assert!(pool.thread.iter().all(|&thread| thread >= 0));
    }
    for part in 0..parts.len() {
        assert!(report.pools[0].end_ns[part] <= report.pools[1].start_ns[part]);
    }
    let last = report.pools[1].end_ns.iter().max().unwrap();
    assert_eq!(report.duration_ns, *last);
}

#[test]
fn a_full_line_blocks_the_thread_before_it() {
    for buffer in [0, 1, 3] {
        let (quick, slow) = (Nap::of(1), Nap::of(2_000_000));
        let pools = vec![pool(&quick, 1, None), pool(&slow, 1, Some(buffer))];
        let report = run(pools, all_at_once(30), None, 30.0, &Control::new()).unwrap().report;
        let (first, second) = (&report.pools[0], &report.pools[1]);
        // Part k enters the second pool when part k - buffer - 1 has left it; only then is part k + 1 begun.
        for k in buffer + 1..29 {
            assert!(first.start_ns[k + 1] >= second.end_ns[k - buffer - 1], "buffer {buffer}, part {k}");
        }
    }
}

#[test]
fn overload_ends_at_the_drain_limit() {
    let start = Instant::now();
    let outcome =
        run(vec![pool(&Nap::of(20_000_000), 1, None)], all_at_once(1000), None, 0.2, &Control::new()).unwrap();
    assert!(start.elapsed() < Duration::from_secs(10));
    let ended = outcome.report.latency_ns.iter().filter(|&&ns| ns != NEVER).count();
    assert!((1..=20).contains(&ended), "{ended}");
    assert!(outcome.stuck.is_empty() && outcome.failure.is_none());
}

#[test]
fn a_failure_ends_the_run() {
    let nap = Nap { fails_at: 5, ..Nap::of(1) };
    let outcome = run(vec![pool(&nap, 2, None)], all_at_once(100_000), None, 60.0, &Control::new()).unwrap();
    assert_eq!(outcome.failure.as_deref(), Some("query 5"));
}

#[test]
fn a_thread_that_does_not_return_is_named_and_left_behind() {
    let nap = Nap { hangs_at: 3, ..Nap::of(1) };
    let start = Instant::now();
    let outcome = run(vec![pool(&nap, 2, None)], all_at_once(10), None, 0.1, &Control::new()).unwrap();
    assert!(start.elapsed() < Duration::from_secs(20));
    assert_eq!(outcome.stuck.len(), 1);
    let missing: Vec<usize> = (0..10).filter(|&q| outcome.report.latency_ns[q] == NEVER).collect();
    assert_eq!(missing, [3], "the other thread served the rest");
    nap.release.store(true, Ordering::Relaxed);
}

#[test]
fn a_stop_is_heard() {
    let control = Control::new();
    let schedule = Schedule::new(&[0.0, 1000.0], &[1, 1], None).unwrap();
    let start = Instant::now();
    let outcome = thread::scope(|scope| {
        let run = scope.spawn(|| run(vec![pool(&Nap::of(1), 1, None)], schedule, None, 5.0, &control));
        thread::sleep(Duration::from_millis(100));
        control.cancel();
        run.join().unwrap().unwrap()
    });
    assert!(start.elapsed() < Duration::from_secs(20));
    assert_ne!(outcome.report.latency_ns[0], NEVER);
    assert_eq!(outcome.report.latency_ns[1], NEVER);
    assert_eq!(outcome.report.lag_ns[1], NEVER);
}

#[test]
fn no_job_is_left_standing_while_a_thread_sleeps() {
    // Trivial services and four threads that fall asleep all the time: a lost wake-up leaves a job for good.
    let nap = Nap::of(0);
    for round in 0..20 {
        let arrivals: Vec<f64> = (0..2000).map(|i| f64::from(i) * 1e-6 * f64::from(1 + round % 5)).collect();
        let schedule = Schedule::new(&arrivals, &[1; 2000], None).unwrap();
        let pools = vec![pool(&nap, 4, None), pool(&nap, 3, Some(round as usize % 3))];
        let outcome = run(pools, schedule, None, 60.0, &Control::new()).unwrap();
        assert!(outcome.report.latency_ns.iter().all(|&ns| ns != NEVER));
        assert!(outcome.report.duration_ns < 30_000_000_000);
    }
}

#[test]
fn a_server_takes_queries_from_anywhere_up_to_its_capacity() {
    let nap = Nap::of(1000);
    let server = Server::start(vec![pool(&nap, 2, None), pool(&nap, 1, Some(0))], Some(4), 90).unwrap();
    thread::scope(|scope| {
        for caller in 0..3 {
            let server = &server;
            scope.spawn(move || (0..10).for_each(|i| server.submit(1000 * caller + i, 10).unwrap()));
        }
    });
    assert!(server.submit(0, 1).unwrap_err().to_string().starts_with("capacity: is 90, and 90 parts"));
    let report = server.finish(60.0, &Control::new()).unwrap().report;
    assert_eq!((report.arrival_ns.len(), report.jobs.len()), (30, 90));
    assert!(report.latency_ns.iter().all(|&ns| ns > 0));
    assert_eq!(nap.finished.load(Ordering::Relaxed), 30);
}

#[test]
fn a_cpu_that_cannot_be_had_is_noted_and_nothing_else() {
    let mut pools = vec![pool(&Nap::of(1), 1, None)];
    pools[0].cpus = vec![vec![cpu::MAX_CPUS - 1]];
    let outcome = run(pools, all_at_once(3), None, 60.0, &Control::new()).unwrap();
    assert!(outcome.report.latency_ns.iter().all(|&ns| ns != NEVER));
    assert!(outcome.report.notes[0].starts_with("thread 0 of pool 0 could not be pinned to CPUs [8191]"));
}

#[test]
fn odd_input_is_refused() {
    let refused = |result: Result<Schedule>| result.unwrap_err().to_string();
    assert!(refused(Schedule::new(&[], &[], None)).starts_with("arrival_s: has 0 entries"));
    assert!(refused(Schedule::new(&[1.0, 0.5], &[1, 1], None)).starts_with("arrival_s[1]: is 0.5"));
    assert!(refused(Schedule::new(&[f64::NAN], &[1], None)).starts_with("arrival_s[0]: is NaN"));
    assert!(refused(Schedule::new(&[0.0], &[0], None)).starts_with("sizes[0]: is 0"));
    assert!(refused(Schedule::new(&[0.0], &[1], Some(0))).starts_with("batch: is 0"));
    let many = Schedule::new(&[0.0; 200], &[MAX_ITEMS; 200], Some(1));
    assert!(refused(many).starts_with("sizes: make 200000000 parts"));
    assert!(Spin::new(-1.0, 0.0).is_err() && Spin::new(0.0, f64::NAN).is_err());
    let go = |pools| run::<Nap>(pools, all_at_once(1), None, 1.0, &Control::new()).unwrap_err().to_string();
    assert!(go(vec![]).starts_with("pools: are 0"));
    assert!(go(vec![pool(&Nap::of(1), 0, None)]).starts_with("pools[0].workers: are 0"));
    assert!(go(vec![pool(&Nap::of(1), 1, Some(1))]).starts_with("pools[0].buffer"));
}

//! Pools of sub-batches with few places between them, all at once, from event to event.
//!
//! Blocking after service: a thread whose sub-batch finds no place in the next line keeps it, and works no more until
//! there is one. Then it is not busy: it slows nobody down and costs no power. The place goes to the longest blocked.
//!
//! At each instant everything that ends now ends; results move on to where there is room, from the last line to the first,
//! since each that leaves makes room behind it; then, pool by pool along the chain, free threads take work.

use crate::queue::chain::pass::{Account, Ends, POLL_JOBS, Pass};
use crate::queue::chain::scratch::Scratch;
use crate::queue::chain::threads::{BusyCursor, Entry};
use crate::queue::chain::{Ended, SlowedBy, Watch};
use std::collections::VecDeque;

/// Entries that have ended and are kept until they are dropped together.
const ENDED: usize = 1024;

/// State of a pool, kept between runs.
#[derive(Debug, Default)]
pub struct Pool {
    threads: usize,
    /// Sub-batches that wait; those of the first pool stand in the run's entries.
    line: VecDeque<u32>,
    running: Running,
    /// Results without a place, longest first.
    held: VecDeque<u32>,
}

impl Pool {
    fn reset(&mut self, threads: u32) {
        self.threads = threads as usize;
        self.line.clear();
        self.held.clear();
        self.running.entries.clear();
        self.running.head = 0;
    }

    #[inline]
    fn free(&self) -> usize {
        self.threads - self.running.count() - self.held.len()
    }
}

/// What runs, by (end, job), in a window that slides through a list.
#[derive(Debug, Default)]
struct Running {
    entries: Vec<Entry>,
    head: usize,
}

impl Running {
    #[inline]
    fn count(&self) -> usize {
        self.entries.len() - self.head
    }

    /// When the next one ends.
    #[inline]
    fn next_end(&self) -> f64 {
        self.entries.get(self.head).map_or(f64::INFINITY, |entry| entry.time)
    }

    #[inline]
    fn pop(&mut self) -> u32 {
        self.head += 1;
        self.entries[self.head - 1].job
    }

    #[inline]
    fn push(&mut self, entry: Entry) {
        if self.head == ENDED {
            self.entries.drain(..ENDED);
            self.head = 0;
        }
        let mut at = self.entries.len();
        self.entries.push(entry);
        let later = |other: Entry| other.time > entry.time || (other.time == entry.time && other.job > entry.job);
        while at > self.head && later(self.entries[at - 1]) {
            self.entries[at] = self.entries[at - 1];
            at -= 1;
        }
        self.entries[at] = entry;
    }
}

impl Pass<'_> {
    /// This station and those after it, `count` pools together.
    pub fn run_bounded(&self, count: usize, scratch: &mut Scratch, watch: &mut Watch<'_>) -> Ended {
        let mut pools = std::mem::take(&mut scratch.pools);
        let mut histories = std::mem::take(&mut scratch.histories);
        pools.resize_with(count.max(pools.len()), Pool::default);
        let (earlier, own) = histories.split_at_mut(self.place);
        let stations = &self.system.stations[self.place..self.place + count];
        let mut workers: Vec<Worker<'_, _>> = stations
            .iter()
            .zip(own)
            .enumerate()
            .map(|(k, (station, history))| Worker {
                account: self.account(self.place + k, history),
                noise: station.noise.as_ref().map(|law| self.input.noise.factors(law, station.stage)),
                busy: match station.slowed_by {
                    SlowedBy::Nobody => Busy::One,
                    SlowedBy::Itself => Busy::Pool(k),
                    SlowedBy::Station(other) if other >= self.place => Busy::Pool(other - self.place),
                    SlowedBy::Station(other) => {
                        Busy::Earlier(BusyCursor::new(&earlier[other].starts, &earlier[other].ends))
                    }
                },
            })
            .collect();
        for (pool, station) in pools.iter_mut().zip(stations) {
            pool.reset(station.threads);
        }
        let mut ends = Ends { arrival: &scratch.arrival, done: &mut scratch.done, watch };
        let ended = self.events(&mut pools[..count], &mut workers, &scratch.entries, &mut ends);
        for (tally, worker) in scratch.tally[self.place..].iter_mut().zip(&workers) {
            *tally = worker.account.tally;
        }
        drop(workers);
        scratch.pools = pools;
        scratch.histories = histories;
        ended
    }

    fn events<N: Fn(u32, u32) -> f64>(
        &self,
        pools: &mut [Pool],
        workers: &mut [Worker<'_, N>],
        entries: &[Entry],
        ends: &mut Ends<'_, '_>,
    ) -> Ended {
        let buffer = self.system.buffer.map_or(usize::MAX, |places| places as usize);
        let (last, mut next, mut instants) = (pools.len() - 1, 0, 0);
        loop {
            if instants % POLL_JOBS == 0 && ends.watch.cancelled() {
                return Ended::Cancelled;
            }
            instants += 1;
            // An arrival is an event only to a thread that is free.
            let arrival = entries.get(next).filter(|_| pools[0].free() > 0).map_or(f64::INFINITY, |entry| entry.time);
            let now = pools.iter().map(|pool| pool.running.next_end()).fold(arrival, f64::min);
            if now == f64::INFINITY {
                ends.watch.reached = ends.done.len();
                return Ended::Complete;
            }
            for (k, pool) in pools.iter_mut().enumerate() {
                while pool.running.next_end() == now {
                    let job = pool.running.pop();
                    if k < last {
                        pool.held.push_back(job);
                    }
                }
            }
            for k in (0..last).rev() {
                let room = buffer.saturating_add(pools[k + 1].free());
                while pools[k + 1].line.len() < room
                    && let Some(job) = pools[k].held.pop_front()
                {
                    pools[k + 1].line.push_back(job);
                }
            }
            for k in 0..=last {
                while pools[k].free() > 0 {
                    let job = if k == 0 {
                        let Some(entry) = entries.get(next).filter(|entry| entry.time <= now) else { break };
                        next += 1;
                        entry.job
                    } else {
                        let Some(job) = pools[k].line.pop_front() else { break };
                        job
                    };
                    let end = self.start(job, k, now, pools, &mut workers[k]);
                    if k == last
                        && let Some(target) = ends.finished(self.split.query[job as usize], end)
                    {
                        return Ended::Missed(target);
                    }
                }
            }
        }
    }

    /// A free thread of pool `k` begins a sub-batch. Gives its end.
    #[inline]
    fn start<N: Fn(u32, u32) -> f64>(
        &self,
        job: u32,
        k: usize,
        now: f64,
        pools: &mut [Pool],
        worker: &mut Worker<'_, N>,
    ) -> f64 {
        let busy = match &mut worker.busy {
            Busy::One => 1,
            Busy::Pool(other) => (pools[*other].running.count() + usize::from(*other == k)).max(1) as u32,
            Busy::Earlier(cursor) => cursor.at(now).max(1),
        };
        let items = self.split.items[job as usize];
        let mut seconds = self.system.stations[self.place + k].table.seconds(items, busy);
        if let Some(noise) = &worker.noise {
            seconds *= noise(self.split.query[job as usize], self.split.part(job));
        }
        let end = now + seconds;
        pools[k].running.push(Entry { time: end, job });
        worker.account.executed(now, seconds, items);
        end
    }
}

/// What a pool needs beside its state.
struct Worker<'a, N> {
    account: Account<'a>,
    noise: Option<N>,
    busy: Busy<'a>,
}

/// Whose busy threads slow a pool down.
enum Busy<'a> {
    One,
    /// A pool that is simulated with it, by its place among them.
    Pool(usize),
    Earlier(BusyCursor<'a>),
}

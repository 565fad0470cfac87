//! One station's pass over its jobs in order of entry: the recursions themselves.

use crate::queue::chain::launch::next_launch;
use crate::queue::chain::scratch::{History, Tally};
use crate::queue::chain::threads::{BusyCursor, Entry, Threads, push_sorted, push_sorted_time};
use crate::queue::chain::{Detail, Ended, Input, Scratch, SlowedBy, Split, Station, System, Watch};
use crate::queue::fusion::Limits;
use crate::queue::table::{StageTable, Unit};

/// Jobs between two looks at the cancel flag: well under a millisecond of work.
pub(super) const POLL_JOBS: usize = 1 << 14;

/// The same in queries, each of which may be many jobs.
const POLL_QUERIES: usize = 64;

/// One station's pass over its jobs.
pub struct Pass<'a> {
    pub system: &'a System,
    pub input: &'a Input,
    pub split: &'a Split,
    pub place: usize,
    pub detail: Detail,
}

impl Pass<'_> {
    fn station(&self) -> &Station {
        &self.system.stations[self.place]
    }

    pub fn run(&self, scratch: &mut Scratch, watch: &mut Watch<'_>) -> Ended {
        let station = self.station();
        match &station.noise {
            None => self.with_noise(|_, _| 1.0, scratch, watch),
            Some(law) => self.with_noise(self.input.noise.factors(law, station.stage), scratch, watch),
        }
    }

    /// `noise`: what a service is multiplied by, by query and part.
    fn with_noise(&self, noise: impl Fn(u32, u32) -> f64, scratch: &mut Scratch, watch: &mut Watch<'_>) -> Ended {
        let station = self.station();
        let mut threads = std::mem::take(&mut scratch.threads);
        threads.reset(station.threads);
        let mut history = std::mem::take(&mut scratch.histories[self.place]);
        let ended = match station.slowed_by {
            SlowedBy::Nobody => self.with_busy(|_, _| 1, noise, &mut threads, &mut history, scratch, watch),
            SlowedBy::Itself => {
                let own = |threads: &mut Threads, start: f64| threads.busy_at(start);
                self.with_busy(own, noise, &mut threads, &mut history, scratch, watch)
            }
            SlowedBy::Station(other) => {
                let theirs = std::mem::take(&mut scratch.histories[other]);
                let mut cursor = BusyCursor::new(&theirs.starts, &theirs.ends);
                let busy = |_: &mut Threads, start: f64| cursor.at(start).max(1);
                let ended = self.with_busy(busy, noise, &mut threads, &mut history, scratch, watch);
                scratch.histories[other] = theirs;
                ended
            }
        };
        scratch.histories[self.place] = history;
        scratch.threads = threads;
        ended
    }

    /// Whether this is the first station and nothing is asked of it but when queries leave: nearly all the work of a
    /// search.
    pub fn is_lean(&self) -> bool {
        self.place == 0
            && self.system.offload_items == 0
            && self.detail == Detail::Latency
            && self.station().unit != Unit::Fused
            && !self.feeds_jobs()
            && !self.system.keeps_history(0)
    }

    /// Whether the next station takes this one's sub-batches one by one.
    fn feeds_jobs(&self) -> bool {
        let later = self.system.stations.get(self.place + 1).map(|station| station.unit);
        self.system.offload_items == 0 && self.station().unit == Unit::SubBatch && later == Some(Unit::SubBatch)
    }

    /// Account of the station at `place`.
    pub(super) fn account<'a>(&'a self, place: usize, history: &'a mut History) -> Account<'a> {
        Account {
            tally: Tally::default(),
            history: self.system.keeps_history(place).then_some(history),
            energy: (self.detail == Detail::Energy).then_some(&self.system.stations[place].table),
        }
    }

    fn with_busy(
        &self,
        mut busy: impl FnMut(&mut Threads, f64) -> u32,
        noise: impl Fn(u32, u32) -> f64,
        threads: &mut Threads,
        history: &mut History,
        scratch: &mut Scratch,
        watch: &mut Watch<'_>,
    ) -> Ended {
        let table = &self.station().table;
        if self.is_lean() {
            let batch = if self.station().unit == Unit::SubBatch { self.system.batch } else { u32::MAX };
            return lean_pass(&self.input.size, batch, table, busy, noise, threads, scratch, watch);
        }
        let mut ledger = Ledger {
            account: self.account(self.place, history),
            ends: Ends { arrival: &scratch.arrival, done: &mut scratch.done, watch },
            next: self.feeds_jobs().then_some(&mut scratch.next),
        };
        let (entries, split) = (&scratch.entries, self.split);
        let size = |job: u32| self.input.size[job as usize];
        let ended = match self.station().unit {
            Unit::SubBatch => {
                let service = |threads: &mut Threads, start: f64, job: u32| {
                    let items = split.items[job as usize];
                    (
                        items,
                        table.seconds(items, busy(threads, start)) * noise(split.query[job as usize], split.part(job)),
                    )
                };
                pool_pass(entries, |job| split.query[job as usize], service, threads, &mut ledger)
            }
            Unit::Query => {
                let service = |threads: &mut Threads, start: f64, job: u32| {
                    (size(job), table.seconds(size(job), busy(threads, start)) * noise(job, 0))
                };
                pool_pass(entries, |job| job, service, threads, &mut ledger)
            }
            Unit::Fused => {
                let service = |devices: &mut Threads, start: f64, first: u32, items: u32| {
                    table.seconds(items, busy(devices, start)) * noise(first, 0)
                };
                fused_pass(entries, size, &self.station().limits, service, threads, &mut ledger)
            }
        };
        scratch.tally[self.place] = ledger.account.tally;
        ended
    }
}

/// Where a pass writes what it found.
struct Ledger<'a, 'w> {
    account: Account<'a>,
    ends: Ends<'a, 'w>,
    next: Option<&'a mut Vec<Entry>>,
}

/// What a station did.
pub(super) struct Account<'a> {
    pub(super) tally: Tally,
    history: Option<&'a mut History>,
    energy: Option<&'a StageTable>,
}

impl Account<'_> {
    /// One execution on one thread.
    #[inline]
    pub(super) fn executed(&mut self, start: f64, seconds: f64, items: u32) {
        self.tally.busy_s += seconds;
        self.tally.executions += 1;
        self.tally.items += u64::from(items);
        if let Some(table) = self.energy {
            self.tally.energy_j += table.energy_j(items);
        }
        if let Some(history) = &mut self.history {
            history.starts.push(start);
            push_sorted_time(&mut history.ends, start + seconds);
        }
    }
}

/// When queries ended, as far as is known.
pub(super) struct Ends<'a, 'w> {
    pub(super) arrival: &'a [f64],
    pub(super) done: &'a mut [f64],
    pub(super) watch: &'a mut Watch<'w>,
}

impl Ends<'_, '_> {
    /// A part of `query` was in service until `end`. Gives the target now surely missed.
    #[inline]
    pub(super) fn finished(&mut self, query: u32, end: f64) -> Option<usize> {
        let query = query as usize;
        let before = self.done[query];
        if end <= before {
            return None;
        }
        self.done[query] = end;
        let arrival = self.arrival[query];
        let missed = self.watch.raised(query, before - arrival, end - arrival);
        if missed.is_some() {
            self.watch.reached = query + 1;
        }
        missed
    }
}

/// `service`: items and seconds of a job that starts now.
#[inline]
fn pool_pass(
    entries: &[Entry],
    query_of: impl Fn(u32) -> u32,
    mut service: impl FnMut(&mut Threads, f64, u32) -> (u32, f64),
    threads: &mut Threads,
    ledger: &mut Ledger<'_, '_>,
) -> Ended {
    for chunk in entries.chunks(POLL_JOBS) {
        if ledger.ends.watch.cancelled() {
            return Ended::Cancelled;
        }
        for entry in chunk {
            let start = threads.start(entry.time);
            let (items, seconds) = service(threads, start, entry.job);
            let end = start + seconds;
            threads.occupy(end);
            ledger.account.executed(start, seconds, items);
            if let Some(next) = &mut ledger.next {
                push_sorted(next, Entry { time: end, job: entry.job });
            }
            if let Some(target) = ledger.ends.finished(query_of(entry.job), end) {
                return Ended::Missed(target);
            }
        }
    }
    ledger.ends.watch.reached = ledger.ends.done.len();
    Ended::Complete
}

/// [`pool_pass`] for a first station of which only latencies and busy time are kept. Queries come in order and their
/// parts stand together, so no line of entries is made, and a query is looked at once, when its last part is placed.
#[inline]
#[allow(clippy::too_many_arguments)] // the closures are there to be compiled into the loop
fn lean_pass(
    sizes: &[u32],
    batch: u32,
    table: &StageTable,
    mut busy: impl FnMut(&mut Threads, f64) -> u32,
    noise: impl Fn(u32, u32) -> f64,
    threads: &mut Threads,
    scratch: &mut Scratch,
    watch: &mut Watch<'_>,
) -> Ended {
    let mut tally = Tally::default();
    let queries = scratch.arrival.iter().zip(&mut scratch.done).zip(sizes).enumerate();
    for (query, ((&arrival, done), &size)) in queries {
        // A query has many parts at most, so a look at the flag for each few of them is often enough.
        if query % POLL_QUERIES == 0 && watch.cancelled() {
            return Ended::Cancelled;
        }
        let (mut left, mut last_end, mut part) = (size, f64::NEG_INFINITY, 0);
        while left > 0 {
            let items = left.min(batch);
            let start = threads.start(arrival);
            let busy_threads = busy(threads, start);
            let seconds = table.seconds(items, busy_threads) * noise(query as u32, part);
            let end = start + seconds;
            threads.occupy(end);
            tally.busy_s += seconds;
            tally.executions += 1;
            part += 1;
            last_end = if end > last_end { end } else { last_end };
            left -= items;
        }
        tally.items += u64::from(size);
        *done = last_end;
        if let Some(target) = watch.raised(query, f64::NEG_INFINITY, last_end - arrival) {
            watch.reached = query + 1;
            return Ended::Missed(target);
        }
    }
    watch.reached = sizes.len();
    scratch.tally[0] = tally;
    Ended::Complete
}

/// `service`: seconds of a launch of so many items now, by its first query.
#[inline]
fn fused_pass(
    entries: &[Entry],
    size_of: impl Fn(u32) -> u32,
    limits: &Limits,
    mut service: impl FnMut(&mut Threads, f64, u32, u32) -> f64,
    devices: &mut Threads,
    ledger: &mut Ledger<'_, '_>,
) -> Ended {
    let (mut first, mut poll_at) = (0, 0);
    while first < entries.len() {
        if first >= poll_at {
            if ledger.ends.watch.cancelled() {
                return Ended::Cancelled;
            }
            poll_at = first + POLL_JOBS;
        }
        let launch = next_launch(entries, first, devices.earliest(), limits, &size_of);
        let seconds = service(devices, launch.start, entries[first].job, launch.items);
        let end = launch.start + seconds;
        devices.occupy(end);
        ledger.account.executed(launch.start, seconds, launch.items);
        for entry in &entries[first..launch.last] {
            if let Some(target) = ledger.ends.finished(entry.job, end) {
                return Ended::Missed(target);
            }
        }
        first = launch.last;
    }
    ledger.ends.watch.reached = ledger.ends.done.len();
    Ended::Complete
}

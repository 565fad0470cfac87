//! Any network, from event to event: bounded buffers, fusion with timers, interference, routes, refusals and drops.
//!
//! At one instant come first all completions, by station and then by number of the query and part, and all that follows
//! from them; then the timers of devices; then arrivals one by one. What follows is found by going over the stations of a
//! route until nothing moves: each takes what the station before holds, then each starts what it can.

use crate::control::Control;
use crate::error::{Error, Result};
use crate::queue::engine::{self, Plan, Segment, Use, query_of, service_index};
use crate::queue::network::{Interference, Service, Station};
use crate::queue::record::{Counts, InOrder, Lost, Record};
use crate::queue::recursion::Draws;
use crate::queue::source::Queries;
use crate::queue::table::Unit;
use crate::rng::Stream;
use std::cmp::Ordering;
use std::collections::{BinaryHeap, VecDeque};

/// Instants between two looks at the cancel flag.
const POLL_INSTANTS: u32 = 1 << 12;
/// Services of the slowest station after which the clock begins anew, so that times stay small next to their resolution.
const CLOCK_SERVICES: f64 = 65536.0;

/// A query, or a part of one, in a line or in service.
#[derive(Debug, Clone, Copy)]
struct Job {
    /// Number of the query in its segment, and its place in [`Server::inside`].
    id: u64,
    slot: u32,
    part: u32,
    items: u32,
    /// The fused batch that it is in.
    batch: u32,
    /// When it got in line.
    ready: f64,
}

const NO_BATCH: u32 = u32::MAX;

/// A query in the system.
#[derive(Debug, Clone, Copy, Default)]
struct Inside {
    arrival: f64,
    size: u32,
    /// Parts that the station where they come together waits for.
    parts_left: u32,
    started: bool,
}

/// An execution that ends at a known time. The heap gives the earliest first.
#[derive(Debug, Clone, Copy)]
struct End {
    time: f64,
    job: Job,
}

impl Ord for End {
    fn cmp(&self, other: &Self) -> Ordering {
        let key = |end: &Self| (end.job.id, end.job.part);
        other.time.total_cmp(&self.time).then_with(|| key(other).cmp(&key(self)))
    }
}

impl PartialOrd for End {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for End {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for End {}

/// An execution whose speed changes.
#[derive(Debug, Clone, Copy)]
struct Running {
    job: Job,
    /// Seconds that a thread alone would still need.
    left_s: f64,
}

/// A count over time.
#[derive(Debug, Clone, Copy, Default)]
struct Level {
    count: u32,
    since: f64,
    area: f64,
}

impl Level {
    #[inline]
    fn change(&mut self, now: f64, by: i32) {
        self.area += f64::from(self.count) * (now - self.since);
        self.since = now;
        self.count = self.count.wrapping_add_signed(by);
    }
}

/// Jobs that share one execution, and how many of them the device still holds.
#[derive(Debug, Default)]
struct Batch {
    jobs: Vec<Job>,
    held: u32,
}

struct Pool<'p> {
    station: &'p Station,
    stream: Stream,
    draws: Option<Draws<'p>>,
    /// Places in [`Server::pools`]: whose busy threads slow it; first and last of its route.
    slowed_by: usize,
    is_first: bool,
    is_last: bool,
    /// What the next station works on, and what the one before did.
    next_unit: Option<Unit>,
    unit_before: Option<Unit>,
    batch_limit: u32,
    line: VecDeque<Job>,
    /// Items in the line of a device.
    line_items: u64,
    idle: u32,
    busy: Level,
    blocked: Level,
    /// Results that wait for a place at the next station, longest first.
    outbox: VecDeque<Job>,
    ends: BinaryHeap<End>,
    /// With a rate that changes: what runs, since when at the speeds for so many busy threads.
    running: Vec<Running>,
    running_since: f64,
    running_busy: u32,
    stale: bool,
    /// When the next execution ends, and when the head of the line has waited long enough.
    next_end: f64,
    timer: f64,
    launches: u64,
    used: Use,
    waits: Option<Counts>,
}

impl Pool<'_> {
    fn is_dynamic(&self) -> bool {
        self.station.interference == Interference::DynamicRate
    }

    /// Progress of an execution per second while `busy` threads are.
    #[inline]
    fn rate(&self, items: u32, busy: u32) -> f64 {
        match &self.station.service {
            Service::Table { table, .. } => {
                table.seconds(items, 1) / table.seconds(items, busy.clamp(1, table.columns()))
            }
            _ => self.station.speed(busy),
        }
    }

    /// Let what runs go on at its present speed until `now`.
    fn advance(&mut self, now: f64) {
        let elapsed = now - self.running_since;
        if elapsed > 0.0 {
            for i in 0..self.running.len() {
                let rate = self.rate(self.running[i].job.items, self.running_busy);
                self.running[i].left_s -= elapsed * rate;
            }
        }
        self.running_since = now;
    }

    /// From now on so many threads are busy.
    fn retime(&mut self, now: f64, busy: u32) {
        self.advance(now);
        self.running_busy = busy;
        self.stale = false;
        self.set_next_end();
    }

    /// When an execution whose speed changes ends, if no speed changes before.
    #[inline]
    fn end_of(&self, run: &Running) -> f64 {
        self.running_since + run.left_s.max(0.0) / self.rate(run.job.items, self.running_busy)
    }

    fn set_next_end(&mut self) {
        self.next_end = self.running.iter().map(|run| self.end_of(run)).fold(f64::INFINITY, f64::min);
    }

    fn set_timer(&mut self) {
        let waits = self.station.unit == Unit::Fused && self.idle > 0;
        self.timer = match self.line.front() {
            Some(head) if waits => head.ready + self.station.limits.max_wait_s,
            _ => f64::INFINITY,
        };
    }
}

/// Accounts at one time.
struct Accounts {
    uses: Vec<Use>,
    queries: u64,
    time_s: f64,
    inside_query_s: f64,
}

struct Server<'p, 's> {
    plan: &'p Plan<'s>,
    segment: usize,
    queries: Queries<'p, 's>,
    /// Clock: `now` and all times are relative to `origin`, which moves by whole `unit`s.
    now: f64,
    origin: f64,
    unit: f64,
    /// The next arrival and its number; how many there are.
    arrival: f64,
    next_id: u64,
    total: u64,
    inside: Vec<Inside>,
    free: Vec<u32>,
    level: Level,
    pools: Vec<Pool<'p>>,
    /// First pool of each route, and the end.
    routes: Vec<usize>,
    batches: Vec<Batch>,
    free_batches: Vec<u32>,
    ended: Vec<Job>,
    record: Record,
    ordered: InOrder,
    /// At the first arrival after the warm-up; time of the latest arrival.
    warm: Option<Accounts>,
    came_s: f64,
    any_dynamic: bool,
}

/// When the clock begins anew: a power of two, so that a system whose times are all doubled does the same sums. It does not
/// depend on the arrivals, so that a recorded run repeats itself.
fn clock_unit(plan: &Plan<'_>) -> f64 {
    let slowest_s = plan.network.stations().map(|station| station.service.mean_s(1, 1)).fold(0.0, f64::max);
    let exponent = (slowest_s * CLOCK_SERVICES).to_bits() >> 52;
    f64::from_bits((exponent + 1) << 52)
}

/// Simulate one segment of `plan`.
pub fn run(plan: &Plan<'_>, segment: usize, control: &Control) -> Result<Segment> {
    let mut server = Server::new(plan, segment)?;
    server.go(control)?;
    Ok(server.finish())
}

impl<'p, 's> Server<'p, 's> {
    fn new(plan: &'p Plan<'s>, segment: usize) -> Result<Self> {
        let mut pools = Vec::new();
        let mut routes = vec![0];
        for route in &plan.network.routes {
            let first = pools.len();
            for (s, station) in route.stations.iter().enumerate() {
                let unit_of = |s: usize| route.stations.get(s).map(|station| station.unit);
                pools.push(Pool {
                    station,
                    stream: plan.service_stream(segment, first + s),
                    draws: station.service.law().map(|law| Draws::new(law, plan.service_stream(segment, first + s))),
                    slowed_by: first + station.slowed_by,
                    is_first: s == 0,
                    is_last: s + 1 == route.stations.len(),
                    next_unit: unit_of(s + 1),
                    unit_before: s.checked_sub(1).and_then(unit_of),
                    batch_limit: route.batch,
                    line: VecDeque::new(),
                    line_items: 0,
                    idle: station.threads,
                    busy: Level::default(),
                    blocked: Level::default(),
                    outbox: VecDeque::new(),
                    ends: BinaryHeap::new(),
                    running: Vec::new(),
                    running_since: 0.0,
                    running_busy: 0,
                    stale: false,
                    next_end: f64::INFINITY,
                    timer: f64::INFINITY,
                    launches: 0,
                    used: Use::default(),
                    waits: plan.waits.then(Counts::default),
                });
            }
            routes.push(pools.len());
        }
        let mut queries = plan.source.queries(plan.qps, segment, plan.cuts.len());
        let arrival = queries.next_time();
        let any_dynamic = pools.iter().any(Pool::is_dynamic);
        Ok(Self {
            plan,
            segment,
            queries,
            now: 0.0,
            origin: 0.0,
            unit: clock_unit(plan),
            arrival,
            next_id: 0,
            total: plan.cuts[segment].queries,
            inside: Vec::new(),
            free: Vec::new(),
            level: Level::default(),
            pools,
            routes,
            batches: Vec::new(),
            free_batches: Vec::new(),
            ended: Vec::new(),
            record: Record::new(plan.cuts[segment], plan.keep)?,
            ordered: InOrder::default(),
            warm: None,
            came_s: 0.0,
            any_dynamic,
        })
    }

    fn go(&mut self, control: &Control) -> Result<()> {
        let mut instants = 0;
        // A shift goes over all that is inside, so it waits for as many instants.
        let mut since_shift = 0;
        loop {
            instants += 1;
            if instants == POLL_INSTANTS {
                instants = 0;
                if control.cancelled() {
                    return Err(Error::Cancelled);
                }
            }
            let mut next = self.arrival;
            for pool in &self.pools {
                next = next.min(pool.next_end).min(pool.timer);
            }
            if next == f64::INFINITY {
                return Ok(());
            }
            if next >= self.unit && since_shift >= self.inside.len() {
                self.shift(next);
                since_shift = 0;
                continue;
            }
            since_shift += 1;
            self.now = next;
            self.completions();
            for route in 0..self.routes.len() - 1 {
                let pools = self.routes[route]..self.routes[route + 1];
                if self.pools[pools].iter().any(|pool| pool.timer == next) {
                    self.settle(route);
                }
            }
            while self.arrival == next {
                self.arrive();
            }
        }
    }

    /// Begin the clock anew. What lies ahead loses no bit; what lies behind is rounded to the resolution that times just
    /// before the shift have, and what follows from it is worked out again.
    fn shift(&mut self, next: f64) {
        let by = (next / self.unit).floor() * self.unit;
        self.origin += by;
        self.now -= by;
        self.arrival -= by;
        self.level.since -= by;
        for query in &mut self.inside {
            query.arrival -= by;
        }
        for pool in &mut self.pools {
            for job in pool.line.iter_mut().chain(&mut pool.outbox) {
                job.ready -= by;
            }
            for level in [&mut pool.busy, &mut pool.blocked] {
                level.since -= by;
            }
            let mut ends = std::mem::take(&mut pool.ends).into_vec();
            for end in &mut ends {
                end.time -= by;
            }
            pool.ends = ends.into();
            pool.next_end -= by;
            pool.set_timer();
            pool.running_since -= by;
            if pool.is_dynamic() {
                pool.set_next_end();
            }
        }
    }

    /// Everything that ends now, and what follows.
    fn completions(&mut self) {
        loop {
            let mut any = false;
            for route in 0..self.routes.len() - 1 {
                let mut here = false;
                for at in self.routes[route]..self.routes[route + 1] {
                    if self.pools[at].next_end == self.now {
                        self.complete(at);
                        here = true;
                    }
                }
                any |= here;
                if here {
                    self.settle(route);
                }
            }
            if !any {
                return;
            }
        }
    }

    fn complete(&mut self, at: usize) {
        let now = self.now;
        let pool = &mut self.pools[at];
        let mut ended = std::mem::take(&mut self.ended);
        if pool.is_dynamic() {
            let mut i = 0;
            while i < pool.running.len() {
                if pool.end_of(&pool.running[i]) == now {
                    ended.push(pool.running.swap_remove(i).job);
                } else {
                    i += 1;
                }
            }
            ended.sort_unstable_by_key(|job| (job.id, job.part));
            pool.stale = true;
            pool.next_end = f64::INFINITY;
        } else {
            while let Some(end) = pool.ends.peek()
                && end.time == now
            {
                ended.push(end.job);
                pool.ends.pop();
            }
            pool.next_end = pool.ends.peek().map_or(f64::INFINITY, |end| end.time);
        }
        let held = self.pools[at].outbox.len();
        for job in &ended {
            self.pools[at].busy.change(now, -1);
            self.finish_execution(at, *job);
        }
        let pool = &mut self.pools[at];
        if pool.station.unit == Unit::Fused {
            pool.outbox.make_contiguous()[held..].sort_unstable_by_key(|job| job.id);
        }
        ended.clear();
        self.ended = ended;
    }

    /// An execution of pool `at` is over; its thread is free, or holds what must go on.
    fn finish_execution(&mut self, at: usize, job: Job) {
        let now = self.now;
        let fused = job.batch != NO_BATCH;
        if self.pools[at].is_last {
            self.pools[at].idle += 1;
            if fused {
                let mut batch = std::mem::take(&mut self.batches[job.batch as usize].jobs);
                for job in &batch {
                    self.finish_part(*job);
                }
                batch.clear();
                self.batches[job.batch as usize].jobs = batch;
                self.free_batches.push(job.batch);
            } else {
                self.finish_part(job);
            }
            return;
        }
        let pool = &mut self.pools[at];
        if fused {
            let batch = &mut self.batches[job.batch as usize];
            batch.held = batch.jobs.len() as u32;
            pool.outbox.extend(batch.jobs.iter().map(|one| Job { batch: job.batch, ..*one }));
        } else {
            if pool.station.unit == Unit::SubBatch && pool.next_unit != Some(Unit::SubBatch) {
                let query = &mut self.inside[job.slot as usize];
                query.parts_left -= 1;
                if query.parts_left > 0 {
                    pool.idle += 1;
                    return;
                }
            }
            pool.outbox.push_back(job);
        }
        pool.blocked.change(now, 1);
    }

    fn finish_part(&mut self, job: Job) {
        let query = &mut self.inside[job.slot as usize];
        query.parts_left -= 1;
        if query.parts_left == 0 {
            let latency = self.now - query.arrival;
            self.ordered.put(job.id, latency, &mut self.record);
            self.leave(job.slot);
        }
    }

    fn leave(&mut self, slot: u32) {
        self.level.change(self.now, -1);
        self.free.push(slot);
    }

    fn arrive(&mut self) {
        let id = self.next_id;
        let now = self.now;
        self.came_s = self.origin + now;
        if id == self.plan.cuts[self.segment].warmup {
            self.warm = Some(self.accounts(id));
        }
        self.next_id += 1;
        let size = self.queries.size(id);
        self.arrival = if self.next_id < self.total { self.queries.next_time() - self.origin } else { f64::INFINITY };
        if self.plan.network.capacity.is_some_and(|most| self.level.count >= most) {
            self.ordered.put_lost(id, Lost::Refused, &mut self.record);
            return;
        }
        let query = Inside { arrival: now, size, parts_left: 0, started: false };
        let slot = if let Some(slot) = self.free.pop() {
            self.inside[slot as usize] = query;
            slot
        } else {
            self.inside.push(query);
            self.inside.len() as u32 - 1
        };
        self.level.change(now, 1);
        let route = self.plan.network.route_of(size);
        self.enter(self.routes[route], Job { id, slot, part: 0, items: size, batch: NO_BATCH, ready: now });
        self.settle(route);
    }

    /// Put what left the station before, or a new query, in the line of pool `at`.
    fn enter(&mut self, at: usize, job: Job) {
        let pool = &mut self.pools[at];
        let query = &mut self.inside[job.slot as usize];
        let job = Job { ready: self.now, batch: NO_BATCH, ..job };
        if pool.station.unit != Unit::SubBatch {
            query.parts_left = 1;
            pool.line.push_back(Job { part: 0, items: query.size, ..job });
            if pool.station.unit == Unit::Fused {
                pool.line_items += u64::from(query.size);
            }
        } else if pool.unit_before == Some(Unit::SubBatch) {
            pool.line.push_back(job);
        } else {
            query.parts_left = query.size.div_ceil(pool.batch_limit);
            let mut left = query.size;
            for part in 0..query.parts_left {
                let items = left.min(pool.batch_limit);
                left -= items;
                pool.line.push_back(Job { part, items, ..job });
            }
        }
    }

    /// Let everything of a route move that can.
    fn settle(&mut self, route: usize) {
        let (first, end) = (self.routes[route], self.routes[route + 1]);
        loop {
            let mut moved = false;
            // From the last line to the first: what moves on makes room behind it.
            for at in (first + 1..end).rev() {
                moved |= self.take(at);
            }
            for at in first..end {
                self.start(at);
            }
            if !moved {
                break;
            }
        }
        for at in first..end {
            self.pools[at].set_timer();
        }
        if self.any_dynamic {
            for at in first..end {
                let busy = self.pools[self.pools[at].slowed_by].busy.count.max(1);
                let pool = &mut self.pools[at];
                if pool.is_dynamic() && (pool.stale || busy != pool.running_busy) {
                    pool.retime(self.now, busy);
                }
            }
        }
    }

    /// Take what the pool before `at` holds, as far as threads and places allow. Whether anything moved.
    fn take(&mut self, at: usize) -> bool {
        let mut moved = false;
        while self.has_room(at) {
            let before = &mut self.pools[at - 1];
            let Some(job) = before.outbox.pop_front() else { break };
            moved = true;
            let released = job.batch == NO_BATCH || {
                let batch = &mut self.batches[job.batch as usize];
                batch.held -= 1;
                if batch.held == 0 {
                    batch.jobs.clear();
                    self.free_batches.push(job.batch);
                }
                batch.held == 0
            };
            if released {
                before.blocked.change(self.now, -1);
                before.idle += 1;
            }
            self.enter(at, job);
            if self.pools[at].station.unit == Unit::Fused {
                while self.launch(at, false) {}
            }
        }
        moved
    }

    /// An idle thread takes one more; an idle device takes what it can still wait for.
    fn has_room(&self, at: usize) -> bool {
        let pool = &self.pools[at];
        match pool.station.buffer {
            None => true,
            Some(_) if pool.station.unit == Unit::Fused && pool.idle > 0 => true,
            Some(places) if pool.station.unit == Unit::Fused => pool.line.len() < places as usize,
            Some(places) => pool.line.len() < places as usize + pool.idle as usize,
        }
    }

    /// Start what pool `at` can start.
    fn start(&mut self, at: usize) {
        if self.pools[at].station.unit == Unit::Fused {
            while self.launch(at, true) {}
            return;
        }
        while self.pools[at].idle > 0
            && let Some(&job) = self.pools[at].line.front()
        {
            if self.pools[at].is_first && self.is_late(job) {
                self.drop_head(at);
                continue;
            }
            self.pools[at].line.pop_front();
            self.inside[job.slot as usize].started = true;
            let draw = self.draw(at, service_index(job.id, u64::from(job.part)));
            self.waited(at, job);
            self.begin(at, job, draw);
        }
    }

    fn is_late(&self, job: Job) -> bool {
        let query = &self.inside[job.slot as usize];
        let limit = self.plan.network.drop_after_s;
        !query.started && limit.is_some_and(|limit| self.now - query.arrival > limit)
    }

    /// The query at the head of the line leaves, with all its parts.
    fn drop_head(&mut self, at: usize) {
        let pool = &mut self.pools[at];
        let Some(&head) = pool.line.front() else { return };
        while pool.line.front().is_some_and(|job| job.id == head.id) {
            pool.line.pop_front();
            pool.used.lost_s += self.now - head.ready;
        }
        if pool.station.unit == Unit::Fused {
            pool.line_items -= u64::from(head.items);
        }
        self.ordered.put_lost(head.id, Lost::Dropped, &mut self.record);
        self.leave(head.slot);
    }

    #[inline]
    fn draw(&mut self, at: usize, index: u64) -> f64 {
        let pool = &mut self.pools[at];
        match (&mut pool.draws, pool.station.service.law()) {
            (_, None) => 1.0,
            // Parts of a query lie far apart.
            (Some(draws), _) if query_of(index) == index => draws.get(index),
            (_, Some(law)) => law.draw(pool.stream, index),
        }
    }

    #[inline]
    fn waited(&mut self, at: usize, job: Job) {
        let wait = self.now - job.ready;
        let pool = &mut self.pools[at];
        pool.used.wait_s += wait;
        pool.used.jobs += 1;
        if let Some(waits) = &mut pool.waits
            && job.id >= self.plan.cuts[self.segment].warmup
        {
            waits.add(wait);
        }
    }

    /// A thread of pool `at` begins an execution.
    fn begin(&mut self, at: usize, job: Job, draw: f64) {
        let now = self.now;
        let pool = &mut self.pools[at];
        pool.idle -= 1;
        pool.busy.change(now, 1);
        pool.used.executions += 1;
        pool.used.items += u64::from(job.items);
        if pool.is_dynamic() {
            pool.advance(now);
            let left_s = draw * pool.station.service.mean_s(job.items, 1);
            pool.running.push(Running { job, left_s });
            pool.stale = true;
            return;
        }
        let seconds = if pool.station.interference == Interference::AtStart {
            let busy = self.pools[self.pools[at].slowed_by].busy.count.max(1);
            let station = self.pools[at].station;
            draw * station.service.mean_s(job.items, busy) / station.speed(busy)
        } else {
            draw * pool.station.service.mean_s(job.items, 1)
        };
        let pool = &mut self.pools[at];
        let end = now + seconds;
        pool.next_end = pool.next_end.min(end);
        pool.ends.push(End { time: end, job });
    }

    /// Launch one batch on an idle device if it is full, or, with `timers`, if its head has waited long enough.
    fn launch(&mut self, at: usize, timers: bool) -> bool {
        let pool = &mut self.pools[at];
        let limits = pool.station.limits;
        let Some(&head) = pool.line.front() else { return false };
        let full = pool.line.len() >= limits.queries as usize || pool.line_items >= u64::from(limits.items);
        if pool.idle == 0 || !(full || (timers && self.now >= head.ready + limits.max_wait_s)) {
            return false;
        }
        if pool.is_first && self.is_late(head) {
            self.drop_head(at);
            return true;
        }
        let number = self.free_batches.pop().unwrap_or_else(|| {
            self.batches.push(Batch::default());
            self.batches.len() as u32 - 1
        });
        let mut jobs = std::mem::take(&mut self.batches[number as usize].jobs);
        let mut items = 0_u32;
        while let Some(&job) = self.pools[at].line.front() {
            let fits = jobs.is_empty() || items.saturating_add(job.items) <= limits.items;
            if !fits || jobs.len() >= limits.queries as usize {
                break;
            }
            let pool = &mut self.pools[at];
            pool.line.pop_front();
            pool.line_items -= u64::from(job.items);
            self.inside[job.slot as usize].started = true;
            self.waited(at, job);
            items = items.saturating_add(job.items);
            jobs.push(job);
        }
        self.batches[number as usize].jobs = jobs;
        let draw = self.draw(at, self.pools[at].launches);
        self.pools[at].launches += 1;
        self.begin(at, Job { items, batch: number, ..head }, draw);
        true
    }

    /// Accounts up to now, after so many queries.
    fn accounts(&self, queries: u64) -> Accounts {
        let area = |level: Level| level.area + f64::from(level.count) * (self.now - level.since);
        let of = |pool: &Pool<'_>| Use { busy_s: area(pool.busy), blocked_s: area(pool.blocked), ..pool.used };
        Accounts {
            uses: self.pools.iter().map(of).collect(),
            queries,
            time_s: self.origin + self.now,
            inside_query_s: area(self.level),
        }
    }

    fn finish(mut self) -> Segment {
        let all = self.accounts(self.total);
        let before = self.warm.take().expect("a warm-up is shorter than its segment");
        Segment {
            uses: all.uses.into_iter().zip(before.uses).map(|(all, before)| all.less(before)).collect(),
            record: self.record,
            queries: all.queries - before.queries,
            seconds: engine::seconds(before.time_s, self.came_s, all.time_s),
            inside_query_s: all.inside_query_s - before.inside_query_s,
            waits: self.pools.iter_mut().filter_map(|pool| pool.waits.as_mut().map(Counts::take)).collect(),
        }
    }
}

//! The memory controller of one channel, from event to event: no idle cycle is stepped.
//!
//! The order of a cycle, which the slow twin (`reference.rs`) steps through one by one: refreshes fall due; one command
//! is issued at most; reads whose data are back leave; at most one request comes in. While a rank waits for its refresh,
//! the channel serves only requests whose row is open for them already: the rank is precharged and refreshed as soon as
//! that is allowed.
//!
//! A queued request wants one next command at one earliest cycle, of which the part that its bank decides is kept with
//! it and recomputed when its bank changes. The part that other banks decide is a limit shared by a bank group, so one
//! pass over the queue, two loads and two comparisons each, finds the next command of the channel.

use super::standard::Standard;
use super::state::{CLOSED, Command, Kind, RankCommand, State};
use crate::control::Control;
use crate::error::{Error, Result};
use std::collections::VecDeque;

/// Most entries of a request queue.
pub const MAX_WINDOW: usize = 1024;
/// Most requests that one channel takes in one run: their numbers are ages of 31 bits.
pub const MAX_REQUESTS: usize = 1 << 31;
/// A cycle that never comes.
const NEVER: u64 = u64::MAX;
/// Requests between two looks at the flag that asks to stop.
const POLL: u32 = 1 << 12;

/// Which of the commands that could be issued goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheduler {
    /// First ready, first come first served: the oldest request whose next command can be issued now. A request that
    /// opened its row is served before that row may be closed.
    FrFcfs,
    /// The same, and no row is closed while a queued request hits it, unless the one that wants another row has waited
    /// for `age_limit` cycles.
    RowHitFirst { age_limit: u64 },
}

/// When a row is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Page {
    /// When another row of the bank is wanted.
    Open,
    /// With the last access that is queued for it.
    Closed,
}

/// Settings of a controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Most reads that are queued or on their way back.
    pub window: usize,
    /// Least cycles between two requests that come in.
    pub gap: u64,
    /// Most writes that wait. They wait until three quarters are full or no read is queued, then go until a quarter is
    /// left and reads are waiting.
    pub write_queue: usize,
    pub scheduler: Scheduler,
    pub page: Page,
    pub refresh: bool,
}

impl Settings {
    pub fn check(&self) -> Result<()> {
        for (name, value) in [("window", self.window), ("write_queue", self.write_queue)] {
            if !(1..=MAX_WINDOW).contains(&value) {
                return Err(Error::invalid(name, format!("is {value}; allowed is from 1 to {MAX_WINDOW}")));
            }
        }
        const MOST: u64 = 1 << 32;
        if !(1..=MOST).contains(&self.gap) {
            return Err(Error::invalid("gap", format!("is {}; allowed is from 1 to {MOST} cycles", self.gap)));
        }
        if let Scheduler::RowHitFirst { age_limit } = self.scheduler
            && age_limit > MOST
        {
            return Err(Error::invalid("age_limit", format!("is {age_limit}; allowed is from 0 to {MOST} cycles")));
        }
        Ok(())
    }

    pub(super) fn write_high(&self) -> usize {
        (self.write_queue * 3).div_ceil(4)
    }

    pub(super) fn write_low(&self) -> usize {
        self.write_queue / 4
    }
}

/// One access to memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// Cycle before which it does not come.
    pub not_before: u64,
    /// Number of the bank in its channel.
    pub bank: u32,
    pub row: u32,
    pub column: u32,
    pub write: bool,
}

/// Who is told of what happens to requests, which are numbered as they come.
pub trait Observer {
    /// Request `id` came in.
    fn came_in(&mut self, _id: usize, _cycle: u64) {}
    /// Its data are there (of a write: are all sent).
    fn finished(&mut self, _id: usize, _came_in: u64, _cycle: u64) {}
    /// A command was issued; `row` is the open row after an activate.
    fn command(&mut self, _command: Issued, _bank: usize, _row: u32, _cycle: u64) {}
}

/// A command as an [`Observer`] sees it; those to a rank carry the rank's first bank.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Issued {
    Bank(Command),
    Rank(RankCommand),
}

/// What the scan reads of a queued request.
#[derive(Debug, Clone, Copy)]
struct Wish {
    /// Earliest cycle of the next command as far as the bank decides.
    at: u64,
    /// Index of the shared limit.
    limit: u32,
    /// Smaller goes first: age, with [`YIELDS`] unless the request opened its row.
    order: u32,
}

const YIELDS: u32 = 1 << 31;

/// The rest of a queued request.
#[derive(Debug, Clone, Copy)]
struct Queued {
    request: Request,
    came_in: u64,
}

/// The next command: cycle, and which request's.
#[derive(Debug, Clone, Copy)]
struct Next {
    cycle: u64,
    slot: usize,
}

/// One channel: state of its banks, the queue, the refreshes.
pub struct Controller {
    settings: Settings,
    state: State,
    ranks: Vec<Refreshing>,
    waiting_ranks: usize,
    refresh_interval: u64,
    read_latency: u64,
    write_latency: u64,
    wishes: Vec<Wish>,
    queued: Vec<Queued>,
    queued_writes: usize,
    drains_writes: bool,
    /// Banks whose row was opened for a request that still waits.
    guarded: Vec<bool>,
    /// Cycles at which issued reads are back, in order.
    in_flight: VecDeque<u64>,
    came_in: usize,
    next_entry: u64,
    /// Cycle of the last command, and earliest one of the next.
    now: u64,
    floor: u64,
    last_data: u64,
    row_hits: u64,
    forwarded: u64,
}

#[derive(Debug, Clone, Copy)]
struct Refreshing {
    due: u64,
    /// Until it is refreshed.
    waits: bool,
}

impl Controller {
    /// A channel of `ranks` ranks with all banks closed, before its first cycle, which is 1.
    ///
    /// Rank k of R is first refreshed at (k + 1) / R of the interval, so that refreshes are spread. `standard` and
    /// `settings` are checked.
    pub fn new(standard: &Standard, ranks: usize, settings: Settings) -> Self {
        let t = &standard.timing;
        let interval = u64::from(t.refi);
        let due = |k: u64| if settings.refresh { (k + 1) * interval / ranks as u64 } else { NEVER };
        let queue = settings.window + settings.write_queue;
        Self {
            settings,
            state: State::new(standard, ranks),
            ranks: (0..ranks as u64).map(|k| Refreshing { due: due(k), waits: false }).collect(),
            waiting_ranks: 0,
            refresh_interval: interval,
            read_latency: u64::from(t.cl + t.bl),
            write_latency: u64::from(t.cwl + t.bl),
            wishes: Vec::with_capacity(queue),
            queued: Vec::with_capacity(queue),
            queued_writes: 0,
            drains_writes: false,
            guarded: vec![false; ranks * standard.banks()],
            in_flight: VecDeque::with_capacity(settings.window),
            came_in: 0,
            next_entry: 1,
            now: 0,
            floor: 1,
            last_data: 0,
            row_hits: 0,
            forwarded: 0,
        }
    }

    pub fn state(&self) -> &State {
        &self.state
    }

    /// Cycle in which the last data moved.
    pub fn last_data(&self) -> u64 {
        self.last_data
    }

    /// Requests that found their row open.
    pub fn row_hits(&self) -> u64 {
        self.row_hits
    }

    /// Reads answered by a write that was still queued.
    pub fn forwarded(&self) -> u64 {
        self.forwarded
    }

    /// Take in all `requests`, in order. With `to_the_end`, go on until the last has its data; else stop right after
    /// the last one came in, so that more can follow.
    pub fn run(
        &mut self,
        requests: impl Iterator<Item = Request>,
        to_the_end: bool,
        control: Option<&Control>,
        observer: &mut impl Observer,
    ) -> Result<()> {
        let mut requests = requests.peekable();
        let mut next = self.next_command();
        let mut until_poll = POLL;
        loop {
            let entry = match requests.peek() {
                Some(request) => self.next_entry(request),
                None if !to_the_end || self.queued.is_empty() => return Ok(()),
                None => NEVER,
            };
            let (rank_cycle, rank) = self.next_rank_event();
            if rank_cycle <= next.cycle && rank_cycle <= entry {
                self.rank_event(rank, rank_cycle, observer);
                next = self.next_command();
            } else if next.cycle <= entry {
                self.issue(next, observer);
                next = self.next_command();
            } else if let Some(request) = requests.next() {
                next = self.take_in(request, entry, next, observer);
                until_poll -= 1;
                if until_poll == 0 {
                    until_poll = POLL;
                    if control.is_some_and(Control::cancelled) {
                        return Err(Error::Cancelled);
                    }
                }
            }
        }
    }

    /// The command that is issued next, were nothing to come in and no refresh to fall due.
    #[inline]
    fn next_command(&self) -> Next {
        let (mut best, mut slot) = (u64::MAX, usize::MAX);
        let limits = self.state.limits();
        for (i, wish) in self.wishes.iter().enumerate() {
            let cycle = wish.at.max(limits[wish.limit as usize]).max(self.floor);
            // Sooner first, then by order; what is 2^32 cycles away is never.
            let key = (cycle - self.floor).min(u64::from(u32::MAX)) << 32 | u64::from(wish.order);
            if key < best {
                (best, slot) = (key, i);
            }
        }
        let wait = best >> 32;
        Next { cycle: if wait == u64::from(u32::MAX) { NEVER } else { self.floor + wait }, slot }
    }

    /// Cycle in which `request` comes in, were nothing else to happen before.
    fn next_entry(&mut self, request: &Request) -> u64 {
        let cycle = self.next_entry.max(request.not_before).max(self.now);
        if request.write {
            return if self.queued_writes < self.settings.write_queue { cycle } else { NEVER };
        }
        let waiting = self.queued.len() - self.queued_writes;
        if waiting + self.in_flight.len() < self.settings.window {
            return cycle;
        }
        while self.in_flight.front().is_some_and(|back| *back <= cycle) {
            self.in_flight.pop_front();
        }
        if waiting + self.in_flight.len() < self.settings.window {
            return cycle;
        }
        self.in_flight.front().copied().unwrap_or(NEVER)
    }

    fn take_in(&mut self, request: Request, cycle: u64, next: Next, observer: &mut impl Observer) -> Next {
        let id = self.came_in;
        self.came_in += 1;
        self.next_entry = cycle + self.settings.gap;
        self.floor = self.floor.max(cycle + 1);
        observer.came_in(id, cycle);
        if !request.write && self.queued_writes > 0 && self.is_queued_write(&request) {
            self.forwarded += 1;
            self.last_data = self.last_data.max(cycle + 1);
            observer.finished(id, cycle, cycle + 1);
            return next;
        }
        self.queued_writes += usize::from(request.write);
        let bank = request.bank as usize;
        let is_hit = self.state.bank(bank).row == request.row;
        self.queued.push(Queued { request, came_in: cycle });
        self.wishes.push(Wish { at: 0, limit: 0, order: YIELDS | id as u32 });
        let slot = self.wishes.len() - 1;
        if self.choose_direction() {
            return self.next_command();
        }
        if is_hit && matches!(self.settings.scheduler, Scheduler::RowHitFirst { .. }) {
            // It keeps the row open, which others of its bank may want closed.
            self.renew_bank(bank);
            return self.next_command();
        }
        self.wishes[slot] = self.renewed(slot);
        let wish = self.wishes[slot];
        let earliest = wish.at.max(self.state.limits()[wish.limit as usize]).max(self.floor);
        // The newest goes first only where it can go sooner.
        if earliest < next.cycle { Next { cycle: earliest, slot } } else { next }
    }

    fn is_queued_write(&self, read: &Request) -> bool {
        let same = |w: &Request| w.write && (w.bank, w.row, w.column) == (read.bank, read.row, read.column);
        self.queued.iter().any(|queued| same(&queued.request))
    }

    fn issue(&mut self, next: Next, observer: &mut impl Observer) {
        let Next { cycle, slot } = next;
        let Queued { request, came_in } = self.queued[slot];
        let bank = request.bank as usize;
        let open = self.state.bank(bank).row;
        self.now = cycle;
        if open == request.row {
            let served_order = self.wishes[slot].order;
            self.queued.swap_remove(slot);
            self.wishes.swap_remove(slot);
            let id = (served_order & !YIELDS) as usize;
            if served_order & YIELDS == 0 {
                self.guarded[bank] = false;
            } else {
                self.row_hits += 1;
            }
            let command = self.column_command(&request);
            self.state.issue(command, bank, open, cycle);
            observer.command(Issued::Bank(command), bank, open, cycle);
            let done = cycle + if request.write { self.write_latency } else { self.read_latency };
            self.queued_writes -= usize::from(request.write);
            if !request.write {
                self.in_flight.push_back(done);
            }
            self.last_data = self.last_data.max(done);
            observer.finished(id, came_in, done);
        } else {
            let command = if open == CLOSED { Command::Activate } else { Command::Precharge };
            if command == Command::Activate {
                self.wishes[slot].order &= !YIELDS;
                self.guarded[bank] = true;
            }
            self.state.issue(command, bank, request.row, cycle);
            observer.command(Issued::Bank(command), bank, request.row, cycle);
        }
        self.floor = self.state.bus_at();
        if !self.choose_direction() {
            self.renew_bank(bank);
        }
    }

    fn column_command(&self, request: &Request) -> Command {
        let wants_it = |q: &Queued| (q.request.bank, q.request.row) == (request.bank, request.row);
        let closes = self.settings.page == Page::Closed && !self.queued.iter().any(wants_it);
        match (request.write, closes) {
            (false, false) => Command::Read,
            (false, true) => Command::ReadPrecharge,
            (true, false) => Command::Write,
            (true, true) => Command::WritePrecharge,
        }
    }

    /// Decide between reads and writes; true where that changed, and then all wishes are new.
    fn choose_direction(&mut self) -> bool {
        let reads = self.queued.len() - self.queued_writes;
        let writes = self.queued_writes;
        let drains = if self.drains_writes {
            writes > 0 && (reads == 0 || writes > self.settings.write_low())
        } else {
            writes > 0 && (reads == 0 || writes >= self.settings.write_high())
        };
        let changed = drains != self.drains_writes;
        self.drains_writes = drains;
        if changed {
            self.renew_all();
        }
        changed
    }

    fn renew_bank(&mut self, bank: usize) {
        for slot in 0..self.queued.len() {
            if self.queued[slot].request.bank as usize == bank {
                self.wishes[slot] = self.renewed(slot);
            }
        }
    }

    fn renew_all(&mut self) {
        for slot in 0..self.queued.len() {
            self.wishes[slot] = self.renewed(slot);
        }
    }

    /// Whether a request that may be served now hits the open row of `bank`.
    fn has_hit(&self, bank: u32) -> bool {
        let open = self.state.bank(bank as usize).row;
        self.queued.iter().any(|q| {
            (q.request.bank, q.request.row, q.request.write) == (bank, open, self.drains_writes)
        })
    }

    /// What the request in `slot` wants next.
    fn renewed(&self, slot: usize) -> Wish {
        let Queued { request, came_in } = self.queued[slot];
        let order = self.wishes[slot].order;
        let bank = request.bank as usize;
        let b = self.state.bank(bank);
        let (kind, at) = if b.row == request.row {
            (if request.write { Kind::Write } else { Kind::Read }, b.column_at)
        } else if b.row == CLOSED {
            (Kind::Activate, b.activate_at)
        } else if self.guarded[bank] {
            (Kind::Precharge, NEVER)
        } else {
            match self.settings.scheduler {
                Scheduler::RowHitFirst { age_limit } if self.has_hit(request.bank) => {
                    (Kind::Precharge, b.precharge_at.max(came_in + age_limit))
                }
                _ => (Kind::Precharge, b.precharge_at),
            }
        };
        // A request that opened its row is served whatever the direction and even before a refresh.
        let has_turn = request.write == self.drains_writes && self.waiting_ranks == 0;
        let at = if has_turn || order & YIELDS == 0 { at } else { NEVER };
        Wish { at, limit: self.state.limit_index(kind, bank) as u32, order }
    }

    /// The next thing that refreshing does: a rank falls due, is precharged, or is refreshed.
    fn next_rank_event(&self) -> (u64, usize) {
        let mut best = (NEVER, 0);
        for (rank, refreshing) in self.ranks.iter().enumerate() {
            let cycle = if refreshing.waits { self.rank_command(rank).1 } else { refreshing.due };
            if cycle < best.0 {
                best = (cycle, rank);
            }
        }
        best
    }

    /// The command that a rank which waits for its refresh needs, and its earliest cycle.
    fn rank_command(&self, rank: usize) -> (RankCommand, u64) {
        let command =
            if self.state.has_open_bank(rank) { RankCommand::PrechargeAll } else { RankCommand::Refresh };
        if self.guarded[self.state.banks_of(rank)].contains(&true) {
            return (command, NEVER);
        }
        (command, self.state.earliest_rank(command, rank).max(self.floor))
    }

    fn rank_event(&mut self, rank: usize, cycle: u64, observer: &mut impl Observer) {
        if self.ranks[rank].waits {
            let (command, _) = self.rank_command(rank);
            self.state.issue_rank(command, rank, cycle);
            observer.command(Issued::Rank(command), self.state.banks_of(rank).start, CLOSED, cycle);
            self.floor = self.state.bus_at();
            if command == RankCommand::Refresh {
                self.ranks[rank].waits = false;
                self.waiting_ranks -= 1;
                self.ranks[rank].due += self.refresh_interval;
            }
        } else {
            self.ranks[rank].waits = true;
            self.waiting_ranks += 1;
            self.floor = self.floor.max(cycle);
        }
        self.renew_all();
    }
}

//! The memory controller of one channel, from event to event: no idle cycle is stepped.
//!
//! The order of a cycle, which the slow twin (`reference.rs`) steps through one by one: refreshes fall due; one command
//! is issued at most; reads whose data are back leave; at most one request comes in. While a rank waits for its refresh,
//! the channel serves only requests whose row is open for them already: the rank is precharged and refreshed as soon as
//! that is allowed.
//!
//! A bank has at most two wishes: its oldest request that hits the open row, and its oldest that does not (for a closed
//! bank, its oldest). A wish keeps the earliest cycle that its own bank allows and is renewed when its bank changes. What
//! other banks allow is a limit shared by a bank group. So the next command of the channel comes from one pass over the
//! wishes: two loads and two comparisons each.

use super::standard::Standard;
use super::state::{CLOSED, Command, Kind, RankCommand, State};
use crate::control::Control;
use crate::error::{Error, Result};
use std::collections::VecDeque;

/// Most entries of a request queue.
pub const MAX_WINDOW: usize = 1024;
/// Most requests that one channel takes in one run: their numbers are ages of 31 bits.
pub const MAX_REQUESTS: usize = 1 << 31;
/// Longest gap and age limit, in cycles.
const MOST: u64 = 1 << 31;
/// A cycle that never comes.
const NEVER: u64 = u64::MAX;
/// Events between two looks at the flag that asks to stop.
const POLL: u32 = 1 << 14;

/// Which of the commands that could be issued goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheduler {
    /// First ready, first come first served: the oldest request whose next command can be issued now. A request that
    /// opened its row is served before that row may be closed.
    FrFcfs,
    /// The same, and no row is closed while a queued request hits it, before the age limit.
    RowHitFirst,
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
    /// Cycles after which a request holds back younger ones that hit the open row of its bank; without that, a stream
    /// of hits would hold it back for ever.
    pub age_limit: u64,
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
        if !(1..=MOST).contains(&self.gap) {
            return Err(Error::invalid("gap", format!("is {}; allowed is from 1 to {MOST} cycles", self.gap)));
        }
        if self.age_limit > MOST {
            let message = format!("is {}; allowed is from 0 to {MOST} cycles", self.age_limit);
            return Err(Error::invalid("age_limit", message));
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

/// A command that a bank could issue next.
#[derive(Debug, Clone, Copy)]
struct Wish {
    /// Earliest cycle as far as the bank decides.
    at: u64,
    /// Index of the shared limit.
    limit: u32,
    /// Smaller goes first: age, with [`YIELDS`] unless the request opened its row.
    order: u32,
}

const YIELDS: u32 = 1 << 31;

/// A queued request, in a list of its bank from old to new.
#[derive(Debug, Clone, Copy)]
struct Queued {
    request: Request,
    came_in: u64,
    id: u32,
    next: u16,
}

/// End of a list of slots, absence of a slot or of a wish.
const NONE: u16 = u16::MAX;

/// The queue of one bank.
#[derive(Debug, Clone, Copy)]
struct Line {
    first: u16,
    last: u16,
    /// Slot of the waiting request that opened the row.
    opener: u16,
    /// Where its wishes stand, and their slots.
    wishes: [u16; 2],
    slots: [u16; 2],
    /// Cycle from which the hit is held back.
    hit_until: u64,
}

/// The next command: when, and the wish behind it.
#[derive(Debug, Clone, Copy)]
struct Next {
    cycle: u64,
    order: u32,
    wish: usize,
}

const NOTHING: Next = Next { cycle: NEVER, order: u32::MAX, wish: usize::MAX };

/// One channel: state of its banks, the queue, the refreshes.
pub struct Controller {
    settings: Settings,
    state: State,
    ranks: Vec<Refreshing>,
    waiting_ranks: usize,
    /// The refresh that falls due next, and its rank.
    next_due: (u64, usize),
    refresh_interval: u64,
    read_latency: u64,
    write_latency: u64,
    wishes: Vec<Wish>,
    /// Bank and place among its wishes of each wish.
    owners: Vec<(u32, u8)>,
    slots: Vec<Queued>,
    free: Vec<u16>,
    lines: Vec<Line>,
    queued_reads: usize,
    queued_writes: usize,
    drains_writes: bool,
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
    /// `settings` are checked. Only with `writes` may a request write.
    pub fn new(standard: &Standard, ranks: usize, settings: Settings, writes: bool) -> Self {
        let t = &standard.timing;
        let interval = u64::from(t.refi);
        let due = |k: u64| if settings.refresh { (k + 1) * interval / ranks as u64 } else { NEVER };
        let queue = settings.window + settings.write_queue;
        let line =
            Line { first: NONE, last: NONE, opener: NONE, wishes: [NONE; 2], slots: [NONE; 2], hit_until: NEVER };
        let mut controller = Self {
            settings,
            state: State::new(standard, ranks, writes),
            ranks: (0..ranks as u64).map(|k| Refreshing { due: due(k), waits: false }).collect(),
            waiting_ranks: 0,
            next_due: (NEVER, 0),
            refresh_interval: interval,
            read_latency: u64::from(t.cl + t.bl),
            write_latency: u64::from(t.cwl + t.bl),
            wishes: Vec::with_capacity(queue),
            owners: Vec::with_capacity(queue),
            slots: Vec::with_capacity(queue),
            free: Vec::with_capacity(queue),
            lines: vec![line; ranks * standard.banks()],
            queued_reads: 0,
            queued_writes: 0,
            drains_writes: false,
            in_flight: VecDeque::with_capacity(settings.window),
            came_in: 0,
            next_entry: 1,
            now: 0,
            floor: 1,
            last_data: 0,
            row_hits: 0,
            forwarded: 0,
        };
        controller.find_next_due();
        controller
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
                None if !to_the_end || self.queued_reads + self.queued_writes == 0 => return Ok(()),
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
            }
            until_poll -= 1;
            if until_poll == 0 {
                until_poll = POLL;
                if control.is_some_and(Control::cancelled) {
                    return Err(Error::Cancelled);
                }
            }
        }
    }

    /// The command that is issued next, were nothing to come in and no refresh to fall due.
    #[inline]
    fn next_command(&mut self) -> Next {
        loop {
            let next = self.soonest_wish();
            if !self.is_held_back(&next) {
                return next;
            }
            let bank = self.owners[next.wish].0 as usize;
            self.drop_wish(bank, 1);
        }
    }

    /// Whether `next` is a hit that comes too late: an older request of the bank has waited too long.
    #[inline]
    fn is_held_back(&self, next: &Next) -> bool {
        let owner = self.owners.get(next.wish);
        owner.is_some_and(|(bank, place)| *place == 1 && next.cycle >= self.lines[*bank as usize].hit_until)
    }

    #[inline]
    fn soonest_wish(&self) -> Next {
        let (mut best, mut wish) = (u64::MAX, usize::MAX);
        let limits = self.state.limits();
        for (i, w) in self.wishes.iter().enumerate() {
            let cycle = w.at.max(limits[w.limit as usize]);
            // Sooner first, then by order. No wish is 2^32 cycles away.
            let key = (cycle.max(self.floor) - self.floor) << 32 | u64::from(w.order);
            if key < best {
                (best, wish) = (key, i);
            }
        }
        if wish == usize::MAX { NOTHING } else { Next { cycle: self.floor + (best >> 32), order: best as u32, wish } }
    }

    /// Cycle in which `request` comes in, were nothing else to happen before.
    #[inline]
    fn next_entry(&mut self, request: &Request) -> u64 {
        let cycle = self.next_entry.max(request.not_before).max(self.now);
        if request.write {
            return if self.queued_writes < self.settings.write_queue { cycle } else { NEVER };
        }
        let room = self.settings.window - self.queued_reads;
        if self.in_flight.len() < room {
            return cycle;
        }
        while self.in_flight.front().is_some_and(|back| *back <= cycle) {
            self.in_flight.pop_front();
        }
        if self.in_flight.len() < room {
            return cycle;
        }
        self.in_flight.front().copied().unwrap_or(NEVER)
    }

    #[inline]
    fn take_in(&mut self, request: Request, cycle: u64, next: Next, observer: &mut impl Observer) -> Next {
        let id = self.came_in;
        self.came_in += 1;
        self.next_entry = cycle + self.settings.gap;
        self.floor = self.floor.max(cycle + 1);
        observer.came_in(id, cycle);
        let bank = request.bank as usize;
        if !request.write && self.queued_writes > 0 && self.is_queued_write(&request) {
            self.forwarded += 1;
            self.last_data = self.last_data.max(cycle + 1);
            observer.finished(id, cycle, cycle + 1);
            return next;
        }
        *(if request.write { &mut self.queued_writes } else { &mut self.queued_reads }) += 1;
        self.join_line(bank, Queued { request, came_in: cycle, id: id as u32, next: NONE });
        if self.choose_direction() {
            return self.next_command();
        }
        let line = &self.lines[bank];
        let is_hit = self.state.bank(bank).row == request.row;
        // It changes nothing where an older one of its kind goes before it, or where it has no turn.
        let is_behind = line.slots[usize::from(is_hit)] != NONE || !is_hit && line.opener != NONE;
        if is_behind || request.write != self.drains_writes || self.waiting_ranks > 0 {
            return next;
        }
        let is_next = self.owners.get(next.wish).is_some_and(|owner| owner.0 == request.bank);
        self.renew(bank);
        if is_next {
            return self.next_command();
        }
        let mut next = next;
        for wish in self.lines[bank].wishes {
            if let Some(w) = self.wishes.get(usize::from(wish)) {
                let cycle = w.at.max(self.state.limits()[w.limit as usize]).max(self.floor);
                if (cycle, w.order) < (next.cycle, next.order) {
                    next = Next { cycle, order: w.order, wish: usize::from(wish) };
                }
            }
        }
        if self.is_held_back(&next) { self.next_command() } else { next }
    }

    fn is_queued_write(&self, read: &Request) -> bool {
        let same = |w: &Request| w.write && (w.row, w.column) == (read.row, read.column);
        self.line(read.bank as usize).any(|(_, queued)| same(&queued.request))
    }

    /// The queue of a bank, from old to new.
    fn line(&self, bank: usize) -> impl Iterator<Item = (u16, &Queued)> {
        let mut slot = self.lines[bank].first;
        std::iter::from_fn(move || {
            let here = slot;
            let queued = self.slots.get(usize::from(here))?;
            slot = queued.next;
            Some((here, queued))
        })
    }

    #[inline]
    fn join_line(&mut self, bank: usize, queued: Queued) {
        let slot = if let Some(slot) = self.free.pop() {
            self.slots[usize::from(slot)] = queued;
            slot
        } else {
            self.slots.push(queued);
            (self.slots.len() - 1) as u16
        };
        let line = &mut self.lines[bank];
        if line.first == NONE {
            line.first = slot;
        } else {
            self.slots[usize::from(line.last)].next = slot;
        }
        line.last = slot;
    }

    #[inline]
    fn leave_line(&mut self, bank: usize, slot: u16) {
        let next = self.slots[usize::from(slot)].next;
        let line = &mut self.lines[bank];
        let mut before = NONE;
        if line.first == slot {
            line.first = next;
        } else {
            before = line.first;
            while self.slots[usize::from(before)].next != slot {
                before = self.slots[usize::from(before)].next;
            }
            self.slots[usize::from(before)].next = next;
        }
        if line.last == slot {
            line.last = before;
        }
        self.free.push(slot);
    }

    #[inline]
    fn issue(&mut self, next: Next, observer: &mut impl Observer) {
        let cycle = next.cycle;
        self.now = cycle;
        let (bank, place) = self.owners[next.wish];
        let bank = bank as usize;
        let slot = self.lines[bank].slots[usize::from(place)];
        let Queued { request, came_in, id, .. } = self.slots[usize::from(slot)];
        let open = self.state.bank(bank).row;
        if open == request.row {
            self.leave_line(bank, slot);
            if self.lines[bank].opener == slot {
                self.lines[bank].opener = NONE;
            } else {
                self.row_hits += 1;
            }
            let command = self.column_command(&request);
            self.state.issue(command, bank, open, cycle);
            observer.command(Issued::Bank(command), bank, open, cycle);
            let latency = if request.write { self.write_latency } else { self.read_latency };
            let done = cycle + latency;
            if request.write {
                self.queued_writes -= 1;
            } else {
                self.queued_reads -= 1;
                self.in_flight.push_back(done);
            }
            self.last_data = self.last_data.max(done);
            observer.finished(id as usize, came_in, done);
        } else {
            let command = if open == CLOSED { Command::Activate } else { Command::Precharge };
            self.state.issue(command, bank, request.row, cycle);
            observer.command(Issued::Bank(command), bank, request.row, cycle);
            self.floor = self.state.bus_at();
            if command == Command::Precharge {
                return self.renew_closed(bank);
            }
            self.lines[bank].opener = slot;
            return self.renew(bank);
        }
        self.floor = self.state.bus_at();
        if !self.choose_direction() {
            self.renew(bank);
        }
    }

    /// Work out what `bank` wants after a precharge: that the older of its two candidates opens its row.
    #[inline]
    fn renew_closed(&mut self, bank: usize) {
        let [other, hit] = self.lines[bank].slots;
        let older = |a: u16, b: u16| self.slots[usize::from(a)].id < self.slots[usize::from(b)].id;
        let slot = if hit != NONE && (other == NONE || older(hit, other)) { hit } else { other };
        let wish = (self.state.bank(bank).activate_at, Kind::Activate, YIELDS | self.slots[usize::from(slot)].id);
        self.set_wish(bank, 0, slot, wish);
        self.set_wish(bank, 1, NONE, wish);
    }

    fn column_command(&self, request: &Request) -> Command {
        let closes = self.settings.page == Page::Closed
            && !self.line(request.bank as usize).any(|(_, other)| other.request.row == request.row);
        match (request.write, closes) {
            (false, false) => Command::Read,
            (false, true) => Command::ReadPrecharge,
            (true, false) => Command::Write,
            (true, true) => Command::WritePrecharge,
        }
    }

    /// Decide between reads and writes; true where that changed, and then all wishes are new.
    #[inline]
    fn choose_direction(&mut self) -> bool {
        let (reads, writes) = (self.queued_reads, self.queued_writes);
        if writes == 0 && !self.drains_writes {
            return false;
        }
        let enough = if self.drains_writes { self.settings.write_low() + 1 } else { self.settings.write_high() };
        let drains = writes > 0 && (reads == 0 || writes >= enough);
        let changed = drains != self.drains_writes;
        self.drains_writes = drains;
        if changed {
            self.renew_all();
        }
        changed
    }

    fn renew_all(&mut self) {
        for bank in 0..self.lines.len() {
            self.renew(bank);
        }
    }

    /// Work out what `bank` wants next.
    #[inline]
    fn renew(&mut self, bank: usize) {
        let line = &self.lines[bank];
        if line.first == NONE {
            self.set_wish(bank, 0, NONE, (0, Kind::Precharge, 0));
            return self.set_wish(bank, 1, NONE, (0, Kind::Precharge, 0));
        }
        let opener = line.opener;
        let b = *self.state.bank(bank);
        // The oldest of each kind that has its turn.
        let (mut hit, mut other) = (NONE, NONE);
        if self.waiting_ranks == 0 {
            let mut slot = line.first;
            while slot != NONE {
                let queued = &self.slots[usize::from(slot)];
                let kind = if queued.request.row == b.row { &mut hit } else { &mut other };
                if *kind == NONE && queued.request.write == self.drains_writes && slot != opener {
                    *kind = slot;
                    // A closed bank has no hits; where a row has an opener, others wait.
                    if b.row == CLOSED || hit != NONE && (other != NONE || opener != NONE) {
                        break;
                    }
                }
                slot = queued.next;
            }
        }
        let column = |slot: u16, order: u32| {
            let queued = &self.slots[usize::from(slot)];
            (b.column_at, if queued.request.write { Kind::Write } else { Kind::Read }, order | queued.id)
        };
        let second = if hit == NONE { (0, Kind::Read, 0) } else { column(hit, YIELDS) };
        let mut hit_until = NEVER;
        let (slot, first) = if opener != NONE {
            (opener, column(opener, 0))
        } else if other == NONE {
            (NONE, (0, Kind::Precharge, 0))
        } else {
            let Queued { came_in, id, .. } = self.slots[usize::from(other)];
            let order = YIELDS | id;
            if b.row == CLOSED {
                (other, (b.activate_at, Kind::Activate, order))
            } else if hit == NONE {
                (other, (b.precharge_at, Kind::Precharge, order))
            } else {
                let aged = came_in + self.settings.age_limit;
                if self.slots[usize::from(hit)].id > id {
                    hit_until = aged;
                }
                let holds = self.settings.scheduler == Scheduler::RowHitFirst;
                (other, (b.precharge_at.max(if holds { aged } else { 0 }), Kind::Precharge, order))
            }
        };
        self.lines[bank].hit_until = hit_until;
        self.set_wish(bank, 0, slot, first);
        self.set_wish(bank, 1, hit, second);
    }

    /// Give `bank` the wish of `slot` (earliest cycle, kind of command, order), or none.
    #[inline]
    fn set_wish(&mut self, bank: usize, place: usize, slot: u16, (at, kind, order): (u64, Kind, u32)) {
        let line = &mut self.lines[bank];
        line.slots[place] = slot;
        let old = line.wishes[place];
        if slot == NONE {
            if old != NONE {
                self.drop_wish(bank, place);
            }
            return;
        }
        let wish = Wish { at, limit: self.state.limit_index(kind, bank) as u32, order };
        if old == NONE {
            line.wishes[place] = self.wishes.len() as u16;
            self.wishes.push(wish);
            self.owners.push((bank as u32, place as u8));
        } else {
            self.wishes[usize::from(old)] = wish;
        }
    }

    fn drop_wish(&mut self, bank: usize, place: usize) {
        let at = std::mem::replace(&mut self.lines[bank].wishes[place], NONE);
        self.wishes.swap_remove(usize::from(at));
        self.owners.swap_remove(usize::from(at));
        if let Some((bank, place)) = self.owners.get(usize::from(at)) {
            self.lines[*bank as usize].wishes[usize::from(*place)] = at;
        }
    }

    /// The next thing that refreshing does: a refresh falls due, a rank is precharged, or it is refreshed.
    #[inline]
    fn next_rank_event(&self) -> (u64, usize) {
        if self.waiting_ranks == 0 { self.next_due } else { self.next_of_waiting() }
    }

    fn find_next_due(&mut self) {
        let due = self.ranks.iter().map(|r| if r.waits { NEVER } else { r.due });
        let first = due.enumerate().min_by_key(|(_, due)| *due);
        self.next_due = first.map_or((NEVER, 0), |(rank, due)| (due, rank));
    }

    fn next_of_waiting(&self) -> (u64, usize) {
        let waiting = self.ranks.iter().enumerate().filter(|(_, r)| r.waits);
        let first = waiting.map(|(rank, _)| (self.rank_command(rank).1, rank)).min();
        first.unwrap_or((NEVER, 0)).min(self.next_due)
    }

    /// The command that a rank which waits for its refresh needs, and its earliest cycle.
    fn rank_command(&self, rank: usize) -> (RankCommand, u64) {
        let command = if self.state.has_open_bank(rank) { RankCommand::PrechargeAll } else { RankCommand::Refresh };
        if self.lines[self.state.banks_of(rank)].iter().any(|line| line.opener != NONE) {
            return (command, NEVER);
        }
        (command, self.state.earliest_rank(command, rank).max(self.floor))
    }

    fn rank_event(&mut self, rank: usize, cycle: u64, observer: &mut impl Observer) {
        if self.ranks[rank].waits {
            let (command, _) = self.rank_command(rank);
            self.state.issue_rank(command, rank, cycle);
            observer.command(Issued::Rank(command), self.state.banks_of(rank).start, CLOSED, cycle);
            self.now = cycle;
            self.floor = self.state.bus_at();
            if command == RankCommand::Refresh {
                self.ranks[rank].waits = false;
                self.ranks[rank].due += self.refresh_interval;
                self.waiting_ranks -= 1;
            }
        } else {
            self.ranks[rank].waits = true;
            self.waiting_ranks += 1;
            self.floor = self.floor.max(cycle);
        }
        self.find_next_due();
        self.renew_all();
    }
}

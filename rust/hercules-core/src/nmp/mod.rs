//! Near-memory processing after RecNMP: lookups go as instructions to the ranks of a channel, which read and add their
//! rows by themselves; the host gets sums. Rows lie where a host would put them, so any host reads them too.
//!
//! Each rank is a DRAM channel of its own, with a queue of instructions before it. Instructions are delivered in order, a
//! few in each cycle; a full queue holds up all that follow. A packet ends with a barrier: the next one starts when every
//! read is back.
//!
//! Ranks touch each other through the delivery alone. So a rank runs, without looking at the others, until it has taken in
//! what was delivered to it; then it is known when its queue had room, and more can be delivered. [`crew`] spreads the
//! ranks over threads: what they do does not depend on it.

mod cache;
mod channels;
mod crew;
#[cfg(test)]
mod tests;

use crate::control::Control;
use crate::dram::{self, Activity, Controller, Mapping, Observer, Place, Request, Settings, Standard};
use crate::error::{Error, Result};
use cache::Cache;
pub use channels::Lookups;
use crew::{Crew, Delivery};

/// Lookups between two looks at the flag that asks to stop.
const POLL: usize = 1 << 16;

/// Most entries of an instruction queue and of a cycle's delivery.
pub const MAX_FIFO: usize = 1 << 16;

/// Most accesses of a vector, and of a sum.
const MAX_ACCESSES: u32 = 1 << 16;

/// The memory of one channel and what sits on its DIMMs.
#[derive(Debug, Clone)]
pub struct Hardware {
    pub standard: Standard,
    pub ranks: usize,
    pub ranks_per_dimm: usize,
    /// Of one channel of `ranks` ranks.
    pub mapping: Mapping,
    pub settings: Settings,
    /// Instructions that wait before a rank.
    pub fifo: usize,
    /// Instructions that are delivered in a cycle.
    pub inst_per_cycle: usize,
    /// Bytes of the cache of each rank, 0 for none, and its ways.
    pub cache_bytes: usize,
    pub cache_ways: usize,
    /// Cycles from the last data of a bag to its sum at the edge of the DIMM.
    pub reduce_cycles: u64,
}

/// How lookups are cut and placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// Instructions between barriers; 0 for no barrier.
    pub packet: usize,
    /// Bags that a packet may touch; 0 for any number.
    pub tags: usize,
}

/// Who gathers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The rank in which the vector lies.
    Nmp,
    /// All ranks: every vector is cut over them, and each reads its piece (after TensorDIMM).
    ColumnSplit,
    /// The host: all ranks on one bus, every vector moved over it.
    Host,
}

impl Mode {
    pub fn parse(name: &str) -> Result<Self> {
        match name {
            "nmp" => Ok(Self::Nmp),
            "column-split" => Ok(Self::ColumnSplit),
            "host" => Ok(Self::Host),
            _ => Err(Error::invalid("mode", format!("is {name:?}; allowed are nmp, column-split, host"))),
        }
    }
}

/// Bags of lookups of one channel, in the order of delivery.
#[derive(Debug, Clone, Copy)]
pub struct Program<'a> {
    /// Byte address of each vector.
    pub addresses: &'a [u64],
    /// Which lookups may use the cache; absent for all.
    pub cacheable: Option<&'a [bool]>,
    /// Lookups of bag b: `offsets[b]..offsets[b + 1]`.
    pub offsets: &'a [usize],
    /// Accesses of a vector of each bag, and of its sum.
    pub accesses: &'a [u32],
    pub results: &'a [u32],
}

/// What a channel did.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Outcome {
    /// Cycle of the last read's data.
    pub gather_cycles: u64,
    /// Cycle in which the last sum is with the host.
    pub cycles: u64,
    /// Cycles of each read from coming in to its data, rank by rank in order of coming in.
    pub latency: Vec<u32>,
    pub reads_by_rank: Vec<u64>,
    pub row_hits: u64,
    pub cache_hits: u64,
    pub cache_accesses: u64,
    pub packets: u64,
    pub activity: Activity,
}

impl Program<'_> {
    fn bags(&self) -> usize {
        self.accesses.len()
    }

    fn check(&self, mapping: &Mapping, access_bytes: u64) -> Result<()> {
        let bags = self.bags();
        let ends = (self.offsets.first(), self.offsets.last());
        if self.offsets.len() != bags + 1
            || ends != (Some(&0), Some(&self.addresses.len()))
            || self.results.len() != bags
        {
            return Err(Error::invalid(
                "offsets",
                "must lead from 0 to the number of lookups, one bag for each result",
            ));
        }
        if self.cacheable.is_some_and(|c| c.len() != self.addresses.len()) {
            return Err(Error::invalid("cacheable", "must have one entry for each lookup"));
        }
        dram::check_addresses("addresses", self.addresses, mapping, access_bytes)?;
        for bag in 0..bags {
            if self.offsets[bag] > self.offsets[bag + 1] {
                return Err(Error::invalid(format!("offsets[{}]", bag + 1), "is below the one before"));
            }
            for (name, count) in [("accesses", self.accesses[bag]), ("results", self.results[bag])] {
                if !(1..=MAX_ACCESSES).contains(&count) {
                    let message = format!("is {count}; allowed is from 1 to {MAX_ACCESSES}");
                    return Err(Error::invalid(format!("{name}[{bag}]"), message));
                }
            }
            let bytes = u64::from(self.accesses[bag]) * access_bytes;
            let last = self.addresses[self.offsets[bag]..self.offsets[bag + 1]].iter().max();
            if last.is_some_and(|address| address + bytes > mapping.capacity()) {
                let message = format!("has a vector that ends beyond the capacity, {} bytes", mapping.capacity());
                return Err(Error::invalid(format!("bag {bag}"), message));
            }
        }
        Ok(())
    }
}

/// Reads of one rank at addresses that follow each other: what an instruction asks of it.
#[derive(Debug, Clone, Copy)]
struct Piece {
    rank: usize,
    address: u64,
    accesses: u32,
}

/// A bag on its way: cycle of its last data, and the DIMMs that hold parts of its sum.
#[derive(Debug, Clone, Copy)]
struct Bag {
    done: u64,
    dimms: u64,
}

#[derive(Default)]
struct HostLog(Vec<u32>);

impl Observer for HostLog {
    fn came_in(&mut self, _id: usize, _cycle: u64) {
        self.0.push(0);
    }

    fn finished(&mut self, id: usize, came_in: u64, cycle: u64) {
        self.0[id] = u32::try_from(cycle - came_in).unwrap_or(u32::MAX);
    }
}

/// First lookup after the packet that begins with lookup `first`.
fn packet_end(program: &Program<'_>, plan: Plan, first: usize) -> usize {
    let all = program.addresses.len();
    if plan.packet == 0 {
        return all;
    }
    let by_count = first.saturating_add(plan.packet).min(all);
    if plan.tags == 0 {
        return by_count;
    }
    let bag = program.offsets.partition_point(|offset| *offset <= first) - 1;
    by_count.min(program.offsets[(bag + plan.tags).min(program.bags())])
}

impl Hardware {
    pub fn check(&self) -> Result<()> {
        self.settings.check()?;
        for (name, value) in [("fifo", self.fifo), ("inst_per_cycle", self.inst_per_cycle)] {
            if !(1..=MAX_FIFO).contains(&value) {
                return Err(Error::invalid(name, format!("is {value}; allowed is from 1 to {MAX_FIFO}")));
            }
        }
        if self.ranks_per_dimm == 0 || !self.ranks.is_multiple_of(self.ranks_per_dimm) {
            let message = format!("is {}; allowed is what divides ranks = {}", self.ranks_per_dimm, self.ranks);
            return Err(Error::invalid("ranks_per_dimm", message));
        }
        if self.reduce_cycles > 1 << 20 {
            let message = format!("is {}; allowed is from 0 to {}", self.reduce_cycles, 1 << 20);
            return Err(Error::invalid("reduce_cycles", message));
        }
        if self.cache_bytes > 1 << 30 {
            return Err(Error::invalid(
                "cache_bytes",
                format!("is {}; allowed is from 0 to {}", self.cache_bytes, 1 << 30),
            ));
        }
        Ok(())
    }

    fn caches(&self, line_bytes: u64) -> Result<Option<Vec<Cache>>> {
        if self.cache_bytes == 0 {
            return Ok(None);
        }
        let lines = self.cache_bytes / line_bytes as usize;
        let sets = lines.checked_div(self.cache_ways).unwrap_or(0);
        if sets == 0 {
            let message = format!("is {}; allowed is from 1 to the cache's {lines} lines", self.cache_ways);
            return Err(Error::invalid("cache_ways", message));
        }
        Ok(Some(vec![Cache::new(sets, self.cache_ways); self.ranks]))
    }

    /// The ranks of one channel, for one run of `lookups` of up to so many `accesses` on up to `threads` threads.
    fn crew(&self, mode: Mode, threads: usize, lookups: usize, accesses: u32) -> Crew {
        let mapping = if mode == Mode::ColumnSplit { self.mapping.of_one_rank() } else { self.mapping.clone() };
        let ranks = if mode == Mode::Host { 0 } else { self.ranks };
        // A vector needs one place in the queue, however many pieces of it a rank gets.
        let pieces = accesses.min(MAX_ACCESSES) as usize;
        let reads = pieces * lookups;
        Crew::new(self, mapping, ranks, threads, (self.fifo + pieces).min(reads), reads)
    }

    /// Run the lookups of one channel; `crew` is a fresh one, whose ranks others may run too.
    fn run(
        &self,
        program: &Program<'_>,
        mode: Mode,
        plan: Plan,
        crew: &Crew,
        control: Option<&Control>,
    ) -> Result<Outcome> {
        program.check(&self.mapping, self.standard.access_bytes())?;
        match mode {
            Mode::Host => self.run_on_host(program, control),
            Mode::Nmp | Mode::ColumnSplit => {
                self.run_near_memory(program, mode == Mode::ColumnSplit, plan, crew, control)
            }
        }
    }

    fn run_near_memory(
        &self,
        program: &Program<'_>,
        split: bool,
        plan: Plan,
        crew: &Crew,
        control: Option<&Control>,
    ) -> Result<Outcome> {
        let access_bytes = self.standard.access_bytes();
        let line = program.accesses.iter().max().map_or(access_bytes, |most| u64::from(*most) * access_bytes);
        let mut caches = self.caches(if split { line.div_ceil(self.ranks as u64) } else { line })?;
        let of_one_rank = self.mapping.of_one_rank();
        let mut queues = crew.queues(self.fifo);
        let mut bags = vec![Bag { done: 0, dimms: 0 }; program.bags()];
        let mut out = Outcome::default();
        let (mut cycle, mut used) = (1, 0);
        let (mut first, mut bag) = (0, 0);
        let dimm_bits = self.ranks_per_dimm.trailing_zeros(); // what divides a power of two is one
        let mut pieces = Vec::new();
        while first < program.addresses.len() {
            let end = packet_end(program, plan, first);
            out.packets += 1;
            for (i, address) in program.addresses[..end].iter().enumerate().skip(first) {
                if i % POLL == 0 && control.is_some_and(Control::cancelled) {
                    return Err(Error::Cancelled);
                }
                while i >= program.offsets[bag + 1] {
                    bag += 1;
                }
                let vector_bytes = u64::from(program.accesses[bag]) * access_bytes;
                self.cut(*address, vector_bytes, split, &of_one_rank, &mut pieces);
                for piece in &pieces {
                    bags[bag].dimms |= 1 << (piece.rank >> dimm_bits);
                }
                if let Some(caches) = &mut caches
                    && program.cacheable.is_none_or(|cacheable| cacheable[i])
                {
                    let (all, number) = (pieces.len(), self.mapping.inside_rank(*address) / vector_bytes);
                    pieces.retain(|piece| !caches[piece.rank].access(*address, number));
                    out.cache_accesses += all as u64;
                    out.cache_hits += (all - pieces.len()) as u64;
                }
                if used == self.inst_per_cycle {
                    (cycle, used) = (cycle + 1, 0);
                }
                let mut room_at = 0;
                for piece in &pieces {
                    let queue = &mut queues[piece.rank];
                    let room = if let Some(room) = queue.room_at() {
                        room
                    } else {
                        if control.is_some_and(Control::cancelled) {
                            return Err(Error::Cancelled);
                        }
                        crew.wait_for_room(piece.rank, queue)
                    };
                    room_at = room_at.max(room);
                }
                if room_at > cycle {
                    (cycle, used) = (room_at, 0);
                }
                used += 1;
                if pieces.is_empty() {
                    bags[bag].done = bags[bag].done.max(cycle + 1); // all of it from caches
                }
                for piece in &pieces {
                    let Piece { rank, address, accesses } = *piece;
                    queues[rank].deliver(Delivery { cycle, address, accesses, bag: bag as u32 });
                }
            }
            first = end;
            let back = crew.wait_for_all(&queues);
            if back > cycle {
                (cycle, used) = (back, 0);
            }
        }
        out.gather_cycles = cycle;
        for rank in crew.ranks() {
            for (bag, done) in &rank.log.bags {
                let bag = &mut bags[*bag as usize];
                bag.done = bag.done.max(*done);
            }
        }
        let transfers = self.return_sums(program, &bags, &mut out);
        out.activity = Activity { transfers, rank_cycles: out.cycles * self.ranks as u64, ..Activity::default() };
        out.latency.reserve_exact(crew.ranks().map(|rank| rank.log.latency.len()).sum());
        for mut rank in crew.ranks() {
            out.activity.counts.add(&rank.memory.state().counts);
            out.activity.open_cycles += rank.memory.state().open_cycles(out.cycles);
            out.row_hits += rank.memory.row_hits();
            out.reads_by_rank.push(rank.log.latency.len() as u64);
            out.latency.append(&mut rank.log.latency);
        }
        Ok(out)
    }

    fn run_on_host(&self, program: &Program<'_>, control: Option<&Control>) -> Result<Outcome> {
        let access_bytes = self.standard.access_bytes();
        let mut log = HostLog::default();
        let mut memory = Controller::new(&self.standard, self.ranks, self.settings, false);
        let reads = (0..program.bags()).flat_map(|bag| {
            let lookups = &program.addresses[program.offsets[bag]..program.offsets[bag + 1]];
            let accesses = u64::from(program.accesses[bag]);
            lookups.iter().flat_map(move |address| {
                (0..accesses).map(move |k| {
                    let Place { bank, row, column, .. } = self.mapping.place(address + k * access_bytes);
                    Request { not_before: 0, bank, row, column, write: false }
                })
            })
        });
        memory.run(reads, true, control, &mut log)?;
        let cycles = memory.last_data();
        let counts = memory.state().counts;
        let activity = Activity {
            counts,
            transfers: counts.reads,
            rank_cycles: cycles * self.ranks as u64,
            open_cycles: memory.state().open_cycles(cycles),
        };
        Ok(Outcome {
            gather_cycles: cycles,
            cycles,
            latency: log.0,
            row_hits: memory.row_hits(),
            activity,
            ..Outcome::default()
        })
    }

    /// Sums go to the host over the channel, in the order in which they are ready; each DIMM sends its part. Returns the
    /// transfers, and sets the cycle in which the last is over.
    fn return_sums(&self, program: &Program<'_>, bags: &[Bag], out: &mut Outcome) -> u64 {
        let mut order: Vec<usize> = (0..bags.len()).filter(|bag| bags[*bag].dimms != 0).collect();
        order.sort_by_key(|bag| bags[*bag].done);
        let burst = u64::from(self.standard.timing.bl);
        let (mut bus, mut transfers) = (0, 0);
        for bag in order {
            let count = u64::from(program.results[bag]) * u64::from(bags[bag].dimms.count_ones());
            bus = bus.max(bags[bag].done + self.reduce_cycles) + burst * count;
            transfers += count;
        }
        out.cycles = out.gather_cycles.max(bus);
        transfers
    }

    /// Cut the vector at `address` into the pieces that its ranks read.
    #[inline]
    fn cut(&self, address: u64, bytes: u64, split: bool, of_one_rank: &Mapping, pieces: &mut Vec<Piece>) {
        let access_bytes = self.standard.access_bytes();
        pieces.clear();
        if split {
            // Every rank reads its share, rounded up to whole accesses, at the place that the vector's number gives.
            let share = (bytes / access_bytes).div_ceil(self.ranks as u64);
            let room = of_one_rank.capacity() / (share * access_bytes);
            let address = address / bytes % room * share * access_bytes;
            pieces.extend((0..self.ranks).map(|rank| Piece { rank, address, accesses: share as u32 }));
            return;
        }
        let rank_of = |address: u64| self.mapping.rank_of(address) as usize;
        let (mut begin, mut rank) = (address, rank_of(address));
        if !self.mapping.may_change_rank(address, bytes) {
            return pieces.push(Piece { rank, address, accesses: (bytes / access_bytes) as u32 });
        }
        for at in (address..address + bytes).step_by(access_bytes as usize).skip(1) {
            let next = rank_of(at);
            if next != rank {
                pieces.push(Piece { rank, address: begin, accesses: ((at - begin) / access_bytes) as u32 });
                (begin, rank) = (at, next);
            }
        }
        pieces.push(Piece { rank, address: begin, accesses: ((address + bytes - begin) / access_bytes) as u32 });
    }
}

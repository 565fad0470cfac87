//! The ranks of a channel, run by whoever has time.
//!
//! A rank is a machine with one input, the deliveries in order, and one output, the cycles in which they leave its queue.
//! Neither depends on when the rank is run or on how many deliveries it takes in at once. So the thread that delivers goes
//! on for as long as it knows of room, and helping threads run ranks behind its back: the result is the same.
//!
//! Deliveries and leavings go through two rings for each rank. One thread writes deliveries, and reads leavings; whoever
//! holds the rank's lock does the opposite. Counters tell how far the rings are filled.

use super::Hardware;
use crate::dram::{Controller, Mapping, Observer, Request};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Turns of a loop to wait for others before the CPU is offered to somebody else.
const TURNS_TO_WAIT: usize = 2_000;

/// Deliveries that outweigh the way of a rank's state from one CPU to another.
const PORTION: usize = 8;

/// More than any number of deliveries that wait.
const BARRIER: usize = 1 << 32;

/// A task takes some microseconds. A helping thread that needed so long was sent off its CPU, with a rank in its hands
/// that all waited for: it does not come again.
const PATIENCE: Duration = Duration::from_millis(1);

/// An instruction as its rank gets it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Delivery {
    pub cycle: u64,
    /// Of the first access; the others follow it.
    pub address: u64,
    pub accesses: u32,
    pub bag: u32,
}

/// Place for a [`Delivery`].
#[derive(Default)]
struct Slot([AtomicU64; 3]);

impl Slot {
    #[inline]
    fn set(&self, Delivery { cycle, address, accesses, bag }: Delivery) {
        let words = [cycle, address, u64::from(accesses) << 32 | u64::from(bag)];
        self.0.iter().zip(words).for_each(|(place, word)| place.store(word, Ordering::Relaxed));
    }

    #[inline]
    fn get(&self) -> Delivery {
        let [cycle, address, rest] = [0, 1, 2].map(|i| self.0[i].load(Ordering::Relaxed));
        Delivery { cycle, address, accesses: (rest >> 32) as u32, bag: rest as u32 }
    }
}

/// One rank: its memory, and what it did.
pub(super) struct Rank {
    pub memory: Controller,
    pub log: RankLog,
}

pub(super) struct RankLog {
    /// Of each read; until it has its data, the place of its bag in `bags` instead.
    pub latency: Vec<u32>,
    /// Bags that came here, and the cycle of their last data.
    pub bags: Vec<(u32, u64)>,
}

/// Follows the instructions that a rank takes in, from number `next` on.
struct Following<'a> {
    seat: &'a Seat,
    next: usize,
    /// Accesses of that one which have not come in.
    to_come: u32,
    log: &'a mut RankLog,
}

impl Observer for Following<'_> {
    #[inline]
    fn came_in(&mut self, _id: usize, cycle: u64) {
        self.to_come -= 1;
        if self.to_come == 0 {
            self.seat.leaving(self.next).store(cycle, Ordering::Relaxed);
            self.next += 1;
            self.to_come = self.seat.slot(self.next).get().accesses; // of no meaning after the last
        }
    }

    #[inline]
    fn finished(&mut self, id: usize, came_in: u64, cycle: u64) {
        let latency = u32::try_from(cycle - came_in).unwrap_or(u32::MAX);
        let place = std::mem::replace(&mut self.log.latency[id], latency);
        let bag = &mut self.log.bags[place as usize];
        bag.1 = bag.1.max(cycle);
    }
}

/// What the thread that delivers tells; on a cache line of its own.
#[derive(Default)]
#[repr(align(128))]
struct Told {
    delivered: AtomicUsize,
    /// Barriers after what was delivered.
    barriers: AtomicUsize,
}

/// What the thread that runs the rank tells.
#[derive(Default)]
#[repr(align(128))]
struct Answered {
    /// Instructions taken in, or about to be.
    taken: AtomicUsize,
    /// Instructions that left the queue.
    left: AtomicUsize,
    passed: AtomicUsize,
}

struct Seat {
    told: Told,
    answered: Answered,
    /// Rings, a power of two long: of deliveries, and of the cycles in which they left the queue.
    slots: Box<[Slot]>,
    leavings: Box<[AtomicU64]>,
    rank: Mutex<Rank>,
}

impl Seat {
    fn new(hardware: &Hardware, most: usize, reads: usize) -> Self {
        let ring = most.next_power_of_two();
        let memory = Controller::new(&hardware.standard, 1, hardware.settings, false);
        Self {
            told: Told::default(),
            answered: Answered::default(),
            slots: (0..ring).map(|_| Slot::default()).collect(),
            leavings: (0..ring).map(|_| AtomicU64::new(0)).collect(),
            rank: Mutex::new(Rank { memory, log: RankLog { latency: Vec::with_capacity(reads), bags: Vec::new() } }),
        }
    }

    #[inline]
    fn slot(&self, number: usize) -> &Slot {
        &self.slots[number & (self.slots.len() - 1)]
    }

    #[inline]
    fn leaving(&self, number: usize) -> &AtomicU64 {
        &self.leavings[number & (self.leavings.len() - 1)]
    }

    /// About how many deliveries wait; [`BARRIER`] more where one follows.
    fn to_do(&self) -> usize {
        let of = |counter: &AtomicUsize| counter.load(Ordering::Relaxed);
        let barriers = of(&self.told.barriers).saturating_sub(of(&self.answered.passed));
        of(&self.told.delivered).saturating_sub(of(&self.answered.taken)) + BARRIER * barriers
    }

    /// Take in what was delivered, and after it go on to the barrier if there is one; returns whether there was something,
    /// and whether it was a barrier. `mapping` tells the bank of an address, of whose number the rank is left out.
    fn run(&self, rank: &mut Rank, mapping: &Mapping, access_bytes: u64) -> (bool, bool) {
        let Answered { taken, left, passed } = &self.answered;
        let barriers = self.told.barriers.load(Ordering::Acquire); // first: nothing is delivered between it and its barrier
        let to_the_end = barriers > passed.swap(barriers, Ordering::Relaxed);
        let end = self.told.delivered.load(Ordering::Acquire);
        let first = taken.swap(end, Ordering::Relaxed);
        if first == end && !to_the_end {
            return (false, false);
        }
        let log = &mut rank.log;
        for delivery in (first..end).map(|number| self.slot(number).get()) {
            if log.bags.last().is_none_or(|last| last.0 != delivery.bag) {
                log.bags.push((delivery.bag, 0));
            }
            log.latency.extend(std::iter::repeat_n((log.bags.len() - 1) as u32, delivery.accesses as usize));
        }
        let reads = (first..end).flat_map(|number| {
            let delivery = self.slot(number).get();
            (0..u64::from(delivery.accesses)).map(move |k| {
                let place = mapping.place(delivery.address + k * access_bytes);
                let bank = mapping.split_bank(place.bank).1;
                Request { not_before: delivery.cycle, bank, row: place.row, column: place.column, write: false }
            })
        });
        let mut following = Following { seat: self, next: first, to_come: self.slot(first).get().accesses, log };
        rank.memory.run(reads, to_the_end, None, &mut following).expect("nobody can ask it to stop");
        left.store(end, Ordering::Release);
        (true, to_the_end)
    }
}

/// The queue of a rank as the thread that delivers sees it.
pub(super) struct Queue<'a> {
    seat: &'a Seat,
    fifo: usize,
    delivered: usize,
    /// How many are known to have left.
    left: usize,
    /// Deliveries between two tellings.
    portion: usize,
}

impl Queue<'_> {
    /// First cycle in which there is room for one more; `None` while that depends on what the rank does with those
    /// delivered.
    #[inline]
    pub fn room_at(&mut self) -> Option<u64> {
        let Some(number) = self.delivered.checked_sub(self.fifo) else { return Some(0) };
        if number >= self.left {
            self.left = self.seat.answered.left.load(Ordering::Acquire);
            if number >= self.left {
                return None;
            }
        }
        Some(self.seat.leaving(number).load(Ordering::Relaxed) + 1)
    }

    #[inline]
    pub fn deliver(&mut self, delivery: Delivery) {
        self.seat.slot(self.delivered).set(delivery);
        self.delivered += 1;
        if self.delivered.is_multiple_of(self.portion) {
            self.tell();
        }
    }

    pub fn tell(&self) {
        self.seat.told.delivered.store(self.delivered, Ordering::Release);
    }
}

/// The ranks of one channel. Each thread has ranks that it looks at first, so that their state stays in its caches.
pub(super) struct Crew {
    seats: Vec<Seat>,
    mapping: Mapping,
    access_bytes: u64,
    /// Threads that may run ranks, with the one that delivers.
    threads: usize,
    /// Ranks that are not at the barrier yet.
    on_their_way: AtomicUsize,
    over: AtomicBool,
}

/// Ends the crew's work, however that of the delivering thread ends.
pub(super) struct Ending<'a>(pub &'a Crew);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::Release);
    }
}

impl Crew {
    /// So many fresh `ranks` that lie as `mapping` says, run by up to `threads` threads; at `most` so many instructions
    /// wait before one, and there are about so many `reads` in all.
    pub fn new(hardware: &Hardware, mapping: Mapping, ranks: usize, threads: usize, most: usize, reads: usize) -> Self {
        Self {
            seats: (0..ranks).map(|_| Seat::new(hardware, most, reads / ranks + reads / ranks / 8)).collect(),
            mapping,
            access_bytes: hardware.standard.access_bytes(),
            threads: threads.clamp(1, ranks.max(1)),
            on_their_way: AtomicUsize::new(0),
            over: AtomicBool::new(false),
        }
    }

    /// The queues of the ranks, of `fifo` instructions, for the one thread that delivers.
    pub fn queues(&self, fifo: usize) -> Vec<Queue<'_>> {
        let portion = if self.threads > 1 { PORTION } else { usize::MAX };
        self.seats.iter().map(|seat| Queue { seat, fifo, delivered: 0, left: 0, portion }).collect()
    }

    /// The ranks, one after another, for whoever knows that nobody runs them.
    pub fn ranks(&self) -> impl Iterator<Item = MutexGuard<'_, Rank>> {
        self.seats.iter().map(|seat| seat.rank.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Work until it is known when `queue`, that of `rank`, has room; returns the cycle.
    pub fn wait_for_room(&self, rank: usize, queue: &mut Queue<'_>) -> u64 {
        queue.tell();
        let home = self.home(0);
        let mut turns = 0;
        loop {
            if let Some(room) = queue.room_at() {
                return room;
            }
            let ran = home.contains(&rank) && self.run(rank) || self.run_fullest(&home, 1) || self.run(rank);
            if !ran && !self.run_fullest(&(0..self.seats.len()), 1) {
                self.relax(&mut turns);
            }
        }
    }

    /// Work until all ranks have all their data; returns the cycle of the last.
    pub fn wait_for_all(&self, queues: &[Queue<'_>]) -> u64 {
        self.on_their_way.store(self.seats.len(), Ordering::Relaxed);
        for queue in queues {
            queue.tell();
            queue.seat.told.barriers.fetch_add(1, Ordering::Release);
        }
        let mut turns = 0;
        while self.on_their_way.load(Ordering::Acquire) > 0 {
            if !self.work(0, 1) {
                self.relax(&mut turns);
            }
        }
        self.ranks().map(|rank| rank.memory.last_data()).max().unwrap_or(0)
    }

    /// Ranks that thread `thread` of the crew looks at first; the one that delivers is thread 0.
    fn home(&self, thread: usize) -> Range<usize> {
        let from = |thread: usize| self.seats.len() * thread.min(self.threads) / self.threads;
        from(thread)..from(thread + 1)
    }

    /// Run a rank of thread `thread`'s own, else one of another's with at least `least` to do; returns whether.
    fn work(&self, thread: usize, least: usize) -> bool {
        self.run_fullest(&self.home(thread), 1) || self.run_fullest(&(0..self.seats.len()), least)
    }

    /// Run the rank with most to do, and at least `least`; returns whether.
    fn run_fullest(&self, ranks: &Range<usize>, least: usize) -> bool {
        let to_do = |rank: &usize| self.seats[*rank].to_do();
        let fullest = ranks.clone().max_by_key(to_do);
        fullest.is_some_and(|rank| to_do(&rank) >= least && self.run(rank))
            || ranks.clone().any(|rank| to_do(&rank) >= least && self.run(rank))
    }

    /// Run `rank` if it has something to do and nobody runs it; returns whether.
    fn run(&self, rank: usize) -> bool {
        let seat = &self.seats[rank];
        if seat.to_do() == 0 {
            return false;
        }
        let Ok(mut rank) = seat.rank.try_lock() else { return false };
        let (ran, at_barrier) = seat.run(&mut rank, &self.mapping, self.access_bytes);
        drop(rank);
        if at_barrier {
            self.on_their_way.fetch_sub(1, Ordering::Release);
        }
        ran
    }

    /// Wait a little for the others.
    fn relax(&self, turns: &mut usize) {
        assert!(!self.seats.iter().any(|seat| seat.rank.is_poisoned()), "a helping thread panicked");
        relax(turns);
    }
}

/// Run ranks of any of `crews` until all are over, as thread `thread` (from 1) of theirs.
pub(super) fn help(crews: &[Crew], thread: usize) {
    let (mut turns, mut began) = (0, Instant::now());
    while let Some(first) = crews.iter().position(|crew| !crew.over.load(Ordering::Acquire)) {
        let ran = crews[first..].iter().any(|crew| crew.work(thread, PORTION));
        let now = Instant::now();
        if ran && now - began > PATIENCE {
            return;
        }
        began = now;
        if ran {
            turns = 0;
        } else {
            relax(&mut turns);
        }
    }
}

fn relax(turns: &mut usize) {
    *turns += 1;
    if *turns < TURNS_TO_WAIT {
        std::hint::spin_loop();
    } else {
        thread::yield_now();
    }
}

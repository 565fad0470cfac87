//! The slow twin asks, for each instruction, when every rank would take in what it has so far: the stepped DRAM of
//! `dram::reference` from the start. Nothing of the rounds, queues and caches of the fast engine is used.

use super::{Hardware, Lookups, Mode, Outcome, Plan, Program};
use crate::dram::controller::{Page, Request, Scheduler, Settings};
use crate::dram::mapping::Mapping;
use crate::dram::reference::Reference;
use crate::dram::tests::ddr4_2400r;
use crate::error::Result;
use crate::rng::{Purpose, Stream};

const MAPPING: &str = "row bank group rank column";

fn hardware(ranks: usize) -> Hardware {
    let standard = ddr4_2400r();
    Hardware {
        standard,
        ranks,
        ranks_per_dimm: ranks.min(2),
        mapping: Mapping::new(MAPPING, &standard, 1, ranks).unwrap(),
        settings: Settings {
            window: 32,
            gap: 1,
            write_queue: 1,
            scheduler: Scheduler::FrFcfs,
            age_limit: 1000,
            page: Page::Open,
            refresh: true,
        },
        fifo: 32,
        inst_per_cycle: 2,
        cache_bytes: 0,
        cache_ways: 4,
        reduce_cycles: 4,
    }
}

/// Bags of one channel, owned.
struct Bags {
    addresses: Vec<u64>,
    offsets: Vec<usize>,
    accesses: Vec<u32>,
    results: Vec<u32>,
}

impl Bags {
    fn random(seed: u64, bags: usize, pooling: usize, vector: u32, vectors: u64) -> Self {
        let stream = Stream::new(seed, Purpose::Search, 0);
        let row = |i: u64| stream.bits(i) % vectors * (stream.bits(i) >> 32) % vectors;
        Self {
            addresses: (0..(bags * pooling) as u64).map(|i| row(i) * u64::from(vector) * 64).collect(),
            offsets: (0..=bags).map(|bag| bag * pooling).collect(),
            accesses: vec![vector; bags],
            results: vec![vector; bags],
        }
    }

    fn program(&self) -> Program<'_> {
        let Self { addresses, offsets, accesses, results } = self;
        Program { addresses, cacheable: None, offsets, accesses, results }
    }
}

fn try_run(hardware: &Hardware, bags: &Bags, mode: Mode, plan: Plan) -> Result<Outcome> {
    hardware.check()?;
    let crew = hardware.crew(mode, 1, bags.addresses.len(), bags.accesses[0]);
    hardware.run(&bags.program(), mode, plan, &crew, None)
}

fn run(hardware: &Hardware, bags: &Bags, packet: usize) -> Outcome {
    try_run(hardware, bags, Mode::Nmp, Plan { packet, tags: 0 }).unwrap()
}

/// (coming in, last data) of the reads of one rank, stepped from the first cycle.
fn stepped(hardware: &Hardware, reads: &[Request]) -> Vec<(u64, u64)> {
    let mut twin = Reference { standard: &hardware.standard, ranks: 1, settings: hardware.settings, log: Vec::new() };
    twin.run(reads)
}

/// (cycle of the last data, latencies rank by rank, hits).
fn twin(hardware: &Hardware, bags: &Bags, packet: usize) -> (u64, Vec<u32>, u64) {
    let mut reads: Vec<Vec<Request>> = vec![Vec::new(); hardware.ranks];
    let mut ends: Vec<Vec<usize>> = vec![Vec::new(); hardware.ranks];
    // Rank bits of the mapping above: 13 and up.
    let rank_bits = hardware.ranks.trailing_zeros();
    let vector_bytes = u64::from(bags.accesses[0]) * 64;
    let sets = hardware.cache_bytes / (vector_bytes as usize * hardware.cache_ways);
    let mut caches: Vec<Vec<Vec<u64>>> = vec![vec![Vec::new(); sets]; hardware.ranks];
    let (mut cycle, mut used, mut hits) = (1, 0, 0);
    for (i, address) in bags.addresses.iter().enumerate() {
        if packet > 0 && i > 0 && i % packet == 0 {
            let back = reads.iter().flat_map(|reads| stepped(hardware, reads)).map(|times| times.1).max();
            if back.is_some_and(|back| back > cycle) {
                (cycle, used) = (back.unwrap(), 0);
            }
        }
        if used == hardware.inst_per_cycle {
            (cycle, used) = (cycle + 1, 0);
        }
        let rank = (address >> 13) as usize % hardware.ranks;
        let local = address >> (13 + rank_bits) << 13 | address & 0x1fff;
        if sets > 0 {
            let set = &mut caches[rank][(local / vector_bytes) as usize % sets];
            let found = set.iter().position(|line| line == address);
            found.map(|place| set.remove(place));
            set.insert(0, *address);
            set.truncate(hardware.cache_ways);
            if found.is_some() {
                hits += 1;
                used += 1;
                continue;
            }
        }
        if ends[rank].len() >= hardware.fifo {
            let last_read = ends[rank][ends[rank].len() - hardware.fifo] - 1;
            let left = stepped(hardware, &reads[rank])[last_read].0;
            if left + 1 > cycle {
                (cycle, used) = (left + 1, 0);
            }
        }
        used += 1;
        let one = Mapping::new(MAPPING, &hardware.standard, 1, 1).unwrap();
        for k in 0..u64::from(bags.accesses[0]) {
            let place = one.place(local + 64 * k);
            let (bank, row, column) = (place.bank, place.row, place.column);
            reads[rank].push(Request { not_before: cycle, bank, row, column, write: false });
        }
        ends[rank].push(reads[rank].len());
    }
    let times: Vec<(u64, u64)> = reads.iter().flat_map(|reads| stepped(hardware, reads)).collect();
    let last = times.iter().map(|times| times.1).max().unwrap_or(0).max(cycle);
    (last, times.iter().map(|(came_in, done)| (done - came_in) as u32).collect(), hits)
}

#[test]
fn agrees_with_the_twin_on_short_traces() {
    let mut case = 0;
    for ranks in [1, 2, 4] {
        for (packet, fifo, cache_bytes, vector, window) in
            [(0, 3, 0, 1, 32), (0, 32, 2048, 2, 8), (24, 4, 0, 4, 32), (16, 2, 1024, 1, 4), (7, 1, 0, 2, 2)]
        {
            case += 1;
            let mut hardware = Hardware { fifo, cache_bytes, cache_ways: 2, ..hardware(ranks) };
            hardware.settings.window = window;
            hardware.inst_per_cycle = 1 + case as usize % 3;
            let bags = Bags::random(case, 9, 8, vector, [60, 1 << 20][case as usize % 2]);
            let fast = run(&hardware, &bags, packet);
            let (cycles, latency, hits) = twin(&hardware, &bags, packet);
            assert_eq!((fast.gather_cycles, fast.cache_hits), (cycles, hits), "case {case}");
            assert_eq!(fast.latency, latency, "case {case}");
        }
    }
}

#[test]
fn threads_and_channels_change_nothing() {
    let hardware = Hardware { cache_bytes: 16 << 10, ..hardware(8) };
    let bags = Bags::random(3, 90, 40, 2, 1 << 12);
    let lookups = Lookups {
        addresses: &bags.addresses,
        cacheable: None,
        offsets: bags.offsets,
        accesses: bags.accesses,
        results: bags.results,
        channels: vec![0, 30, 30, 90],
    };
    for packet in [0, 160] {
        let run = |threads| lookups.run(&hardware, Mode::Nmp, Plan { packet, tags: 0 }, threads, None).unwrap();
        let one = run(1);
        assert_eq!(one.latency.len() as u64, (90 * 40 - one.cache_hits) * 2, "no lookup is lost");
        assert!(one.cache_hits > 0);
        assert_eq!(run(2), one);
        assert_eq!(run(3), one);
    }
}

#[test]
fn helpers_change_nothing_whatever_the_queues() {
    // In the last mapping a vector comes back to a rank: several pieces go into a queue that has room for one.
    for (fifo, vector, mapping) in [(1, 1, MAPPING), (32, 2, MAPPING), (1, 16, "row bank group column:5 rank column:2")]
    {
        let mut hardware = Hardware { fifo, ..hardware(4) };
        hardware.mapping = Mapping::new(mapping, &hardware.standard, 1, 4).unwrap();
        let bags = Bags::random(9, 20, 40, vector, 1 << 12);
        let Bags { offsets, accesses, results, .. } = bags;
        let channels = vec![0, 20];
        let lookups = Lookups { addresses: &bags.addresses, cacheable: None, offsets, accesses, results, channels };
        for mode in [Mode::Nmp, Mode::ColumnSplit] {
            for packet in [0, 7, 300] {
                let run = |threads| lookups.run(&hardware, mode, Plan { packet, tags: 0 }, threads, None).unwrap();
                let one = run(1);
                assert_eq!(one.latency.len() as u64, one.activity.counts.reads);
                for threads in [2, 3, 9] {
                    assert_eq!(run(threads), one, "{threads} threads, packet {packet}, {mode:?}, {mapping}");
                }
            }
        }
    }
}

#[test]
fn a_helper_that_panics_is_not_waited_for() {
    let crew = hardware(2).crew(Mode::Nmp, 2, 10, 1);
    let broken = std::thread::scope(|scope| {
        let helper = scope.spawn(|| {
            let _rank = crew.ranks().next();
            panic!("while it holds a rank");
        });
        helper.join().is_err()
    });
    let waited = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| crew.wait_for_all(&crew.queues(4))));
    assert!(broken && waited.is_err());
}

#[test]
fn packets_end_where_their_tags_do() {
    let bags = Bags::random(4, 40, 10, 1, 1 << 20);
    let packets = |packet, tags| try_run(&hardware(2), &bags, Mode::Nmp, Plan { packet, tags }).unwrap().packets;
    assert_eq!([packets(0, 0), packets(0, 16), packets(100, 0), packets(100, 5), packets(64, 16)], [1, 1, 4, 8, 7]);
}

#[test]
fn sums_come_over_the_channel_one_after_another() {
    // One vector in one rank: delivered in cycle 1, a closed row, then the sum of one access from one DIMM.
    let bags = Bags { addresses: vec![0], offsets: vec![0, 1], accesses: vec![1], results: vec![1] };
    let alone = run(&hardware(2), &bags, 0);
    assert_eq!((alone.gather_cycles, alone.cycles), (1 + 1 + 16 + 20, 38 + 4 + 4));
    // Two bags over both DIMMs of four ranks: parts of both come from each DIMM.
    let two = Bags {
        addresses: vec![0, 2 << 13, 0, 2 << 13],
        offsets: vec![0, 2, 4],
        accesses: vec![1; 2],
        results: vec![3; 2],
    };
    let both = run(&hardware(4), &two, 0);
    assert_eq!(both.activity.transfers, 2 * 2 * 3);
    assert!(both.cycles >= both.gather_cycles + 4 + 2 * 3 * 4);
}

#[test]
fn a_column_split_opens_every_rank_for_every_vector() {
    let bags = Bags::random(6, 20, 20, 4, 1 << 20);
    let near = run(&hardware(4), &bags, 0);
    let split = try_run(&hardware(4), &bags, Mode::ColumnSplit, Plan { packet: 0, tags: 0 }).unwrap();
    assert_eq!(near.activity.counts.reads, split.activity.counts.reads);
    // Four instead of one, less the rows that are still open.
    let (one, four) = (near.activity.counts.activates, split.activity.counts.activates);
    assert!((5 * one / 2..=4 * one).contains(&four), "{four} for {one}");
    assert_eq!(split.reads_by_rank, [400; 4]);
}

#[test]
fn the_host_moves_every_vector() {
    let bags = Bags::random(7, 20, 20, 2, 1 << 20);
    let host = try_run(&hardware(2), &bags, Mode::Host, Plan { packet: 0, tags: 0 }).unwrap();
    assert_eq!(host.activity.transfers, 800);
    assert_eq!(host.activity.counts.reads, 800);
}

#[test]
fn what_does_not_fit_is_named() {
    let bags = Bags::random(8, 2, 4, 1, 1 << 20);
    let refuse = |change: fn(&mut Hardware)| {
        let mut hardware = hardware(4);
        change(&mut hardware);
        let plan = Plan { packet: 0, tags: 0 };
        try_run(&hardware, &bags, Mode::Nmp, plan).unwrap_err().to_string()
    };
    for (change, expected) in [
        ((|h| h.fifo = 0) as fn(&mut Hardware), "fifo: is 0"),
        (|h| h.inst_per_cycle = 0, "inst_per_cycle: is 0"),
        (|h| h.ranks_per_dimm = 3, "ranks_per_dimm: is 3"),
        (|h| (h.cache_bytes, h.cache_ways) = (256, 8), "cache_ways: is 8; allowed is from 1 to the cache's 4 lines"),
        (|h| (h.cache_bytes, h.cache_ways) = (256, 0), "cache_ways: is 0"),
    ] {
        assert!(refuse(change).contains(expected), "{}", refuse(change));
    }
}

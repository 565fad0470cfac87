//! Four heights: one command, one controller against its twin, throughput and latency against closed forms, smoke.

use super::controller::{Controller, Issued, Observer, Page, Request, Scheduler, Settings};
use super::mapping::{DEFAULT, Mapping};
use super::reference::{Record, Reference};
use super::standard::{Currents, Organisation, Standard, Timing};
use super::state::{Command, RankCommand, State};
use super::{Outcome, System};
use crate::rng::{Purpose, Stream};

pub fn ddr4_2400r() -> Standard {
    let timing = Timing {
        bl: 4,
        cl: 16,
        cwl: 12,
        rcd: 16,
        rp: 16,
        ras: 39,
        rc: 55,
        ccd_s: 4,
        ccd_l: 6,
        ccd_l_wr: 6,
        rrd_s: 4,
        rrd_l: 6,
        faw: 26,
        rtp: 9,
        wr: 18,
        wtr_s: 3,
        wtr_l: 9,
        rtw: 2,
        rank_switch: 2,
        rfc: 420,
        refi: 9360,
        row_command: 1,
        column_command: 1,
    };
    let organisation =
        Organisation { groups: 4, banks_per_group: 4, rows: 65536, row_bytes: 8192, bus_bits: 64, device_bits: 8 };
    let currents = Currents {
        vdd_v: 1.2,
        idd0_ma: 48.0,
        idd2n_ma: 34.0,
        idd3n_ma: 43.0,
        idd4r_ma: 135.0,
        idd4w_ma: 123.0,
        idd5_ma: 250.0,
        io_pj_per_bit: 22.0,
    };
    Standard { organisation, timing, tck_ns: 0.833, currents: Some(currents) }
}

/// Every constraint decides somewhere: odd numbers, none a sum of others, windows that bind.
fn odd_standard() -> Standard {
    let timing = Timing {
        bl: 4,
        cl: 11,
        cwl: 7,
        rcd: 10,
        rp: 8,
        ras: 25,
        rc: 37,
        ccd_s: 5,
        ccd_l: 9,
        ccd_l_wr: 13,
        rrd_s: 5,
        rrd_l: 8,
        faw: 41,
        rtp: 17,
        wr: 14,
        wtr_s: 2,
        wtr_l: 7,
        rtw: 3,
        rank_switch: 5,
        rfc: 83,
        refi: 400,
        row_command: 2,
        column_command: 2,
    };
    Standard { timing, ..ddr4_2400r() }
}

fn settings() -> Settings {
    Settings {
        window: 32,
        gap: 1,
        write_queue: 32,
        scheduler: Scheduler::FrFcfs,
        age_limit: 1000,
        page: Page::Open,
        refresh: true,
    }
}

#[derive(Default)]
struct Log {
    commands: Vec<Record>,
    times: Vec<(u64, u64)>,
}

impl Observer for Log {
    fn came_in(&mut self, id: usize, _cycle: u64) {
        assert_eq!(id, self.times.len());
        self.times.push((0, 0));
    }

    fn finished(&mut self, id: usize, came_in: u64, cycle: u64) {
        assert_eq!(self.times[id], (0, 0), "request {id} finished twice");
        self.times[id] = (came_in, cycle);
    }

    fn command(&mut self, command: Issued, bank: usize, row: u32, cycle: u64) {
        self.commands.push(Record { cycle, command, bank, row });
    }
}

fn requests(stream: Stream, n: u64, banks: u64, rows: u64, writes: u64, idle: u64) -> Vec<Request> {
    let mut at = 0;
    (0..n)
        .map(|i| {
            let z = stream.bits(i);
            at += if idle > 0 && z >> 60 == 0 { (z >> 40) % idle } else { 0 };
            Request {
                not_before: at,
                bank: (z % banks) as u32,
                row: ((z >> 20) % rows) as u32,
                column: ((z >> 30) % 4) as u32,
                write: (z >> 34) % 100 < writes,
            }
        })
        .collect()
}

#[test]
fn agrees_with_the_twin_on_random_short_traces() {
    let mut case = 0;
    for standard in [ddr4_2400r(), odd_standard()] {
        standard.check().unwrap();
        for ranks in [1, 2, 4] {
            for (scheduler, age_limit, page) in [
                (Scheduler::FrFcfs, 100, Page::Open),
                (Scheduler::FrFcfs, 1 << 30, Page::Open),
                (Scheduler::FrFcfs, 1000, Page::Closed),
                (Scheduler::RowHitFirst, 0, Page::Open),
                (Scheduler::RowHitFirst, 60, Page::Open),
                (Scheduler::RowHitFirst, 1 << 30, Page::Closed),
            ] {
                for (window, gap, writes, idle) in [(1, 1, 0, 0), (8, 1, 0, 0), (32, 3, 30, 0), (16, 1, 60, 900)] {
                    case += 1;
                    let settings = Settings { window, gap, write_queue: 7, scheduler, age_limit, page, refresh: true };
                    let banks = (ranks * standard.banks()) as u64;
                    let stream = Stream::new(case, Purpose::Search, 0);
                    let trace = requests(stream, 150, [3, banks][case as usize % 2], 3, writes, idle);
                    let mut twin = Reference { standard: &standard, ranks, settings, log: Vec::new() };
                    let expected = twin.run(&trace);
                    let mut log = Log::default();
                    let mut fast = Controller::new(&standard, ranks, settings, writes > 0);
                    fast.run(trace.iter().copied(), true, None, &mut log).unwrap();
                    let what = format!("case {case}: {ranks} ranks, {settings:?}");
                    for (i, (ours, theirs)) in log.commands.iter().zip(&twin.log).enumerate() {
                        assert_eq!(ours, theirs, "{what}: command {i}");
                    }
                    assert_eq!(log.commands.len(), twin.log.len(), "{what}");
                    assert_eq!(log.times, expected, "{what}");
                }
            }
        }
    }
}

#[test]
fn a_run_in_pieces_is_the_same_run() {
    let standard = odd_standard();
    let trace = requests(Stream::new(9, Purpose::Search, 0), 3000, 32, 4, 20, 50);
    let run = |pieces: usize| {
        let mut log = Log::default();
        let mut channel = Controller::new(&standard, 2, settings(), true);
        for piece in trace.chunks(trace.len().div_ceil(pieces)) {
            channel.run(piece.iter().copied(), false, None, &mut log).unwrap();
        }
        channel.run(std::iter::empty(), true, None, &mut log).unwrap();
        (log.commands, log.times)
    };
    assert_eq!(run(1), run(77));
}

/// Least distance of `second` after `first`, each to (rank, group, bank), after what opens their rows long before.
fn distance(standard: &Standard, first: (Command, usize), second: (Command, usize)) -> u64 {
    let mut state = State::new(standard, 2, true);
    let start = 10_000;
    for (i, (command, bank)) in [first, second].into_iter().enumerate() {
        if command != Command::Activate && state.bank(bank).row == super::state::CLOSED {
            state.issue(Command::Activate, bank, 5, 1000 * (1 + i as u64));
        }
    }
    state.issue(first.0, first.1, 5, start);
    state.earliest(second.0, second.1) - start
}

#[test]
fn every_constraint_is_tight() {
    use Command::{Activate, Precharge, Read, ReadPrecharge, Write, WritePrecharge};
    // Banks of rank 0: 0 and 1 share a group, 4 is in another; 16 is in rank 1.
    let (own, group, other, away) = (0, 1, 4, 16);
    for standard in [ddr4_2400r(), odd_standard()] {
        let t = standard.timing;
        let bus = |c: u32| c;
        for (first, second, bank, cycles) in [
            (Activate, Read, own, t.rcd),
            (Activate, Write, own, t.rcd),
            (Activate, Precharge, own, t.ras),
            (Activate, Activate, own, t.rc),
            (Precharge, Activate, own, t.rp),
            (Read, Precharge, own, t.rtp),
            (Write, Precharge, own, t.cwl + t.bl + t.wr),
            (ReadPrecharge, Activate, own, t.rtp + t.rp),
            (WritePrecharge, Activate, own, t.cwl + t.bl + t.wr + t.rp),
            (Activate, Activate, group, t.rrd_l),
            (Activate, Activate, other, t.rrd_s),
            (Activate, Activate, away, bus(t.row_command)),
            (Read, Read, own, t.ccd_l),
            (Read, Read, group, t.ccd_l),
            (Read, Read, other, t.ccd_s),
            (Read, Read, away, t.bl + t.rank_switch),
            (Write, Write, group, t.ccd_l_wr),
            (Write, Write, other, t.ccd_s),
            (Write, Write, away, t.bl + t.rank_switch),
            (Read, Write, own, t.cl + t.bl + t.rtw - t.cwl),
            (Read, Write, other, t.cl + t.bl + t.rtw - t.cwl),
            (Read, Write, away, t.cl + t.bl + t.rank_switch - t.cwl),
            (Write, Read, group, t.cwl + t.bl + t.wtr_l),
            (Write, Read, other, t.cwl + t.bl + t.wtr_s),
            (Write, Read, away, (t.cwl + t.bl + t.rank_switch).saturating_sub(t.cl).max(t.column_command)),
            (Read, Precharge, other, t.column_command),
            (Activate, Precharge, other, t.row_command),
            (Precharge, Precharge, other, 1),
        ] {
            let found = distance(&standard, (first, own), (second, bank));
            assert_eq!(found, u64::from(cycles), "{first:?} -> {second:?} on bank {bank}");
        }
    }
}

#[test]
fn four_activates_in_a_window() {
    for standard in [ddr4_2400r(), odd_standard()] {
        let mut state = State::new(&standard, 2, true);
        let t = standard.timing;
        let mut cycles = Vec::new();
        for group in 0..4 {
            let at = state.earliest(Command::Activate, group * 4).max(100);
            state.issue(Command::Activate, group * 4, 1, at);
            cycles.push(at);
        }
        let step = u64::from(t.rrd_s);
        assert_eq!(cycles, [100, 100 + step, 100 + 2 * step, 100 + 3 * step]);
        let fifth = state.earliest(Command::Activate, 1);
        assert_eq!(fifth, 100 + u64::from(t.faw));
        assert_eq!(state.earliest(Command::Activate, 16), cycles[3] + u64::from(t.row_command), "another rank");
        state.issue(Command::Activate, 1, 1, fifth);
        // The sixth counts from the second; in the odd standard that binds, in DDR4 the distance of two does.
        let sixth = (cycles[1] + u64::from(t.faw)).max(fifth + step);
        assert_eq!(state.earliest(Command::Activate, 5), sixth);
    }
}

#[test]
fn a_refresh_waits_for_precharges_and_holds_its_rank() {
    for standard in [ddr4_2400r(), odd_standard()] {
        let t = standard.timing;
        let mut state = State::new(&standard, 2, true);
        state.issue(Command::Activate, 3, 1, 100);
        let precharge = state.earliest_rank(RankCommand::PrechargeAll, 0);
        assert_eq!(precharge, 100 + u64::from(t.ras));
        state.issue_rank(RankCommand::PrechargeAll, 0, precharge);
        let refresh = state.earliest_rank(RankCommand::Refresh, 0);
        assert_eq!(refresh, (precharge + u64::from(t.rp)).max(100 + u64::from(t.rc)));
        state.issue_rank(RankCommand::Refresh, 0, refresh);
        assert_eq!(state.earliest(Command::Activate, 0), refresh + u64::from(t.rfc));
        assert_eq!(state.earliest_rank(RankCommand::Refresh, 0), refresh + u64::from(t.rfc));
        assert_eq!(state.earliest(Command::Activate, 16), refresh + 1, "the other rank goes on");
    }
}

#[test]
fn a_precharge_inside_a_read_waits_for_the_row() {
    let standard = ddr4_2400r();
    let t = standard.timing;
    let mut state = State::new(&standard, 1, true);
    state.issue(Command::Activate, 0, 1, 100);
    state.issue(Command::ReadPrecharge, 0, 1, 100 + u64::from(t.rcd));
    assert_eq!(state.earliest(Command::Activate, 0), 100 + u64::from(t.ras + t.rp));
}

fn system(ranks: usize, settings: Settings) -> System {
    let standard = ddr4_2400r();
    let mapping = Mapping::new(DEFAULT, &standard, 1, ranks).unwrap();
    System { standard, channels: 1, ranks, mapping, settings }
}

fn run(system: &System, addresses: &[u64]) -> Outcome {
    system.run(addresses, None, 1, None).unwrap()
}

fn uniform(n: u64, capacity: u64, seed: u64) -> Vec<u64> {
    let stream = Stream::new(seed, Purpose::Search, 0);
    (0..n).map(|i| (stream.bits(i) % capacity) & !63).collect()
}

#[test]
fn idle_latencies_are_the_sums_of_their_commands() {
    let system = system(1, Settings { window: 1, ..settings() });
    // Closed row, hit, conflict. The command goes out in the cycle after the request came in.
    let latency = run(&system, &[0, 64, 1 << 17]).latency;
    // The conflict comes right behind a hit, so its precharge waits for tRAS already past and tRTP already past.
    assert_eq!(latency, [1 + 16 + 20, 1 + 20, 1 + 16 + 16 + 20]);
}

#[test]
fn one_rank_of_random_rows_is_bound_by_faw() {
    let n = 40_000;
    let outcome = run(&system(1, settings()), &uniform(n, 1 << 33, 1));
    let per_access = outcome.cycles as f64 / n as f64;
    let bound = 26.0 / 4.0 / (1.0 - 420.0 / 9360.0);
    assert!((1.0..1.01).contains(&(per_access / bound)), "{per_access} against {bound}");
}

#[test]
fn rows_across_groups_reach_the_peak_between_refreshes() {
    // Columns of one row in each bank group in turn: one burst after another.
    let standard = ddr4_2400r();
    let mapping = Mapping::new("row bank rank column group", &standard, 1, 1).unwrap();
    let system = System { standard, channels: 1, ranks: 1, mapping, settings: settings() };
    let n = 40_000;
    let addresses: Vec<u64> = (0..n).map(|i| i * 64).collect();
    let per_access = run(&system, &addresses).cycles as f64 / n as f64;
    let bound = 4.0 / (1.0 - 420.0 / 9360.0);
    assert!((1.0..1.03).contains(&(per_access / bound)), "{per_access} against {bound}");
}

#[test]
fn hits_of_one_bank_are_bound_by_ccd_l() {
    let n = 40_000;
    let addresses: Vec<u64> = (0..n).map(|i| i % 128 * 64).collect();
    let per_access = run(&system(1, settings()), &addresses).cycles as f64 / n as f64;
    let bound = 6.0 / (1.0 - 420.0 / 9360.0);
    assert!((1.0..1.01).contains(&(per_access / bound)), "{per_access} against {bound}");
}

#[test]
fn energy_of_a_row_cycle_a_read_and_a_refresh_is_the_formula_by_hand() {
    let standard = ddr4_2400r();
    let counts = super::Counts { activates: 1, precharges: 1, reads: 1, writes: 0, refreshes: 1 };
    let activity = super::Activity { counts, transfers: 1, rank_cycles: 1000, open_cycles: 1000 };
    let e = super::energy(&standard, &activity).unwrap();
    // 1.2 V * (48*55 - 43*39 - 34*16) mA * 8 chips * 0.833 ns, and so on.
    assert!((e.activate_nj - 3.3507).abs() < 1e-3, "{e:?}");
    assert!((e.read_nj - 2.9429).abs() < 1e-3, "{e:?}");
    assert!((e.refresh_nj - 695.24).abs() < 0.1, "{e:?}");
    assert!((e.background_nj - 0.4128 * 833.0).abs() < 0.1, "{e:?}");
    assert!((e.io_nj - 512.0 * 0.022).abs() < 1e-9, "{e:?}");
}

#[test]
fn channels_share_nothing_and_threads_change_nothing() {
    let standard = ddr4_2400r();
    let mapping = Mapping::new(DEFAULT, &standard, 4, 2).unwrap();
    let system = System { standard, channels: 4, ranks: 2, mapping, settings: settings() };
    let addresses = uniform(20_000, system.mapping.capacity(), 3);
    let writes: Vec<bool> = addresses.iter().map(|a| (a >> 20) % 4 == 0).collect();
    let one = system.run(&addresses, Some(&writes), 1, None).unwrap();
    for threads in [2, 3] {
        assert_eq!(system.run(&addresses, Some(&writes), threads, None).unwrap(), one);
    }
    assert!(one.latency.iter().all(|latency| *latency > 0), "no request is lost");
    let counts = one.activity.counts;
    assert_eq!(counts.reads + counts.writes + one.forwarded, addresses.len() as u64);
}

#[test]
fn a_run_stops_when_asked_even_where_only_refreshes_happen() {
    let control = crate::control::Control::new();
    control.cancel();
    let system = system(2, Settings { gap: 1 << 31, ..settings() });
    assert_eq!(system.run(&uniform(1000, 1 << 34, 1), None, 1, Some(&control)), Err(crate::Error::Cancelled));
}

#[test]
fn every_bit_of_an_address_has_one_place() {
    let standard = ddr4_2400r();
    for text in
        [DEFAULT, "row rank bank:1 column:4 group bank:1 column:3 channel", "column row group bank rank channel"]
    {
        let mapping = Mapping::new(text, &standard, 2, 4).unwrap();
        assert_eq!(mapping.capacity(), 8 * (8 << 30));
        let key = |a: u64| {
            let p = mapping.place(a);
            (p.channel, p.bank, p.row, p.column)
        };
        let bits: Vec<_> = (6..36).map(|bit| key(1 << bit)).collect();
        let all = bits.iter().fold((0, 0, 0, 0), |a, b| (a.0 | b.0, a.1 | b.1, a.2 | b.2, a.3 | b.3));
        assert_eq!(all, (1, 63, 65535, 127));
        assert_eq!(key(mapping.capacity() - 64), all);
    }
}

#[test]
fn wrong_mappings_are_named() {
    let standard = ddr4_2400r();
    for (text, ranks, expected) in [
        ("row bank group rank", 2, "gives 0 bits to column; it must be 7"),
        ("row:15 bank group rank column", 2, "gives 15 bits to row; it must be 16"),
        ("row bank group rank column:7 column:1", 2, "gives 8 bits to column"),
        ("row bank group rank column column", 2, "stands more than once"),
        ("row bank group rank colour", 2, "names \"colour\""),
        ("row bank group rank column:x", 2, "gives column \"x\" bits"),
        ("row bank group rank column", 0, "ranks: is 0"),
        ("row bank group rank column", 3, "ranks: is 3"),
    ] {
        let error = Mapping::new(text, &standard, 1, ranks).unwrap_err().to_string();
        assert!(error.contains(expected), "{text}: {error}");
    }
}

#[test]
fn wrong_standards_are_named() {
    let change = |f: fn(&mut Standard)| {
        let mut standard = ddr4_2400r();
        f(&mut standard);
        standard.check().unwrap_err().to_string()
    };
    for (f, expected) in [
        ((|s| s.timing.ras = 10) as fn(&mut Standard), "timing.ras: is 10; allowed is at least rcd = 16"),
        (|s| s.timing.rc = 38, "timing.rc"),
        (|s| s.timing.ccd_l = 3, "timing.ccd_l"),
        (|s| s.timing.refi = 430, "timing.refi"),
        (|s| s.timing.cl = 0, "timing.cl: is 0"),
        (|s| s.timing.bl = 3, "timing.bl: makes bursts of 48 bytes"),
        (|s| s.organisation.rows = 3, "organisation.rows: is 3"),
        (
            |s| (s.organisation.rows, s.organisation.row_bytes, s.organisation.groups) = (1 << 24, 1 << 20, 64),
            "organisation.rows: makes ranks of",
        ),
        (|s| s.organisation.device_bits = 128, "organisation.device_bits"),
        (|s| s.tck_ns = f64::NAN, "tck_ns"),
        (|s| s.currents.as_mut().unwrap().idd5_ma = 1.0, "currents.idd5_ma"),
    ] {
        let error = change(f);
        assert!(error.contains(expected), "{error}");
    }
}

//! Cycle-level DRAM: standards as data, a controller that goes from event to event, energy from currents.
//!
//! Read `reference.rs` first: it steps through the cycles one by one and checks every command against the list of all
//! earlier ones. [`controller`] gives the same commands in the same cycles.

pub mod controller;
pub mod energy;
pub mod mapping;
pub mod standard;
pub mod state;

#[cfg(test)]
pub(crate) mod reference;
#[cfg(test)]
pub(crate) mod tests;

pub use controller::{Controller, Issued, Observer, Page, Request, Scheduler, Settings};
pub use energy::{Activity, Energy, energy};
pub use mapping::{Mapping, Place};
pub use standard::{Currents, Organisation, Standard, Timing};
pub use state::{Command, Counts, RankCommand, State};

use crate::control::Control;
use crate::error::{Error, Result};
use crate::pool;
use controller::MAX_REQUESTS;
use rayon::prelude::*;

/// A memory system: one standard, so many channels of so many ranks.
#[derive(Debug, Clone)]
pub struct System {
    pub standard: Standard,
    pub channels: usize,
    pub ranks: usize,
    pub mapping: Mapping,
    pub settings: Settings,
}

/// What a run of a memory system gave.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Cycles until the last data moved, of the slowest channel; the first cycle counts as one.
    pub cycles: u64,
    /// By access, in the order of the addresses: cycles from coming in to the last data.
    pub latency: Vec<u32>,
    pub row_hits: u64,
    pub forwarded: u64,
    pub activity: Activity,
}

/// Keeps latencies.
struct Latencies(Vec<u32>);

impl Observer for Latencies {
    #[inline]
    fn finished(&mut self, id: usize, came_in: u64, cycle: u64) {
        self.0[id] = u32::try_from(cycle - came_in).unwrap_or(u32::MAX);
    }
}

/// Check addresses against the system and return their error, naming the first that is wrong. `access_bytes` is a power
/// of two.
pub fn check_addresses(field: &str, addresses: &[u64], mapping: &Mapping, access_bytes: u64) -> Result<()> {
    if addresses.is_empty() {
        return Err(Error::invalid(field, "is empty; allowed is at least one"));
    }
    let (capacity, inside) = (mapping.capacity(), access_bytes - 1);
    match addresses.iter().position(|a| *a >= capacity || a & inside != 0) {
        None => Ok(()),
        Some(i) => Err(Error::invalid(
            format!("{field}[{i}]"),
            format!(
                "is {}; allowed are multiples of {access_bytes} below the capacity, {capacity} bytes",
                addresses[i]
            ),
        )),
    }
}

/// One line of a script of commands: what, to which bank (of a command to a rank: its first bank), when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scripted {
    pub command: Issued,
    pub bank: usize,
    pub cycle: u64,
}

impl Issued {
    /// The command called `name`.
    pub fn parse(field: &str, name: &str) -> Result<Self> {
        const KNOWN: [(&str, Issued); 8] = [
            ("activate", Issued::Bank(Command::Activate)),
            ("precharge", Issued::Bank(Command::Precharge)),
            ("read", Issued::Bank(Command::Read)),
            ("write", Issued::Bank(Command::Write)),
            ("read-precharge", Issued::Bank(Command::ReadPrecharge)),
            ("write-precharge", Issued::Bank(Command::WritePrecharge)),
            ("precharge-all", Issued::Rank(RankCommand::PrechargeAll)),
            ("refresh", Issued::Rank(RankCommand::Refresh)),
        ];
        KNOWN.iter().find(|known| known.0 == name).map(|known| known.1).ok_or_else(|| {
            let known = KNOWN.map(|known| known.0).join(", ");
            Error::invalid(field, format!("is {name:?}; allowed are {known}"))
        })
    }
}

/// For each command of a script the first cycle that breaks no timing constraint, given the ones before it in the
/// cycles that the script says (which need not be allowed themselves).
pub fn earliest_cycles(standard: &Standard, ranks: usize, script: &[Scripted]) -> Result<Vec<u64>> {
    let mut state = State::new(standard, ranks, true);
    let banks = ranks * standard.banks();
    let mut last = 0;
    let mut earliest = Vec::with_capacity(script.len());
    for (i, &Scripted { command, bank, cycle }) in script.iter().enumerate() {
        let refuse = |message: String| Err(Error::invalid(format!("commands[{i}]"), message));
        if bank >= banks {
            return refuse(format!("bank is {bank}; allowed is from 0 to {}", banks - 1));
        }
        if cycle < last || cycle > MAX_SCRIPT_CYCLE {
            return refuse(format!("cycle is {cycle}; allowed is from {last} (the one before) to {MAX_SCRIPT_CYCLE}"));
        }
        last = cycle;
        match command {
            Issued::Bank(command) => {
                let (is_open, opens) = (state.bank(bank).row != state::CLOSED, command == Command::Activate);
                if is_open == opens {
                    let what = if is_open { "open" } else { "closed" };
                    return refuse(format!("is {command:?} to bank {bank}, which is {what}"));
                }
                earliest.push(state.earliest(command, bank));
                state.issue(command, bank, 0, cycle);
            }
            Issued::Rank(command) => {
                let rank = state.rank_of(bank);
                if command == RankCommand::Refresh && state.has_open_bank(rank) {
                    return refuse(format!("is a refresh of rank {rank}, which has an open bank"));
                }
                earliest.push(state.earliest_rank(command, rank));
                state.issue_rank(command, rank, cycle);
            }
        }
    }
    Ok(earliest)
}

/// Last cycle of a script.
const MAX_SCRIPT_CYCLE: u64 = 1 << 48;

impl System {
    /// Serve accesses in the order of `addresses` (bytes); `writes[i]` tells whether access i writes, absent for
    /// reads only. Channels are independent: each takes its own accesses with its own window.
    pub fn run(
        &self,
        addresses: &[u64],
        writes: Option<&[bool]>,
        threads: usize,
        control: Option<&Control>,
    ) -> Result<Outcome> {
        check_addresses("addresses", addresses, &self.mapping, self.standard.access_bytes())?;
        if let Some(writes) = writes
            && writes.len() != addresses.len()
        {
            let message = format!("has {} entries for {} addresses", writes.len(), addresses.len());
            return Err(Error::invalid("writes", message));
        }
        if addresses.len() > MAX_REQUESTS {
            let message = format!("has {} entries; the limit is {MAX_REQUESTS}", addresses.len());
            return Err(Error::invalid("addresses", message));
        }
        let mut by_channel: Vec<Vec<u32>> = vec![Vec::new(); self.channels];
        if self.channels > 1 {
            for (i, address) in addresses.iter().enumerate() {
                by_channel[self.mapping.place(*address).channel as usize].push(i as u32);
            }
        }
        let request = |i: usize| {
            let place = self.mapping.place(addresses[i]);
            let write = writes.is_some_and(|writes| writes[i]);
            Request { not_before: 0, bank: place.bank, row: place.row, column: place.column, write }
        };
        let one = |mine: &[u32]| {
            let count = if self.channels > 1 { mine.len() } else { addresses.len() };
            let mut latencies = Latencies(vec![0; count]);
            let mut channel = Controller::new(&self.standard, self.ranks, self.settings, writes.is_some());
            if self.channels > 1 {
                channel.run(mine.iter().map(|i| request(*i as usize)), true, control, &mut latencies)?;
            } else {
                channel.run((0..count).map(request), true, control, &mut latencies)?;
            }
            Ok((channel, latencies.0))
        };
        let parts: Vec<(Controller, Vec<u32>)> =
            pool::install(threads, || by_channel.par_iter().map(|mine| one(mine)).collect::<Result<_>>())??;

        let cycles = parts.iter().map(|(channel, _)| channel.last_data()).max().unwrap_or(0);
        let mut activity =
            Activity { rank_cycles: cycles * (self.channels * self.ranks) as u64, ..Activity::default() };
        for (channel, _) in &parts {
            activity.counts.add(&channel.state().counts);
            activity.open_cycles += channel.state().open_cycles(cycles);
        }
        activity.transfers = activity.counts.reads + activity.counts.writes;
        let row_hits = parts.iter().map(|(channel, _)| channel.row_hits()).sum();
        let forwarded = parts.iter().map(|(channel, _)| channel.forwarded()).sum();
        let mut parts = parts.into_iter().map(|(_, latency)| latency);
        let latency = if self.channels > 1 {
            let mut all = vec![0; addresses.len()];
            for (mine, latency) in by_channel.iter().zip(parts) {
                for (i, cycles) in mine.iter().zip(latency) {
                    all[*i as usize] = cycles;
                }
            }
            all
        } else {
            parts.next().unwrap_or_default()
        };
        Ok(Outcome { cycles, latency, row_hits, forwarded, activity })
    }
}

//! Several channels side by side, each with its own bags.

use super::crew::{Crew, Ending, help};
use super::{Hardware, Mode, Outcome, Plan, Program};
use crate::control::Control;
use crate::error::{Error, Result};
use crate::helpers;

/// Bags of all channels, sorted by channel.
#[derive(Debug, Clone)]
pub struct Lookups<'a> {
    pub addresses: &'a [u64],
    pub cacheable: Option<Vec<bool>>,
    pub offsets: Vec<usize>,
    pub accesses: Vec<u32>,
    pub results: Vec<u32>,
    /// Bags of channel c: `channels[c]..channels[c + 1]`.
    pub channels: Vec<usize>,
}

impl Lookups<'_> {
    fn check(&self) -> Result<()> {
        let bags = self.accesses.len();
        let rises = |bounds: &[usize], end: usize| {
            bounds.first() == Some(&0) && bounds.last() == Some(&end) && bounds.is_sorted()
        };
        let refuse = |field: &str, message: String| Err(Error::invalid(field, message));
        if self.addresses.is_empty() {
            return refuse("addresses", "is empty; allowed is at least one lookup".into());
        }
        if self.offsets.len() != bags + 1 || !rises(&self.offsets, self.addresses.len()) {
            return refuse(
                "offsets",
                format!("must rise from 0 to {}, one for each bag and one more", self.addresses.len()),
            );
        }
        if self.results.len() != bags {
            return refuse("results", format!("has {} entries for {bags} bags", self.results.len()));
        }
        if !rises(&self.channels, bags) {
            return refuse("channels", format!("must rise from 0 to the number of bags, {bags}"));
        }
        match &self.cacheable {
            Some(cacheable) if cacheable.len() != self.addresses.len() => {
                refuse("cacheable", format!("has {} entries for {} lookups", cacheable.len(), self.addresses.len()))
            }
            _ => Ok(()),
        }
    }

    /// Run all channels on `threads` threads; the outcome is that of the whole memory, channels one after another.
    pub fn run(
        &self,
        hardware: &Hardware,
        mode: Mode,
        plan: Plan,
        threads: usize,
        control: Option<&Control>,
    ) -> Result<Outcome> {
        hardware.check()?;
        self.check()?;
        let crew = |bounds: &[usize]| {
            let lookups = self.offsets[bounds[1]] - self.offsets[bounds[0]];
            let most = self.accesses[bounds[0]..bounds[1]].iter().max();
            hardware.crew(mode, threads, lookups, most.copied().unwrap_or(1))
        };
        let crews: Vec<Crew> = self.channels.windows(2).map(crew).collect();
        let one = |bounds: &[usize], crew: &Crew| {
            let _ending = Ending(crew);
            let bags = bounds[0]..bounds[1];
            let (first, last) = (self.offsets[bags.start], self.offsets[bags.end]);
            if first == last {
                return Ok(Outcome::default());
            }
            let offsets: Vec<usize> = self.offsets[bags.start..=bags.end].iter().map(|at| at - first).collect();
            let program = Program {
                addresses: &self.addresses[first..last],
                cacheable: self.cacheable.as_ref().map(|cacheable| &cacheable[first..last]),
                offsets: &offsets,
                accesses: &self.accesses[bags.clone()],
                results: &self.results[bags],
            };
            hardware.run(&program, mode, plan, crew, control)
        };
        // A thread that finds no channel to begin helps with the ranks of the others.
        let helping = if mode == Mode::Host { 0 } else { threads.min(crews.len() * hardware.ranks) - 1 };
        let outcomes = helpers::share(threads, crews.len() + helping, |i| {
            if i >= crews.len() {
                help(&crews, i - crews.len() + 1);
                return None;
            }
            Some(one(&self.channels[i..=i + 1], &crews[i]))
        });
        let outcomes: Vec<Outcome> = outcomes.into_iter().flatten().collect::<Result<_>>()?;
        let mut all = Outcome::default();
        let ranks = hardware.ranks * outcomes.len();
        for outcome in outcomes {
            all.cycles = all.cycles.max(outcome.cycles);
            all.gather_cycles = all.gather_cycles.max(outcome.gather_cycles);
            if all.latency.is_empty() {
                all.latency = outcome.latency; // of one channel: not copied
            } else {
                all.latency.extend(outcome.latency);
            }
            all.reads_by_rank.extend(outcome.reads_by_rank);
            all.row_hits += outcome.row_hits;
            all.cache_hits += outcome.cache_hits;
            all.cache_accesses += outcome.cache_accesses;
            all.packets += outcome.packets;
            all.activity.counts.add(&outcome.activity.counts);
            all.activity.transfers += outcome.activity.transfers;
            all.activity.open_cycles += outcome.activity.open_cycles;
        }
        all.activity.rank_cycles = all.cycles * ranks as u64;
        Ok(all)
    }
}

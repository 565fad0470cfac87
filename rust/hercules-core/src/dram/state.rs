//! What a channel remembers of its commands: the earliest cycle at which each next command is allowed.
//!
//! Constraints of one bank are kept with the bank; those that a command puts on other banks are kept as one limit for
//! each (kind of command, bank group), so that a question costs two loads.

use super::standard::{ColumnGaps, Standard, Timing};

/// A row index that no row has: the bank is closed.
pub const CLOSED: u32 = u32::MAX;

/// A command to one bank.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    Activate,
    Precharge,
    Read,
    Write,
    /// Read or write that closes its row as soon as that is allowed.
    ReadPrecharge,
    WritePrecharge,
}

/// A command to a rank.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RankCommand {
    PrechargeAll,
    Refresh,
}

/// Rows of the table of limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    Precharge = 0,
    Activate = 1,
    Read = 2,
    Write = 3,
}

impl Command {
    pub fn kind(self) -> Kind {
        match self {
            Self::Activate => Kind::Activate,
            Self::Precharge => Kind::Precharge,
            Self::Read | Self::ReadPrecharge => Kind::Read,
            Self::Write | Self::WritePrecharge => Kind::Write,
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub struct Bank {
    /// The open row, or [`CLOSED`].
    pub row: u32,
    pub activate_at: u64,
    pub precharge_at: u64,
    pub column_at: u64,
}

#[derive(Debug, Clone, Copy)]
struct Rank {
    /// Cycles of the last four activates, oldest at `oldest`.
    activates: [u64; 4],
    oldest: u8,
    open_banks: u32,
    open_since: u64,
    open_until: u64,
    open_cycles: u64,
}

/// Commands so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub activates: u64,
    pub precharges: u64,
    pub reads: u64,
    pub writes: u64,
    pub refreshes: u64,
}

impl Counts {
    pub fn add(&mut self, other: &Self) {
        self.activates += other.activates;
        self.precharges += other.precharges;
        self.reads += other.reads;
        self.writes += other.writes;
        self.refreshes += other.refreshes;
    }
}

/// State of the banks, buses and ranks of one channel. Banks are numbered `(rank * groups + group) * banks + bank`.
pub struct State {
    t: Timing,
    gaps: ColumnGaps,
    bank_bits: u32,
    group_bits: u32,
    banks: Vec<Bank>,
    ranks: Vec<Rank>,
    /// Earliest cycle of each kind of command by bank group, `[kind][group of channel]`.
    limits: Vec<u64>,
    groups: usize,
    bus_at: u64,
    /// Whether a read's limits take the place of those before: there are no writes, and any two reads together come
    /// later than the furthest that one of them holds back.
    reads_replace: bool,
    pub counts: Counts,
}

impl State {
    /// All banks closed, nothing issued. Without `writes` no write may be issued or asked for.
    pub fn new(standard: &Standard, ranks: usize, writes: bool) -> Self {
        let o = &standard.organisation;
        let groups = ranks * o.groups as usize;
        let gaps = standard.timing.column_gaps();
        let reads = gaps.map(|place| place[0][0]);
        let (nearest, furthest) = (reads[0].min(reads[1]).min(reads[2]), reads[0].max(reads[1]).max(reads[2]));
        let bank = Bank { row: CLOSED, activate_at: 0, precharge_at: 0, column_at: 0 };
        let rank = Rank { activates: [0; 4], oldest: 0, open_banks: 0, open_since: 0, open_until: 0, open_cycles: 0 };
        Self {
            t: standard.timing,
            gaps,
            bank_bits: o.banks_per_group.trailing_zeros(),
            group_bits: o.groups.trailing_zeros(),
            banks: vec![bank; ranks * standard.banks()],
            ranks: vec![rank; ranks],
            limits: vec![0; 4 * groups],
            groups,
            bus_at: 0,
            reads_replace: !writes && 2 * nearest >= furthest,
            counts: Counts::default(),
        }
    }

    #[inline]
    pub fn bank(&self, bank: usize) -> &Bank {
        &self.banks[bank]
    }

    #[inline]
    pub fn rank_of(&self, bank: usize) -> usize {
        bank >> (self.bank_bits + self.group_bits)
    }

    /// Banks of a rank.
    pub fn banks_of(&self, rank: usize) -> std::ops::Range<usize> {
        let bits = self.bank_bits + self.group_bits;
        rank << bits..(rank + 1) << bits
    }

    /// First cycle in which the command bus is free.
    #[inline]
    pub fn bus_at(&self) -> u64 {
        self.bus_at
    }

    /// Where the limit of `kind` for `bank` stands; see [`Self::limit`].
    #[inline]
    pub fn limit_index(&self, kind: Kind, bank: usize) -> usize {
        kind as usize * self.groups + (bank >> self.bank_bits)
    }

    #[inline]
    pub fn limits(&self) -> &[u64] {
        &self.limits
    }

    /// First cycle in which `command` to `bank` breaks no constraint. Whether the row fits is the caller's business.
    pub fn earliest(&self, command: Command, bank: usize) -> u64 {
        let kind = command.kind();
        let own = match kind {
            Kind::Precharge => self.banks[bank].precharge_at,
            Kind::Activate => self.banks[bank].activate_at,
            Kind::Read | Kind::Write => self.banks[bank].column_at,
        };
        own.max(self.limits[self.limit_index(kind, bank)]).max(self.bus_at)
    }

    /// The same for a command to a whole rank.
    pub fn earliest_rank(&self, command: RankCommand, rank: usize) -> u64 {
        let banks = &self.banks[self.banks_of(rank)];
        let own = match command {
            RankCommand::PrechargeAll => banks.iter().filter(|b| b.row != CLOSED).map(|b| b.precharge_at).max(),
            RankCommand::Refresh => banks.iter().map(|b| b.activate_at).max(),
        };
        own.unwrap_or(0).max(self.bus_at)
    }

    pub fn has_open_bank(&self, rank: usize) -> bool {
        self.ranks[rank].open_banks > 0
    }

    /// Issue `command` to `bank` in `cycle`; `row` matters for activates only.
    #[inline]
    pub fn issue(&mut self, command: Command, bank: usize, row: u32, cycle: u64) {
        match command {
            Command::Activate => self.activate(bank, row, cycle),
            Command::Precharge => {
                self.counts.precharges += 1;
                self.bus_at = cycle + 1;
                self.close(bank, cycle);
            }
            Command::Read | Command::ReadPrecharge => {
                self.counts.reads += 1;
                self.column(bank, false, cycle, cycle + u64::from(self.t.rtp));
            }
            Command::Write | Command::WritePrecharge => {
                self.counts.writes += 1;
                let data_end = cycle + u64::from(self.t.cwl + self.t.bl);
                self.column(bank, true, cycle, data_end + u64::from(self.t.wr));
            }
        }
        if matches!(command, Command::ReadPrecharge | Command::WritePrecharge) {
            self.counts.precharges += 1;
            self.close(bank, self.banks[bank].precharge_at);
        }
    }

    /// Issue `command` to `rank` in `cycle`.
    pub fn issue_rank(&mut self, command: RankCommand, rank: usize, cycle: u64) {
        self.bus_at = cycle + 1;
        match command {
            RankCommand::PrechargeAll => {
                for bank in self.banks_of(rank) {
                    if self.banks[bank].row != CLOSED {
                        self.counts.precharges += 1;
                        self.close(bank, cycle);
                    }
                }
            }
            RankCommand::Refresh => {
                self.counts.refreshes += 1;
                let range = self.banks_of(rank);
                for bank in &mut self.banks[range] {
                    bank.activate_at = bank.activate_at.max(cycle + u64::from(self.t.rfc));
                }
            }
        }
    }

    /// Cycles up to `end` in which at least one bank of a rank was open, all ranks together.
    pub fn open_cycles(&self, end: u64) -> u64 {
        let still = |r: &Rank| if r.open_banks > 0 { end.saturating_sub(r.open_since) } else { 0 };
        self.ranks.iter().map(|r| r.open_cycles + still(r)).sum()
    }

    #[inline]
    fn activate(&mut self, bank: usize, row: u32, cycle: u64) {
        let t = &self.t;
        self.counts.activates += 1;
        self.bus_at = cycle + u64::from(t.row_command);
        let b = &mut self.banks[bank];
        b.row = row;
        b.activate_at = cycle + u64::from(t.rc);
        b.precharge_at = cycle + u64::from(t.ras);
        b.column_at = cycle + u64::from(t.rcd);
        let index = bank >> (self.bank_bits + self.group_bits);
        let rank = &mut self.ranks[index];
        let slot = usize::from(rank.oldest);
        rank.activates[slot] = cycle + u64::from(t.faw);
        rank.oldest = (rank.oldest + 1) % 4;
        // The slot after the newest holds the fourth activate back: until its window ends there is no fifth.
        let window_end = rank.activates[usize::from(rank.oldest)];
        if rank.open_banks == 0 {
            rank.open_since = cycle.max(rank.open_until);
        }
        rank.open_banks += 1;
        let groups = 1 << self.group_bits;
        let first = self.groups + index * groups;
        let others = window_end.max(cycle + u64::from(t.rrd_s));
        for limit in &mut self.limits[first..first + groups] {
            *limit = (*limit).max(others);
        }
        let own = &mut self.limits[self.groups + (bank >> self.bank_bits)];
        *own = (*own).max(cycle + u64::from(t.rrd_l));
    }

    #[inline]
    fn column(&mut self, bank: usize, write: bool, cycle: u64, precharge_at: u64) {
        self.bus_at = cycle + u64::from(self.t.column_command);
        let b = &mut self.banks[bank];
        b.precharge_at = b.precharge_at.max(precharge_at);
        let per_rank = 1 << self.group_bits;
        let group = bank >> self.bank_bits;
        let first = group & !(per_rank - 1);
        if self.reads_replace {
            let [own, same_rank, other_rank] = self.gaps.map(|place| cycle + place[0][0]);
            let limits = &mut self.limits[Kind::Read as usize * self.groups..][..self.groups];
            limits.fill(other_rank);
            limits[first..first + per_rank].fill(same_rank);
            limits[group] = own;
            return;
        }
        for (kind, next) in [(Kind::Read, 0), (Kind::Write, 1)] {
            let [own, same_rank, other_rank] = self.gaps.map(|place| cycle + place[usize::from(write)][next]);
            let limits = &mut self.limits[kind as usize * self.groups..][..self.groups];
            for (g, limit) in limits.iter_mut().enumerate() {
                let is_away = g & !(per_rank - 1) != first;
                *limit = (*limit).max(if is_away { other_rank } else { same_rank });
            }
            limits[group] = limits[group].max(own);
        }
    }

    /// Close the row of `bank`; the precharge starts in `cycle`.
    #[inline]
    fn close(&mut self, bank: usize, cycle: u64) {
        let index = self.rank_of(bank);
        let b = &mut self.banks[bank];
        b.row = CLOSED;
        b.activate_at = b.activate_at.max(cycle + u64::from(self.t.rp));
        let rank = &mut self.ranks[index];
        rank.open_until = rank.open_until.max(cycle);
        rank.open_banks -= 1;
        if rank.open_banks == 0 {
            rank.open_cycles += rank.open_until - rank.open_since.min(rank.open_until);
        }
    }
}

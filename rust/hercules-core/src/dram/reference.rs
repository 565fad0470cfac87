//! The slow twin: every cycle is stepped, and every command is checked against the list of all earlier ones.
//!
//! Nothing is shared with the fast engine but the data types. The rules are written as one list of pairs
//! (earlier command, later command, where, least distance); see [`allowed`].

use super::controller::{Issued, Page, Request, Scheduler, Settings};
use super::standard::{Standard, Timing};
use super::state::{Command, RankCommand};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    pub cycle: u64,
    pub command: Issued,
    pub bank: usize,
    pub row: u32,
}

fn is_read(c: Issued) -> bool {
    matches!(c, Issued::Bank(Command::Read | Command::ReadPrecharge))
}

fn is_write(c: Issued) -> bool {
    matches!(c, Issued::Bank(Command::Write | Command::WritePrecharge))
}

/// Least cycles from `a` to `b`, where the banks are the same, in one group, in one rank or in different ranks.
fn distance(t: &Timing, a: Issued, b: Issued, same_bank: bool, same_group: bool, same_rank: bool) -> u64 {
    use Issued::{Bank, Rank};
    let mut least = match a {
        Bank(Command::Activate) => t.row_command,
        Bank(Command::Precharge) | Rank(_) => 1,
        Bank(_) => t.column_command,
    };
    let mut must = |holds: bool, cycles: u32| {
        if holds {
            least = least.max(cycles);
        }
    };
    let act = |c: Issued| c == Bank(Command::Activate);
    let column = |c: Issued| is_read(c) || is_write(c);
    // On one bank; a command to the rank is one to each of its banks.
    let bank = same_bank || (same_rank && (matches!(a, Rank(_)) || matches!(b, Rank(_))));
    let closes = matches!(b, Bank(Command::Precharge) | Rank(RankCommand::PrechargeAll));
    let needs_closed = act(b) || b == Rank(RankCommand::Refresh);
    must(bank && act(a) && column(b), t.rcd);
    must(bank && act(a) && closes, t.ras);
    must(bank && act(a) && needs_closed, t.rc);
    must(bank && matches!(a, Bank(Command::Precharge) | Rank(RankCommand::PrechargeAll)) && needs_closed, t.rp);
    must(bank && is_read(a) && closes, t.rtp);
    must(bank && is_write(a) && closes, t.cwl + t.bl + t.wr);
    must(bank && a == Bank(Command::ReadPrecharge) && needs_closed, t.rtp + t.rp);
    must(bank && a == Bank(Command::WritePrecharge) && needs_closed, t.cwl + t.bl + t.wr + t.rp);
    must(same_rank && a == Rank(RankCommand::Refresh) && needs_closed, t.rfc);
    // On one rank.
    must(act(a) && act(b) && same_group, t.rrd_l);
    must(act(a) && act(b) && same_rank, t.rrd_s);
    must(is_read(a) && is_read(b) && same_rank, t.ccd_s.max(t.bl));
    must(is_read(a) && is_read(b) && same_group, t.ccd_l);
    must(is_write(a) && is_write(b) && same_rank, t.ccd_s.max(t.bl));
    must(is_write(a) && is_write(b) && same_group, t.ccd_l_wr);
    must(is_read(a) && is_write(b) && same_rank, (t.cl + t.bl + t.rtw).saturating_sub(t.cwl));
    must(is_write(a) && is_read(b) && same_rank, t.cwl + t.bl + t.wtr_s);
    must(is_write(a) && is_read(b) && same_group, t.cwl + t.bl + t.wtr_l);
    // On the data bus, from rank to rank.
    let from = if is_read(a) { t.cl } else { t.cwl };
    let to = if is_read(b) { t.cl } else { t.cwl };
    must(column(a) && column(b) && !same_rank, (from + t.bl + t.rank_switch).saturating_sub(to));
    u64::from(least)
}

pub struct Reference<'a> {
    pub standard: &'a Standard,
    pub ranks: usize,
    pub settings: Settings,
    pub log: Vec<Record>,
}

#[derive(Clone, Copy)]
struct Waiting {
    id: usize,
    request: Request,
    came_in: u64,
    opened: bool,
}

impl Reference<'_> {
    fn rank_of(&self, bank: usize) -> usize {
        bank / self.standard.banks()
    }

    fn group_of(&self, bank: usize) -> usize {
        bank / self.standard.organisation.banks_per_group as usize
    }

    /// Whether `command` may be issued in `cycle`, seen from every earlier command.
    pub fn allowed(&self, command: Issued, bank: usize, cycle: u64) -> bool {
        let t = &self.standard.timing;
        let rank = self.rank_of(bank);
        let pairs = self.log.iter().all(|earlier| {
            let same_rank = self.rank_of(earlier.bank) == rank;
            let same_group = self.group_of(earlier.bank) == self.group_of(bank);
            let same_bank = earlier.bank == bank;
            let least = distance(t, earlier.command, command, same_bank, same_group, same_rank);
            earlier.cycle + least <= cycle
        });
        // The precharge inside a read or write with precharge waits for the row's tRAS.
        let inner = self.log.iter().enumerate().all(|(i, closing)| {
            let closes_itself =
                matches!(closing.command, Issued::Bank(Command::ReadPrecharge | Command::WritePrecharge));
            let concerns =
                closing.bank == bank || (matches!(command, Issued::Rank(_)) && self.rank_of(closing.bank) == rank);
            let needs_closed = matches!(command, Issued::Bank(Command::Activate) | Issued::Rank(RankCommand::Refresh));
            if !(closes_itself && concerns && needs_closed) {
                return true;
            }
            let opening = self.log[..i]
                .iter()
                .rfind(|e| e.bank == closing.bank && e.command == Issued::Bank(Command::Activate))
                .expect("a row is opened before it is read");
            opening.cycle + u64::from(t.ras + t.rp) <= cycle
        });
        let activates: Vec<u64> = self
            .log
            .iter()
            .filter(|e| e.command == Issued::Bank(Command::Activate) && self.rank_of(e.bank) == rank)
            .map(|e| e.cycle)
            .collect();
        let window = command != Issued::Bank(Command::Activate)
            || activates.len() < 4
            || activates[activates.len() - 4] + u64::from(t.faw) <= cycle;
        pairs && inner && window
    }

    /// The open row of `bank`, as the commands left it.
    fn open_row(&self, bank: usize) -> Option<u32> {
        let rank = self.rank_of(bank);
        for e in self.log.iter().rev() {
            match e.command {
                Issued::Rank(RankCommand::PrechargeAll) if self.rank_of(e.bank) == rank => return None,
                Issued::Bank(Command::Activate) if e.bank == bank => return Some(e.row),
                Issued::Bank(Command::Precharge | Command::ReadPrecharge | Command::WritePrecharge)
                    if e.bank == bank =>
                {
                    return None;
                }
                _ => {}
            }
        }
        None
    }

    /// Serve `requests`; returns (coming in, last data) of each.
    pub fn run(&mut self, requests: &[Request]) -> Vec<(u64, u64)> {
        let (t, s) = (self.standard.timing, self.settings);
        let interval = u64::from(t.refi);
        let mut due: Vec<u64> = (0..self.ranks as u64).map(|k| (k + 1) * interval / self.ranks as u64).collect();
        let mut refreshing = vec![false; self.ranks];
        let mut queue: Vec<Waiting> = Vec::new();
        let mut back: Vec<u64> = Vec::new();
        let mut times = vec![(0, 0); requests.len()];
        let (mut next, mut entry, mut drains) = (0, 1, false);
        let mut cycle = 0;
        while next < requests.len() || !queue.is_empty() {
            cycle += 1;
            // 1. Refreshes fall due; while one waits, no row is opened or hit but for requests that opened it.
            for rank in 0..self.ranks {
                refreshing[rank] |= s.refresh && due[rank] <= cycle;
            }
            // 2. One command: of a refresh, else of the request that goes first.
            let opened_in =
                |queue: &[Waiting], bank: usize| queue.iter().any(|w| w.opened && w.request.bank as usize == bank);
            let mut issued = false;
            for rank in 0..self.ranks {
                let banks = rank * self.standard.banks()..(rank + 1) * self.standard.banks();
                if issued || !refreshing[rank] || banks.clone().any(|bank| opened_in(&queue, bank)) {
                    continue;
                }
                let any_open = banks.clone().any(|bank| self.open_row(bank).is_some());
                let command = if any_open { RankCommand::PrechargeAll } else { RankCommand::Refresh };
                // Banks that are closed already do not hold a precharge of the others up.
                let may = if any_open {
                    banks
                        .clone()
                        .filter(|b| self.open_row(*b).is_some())
                        .all(|b| self.allowed(Issued::Bank(Command::Precharge), b, cycle))
                } else {
                    self.allowed(Issued::Rank(command), banks.start, cycle)
                };
                if may {
                    self.log.push(Record { cycle, command: Issued::Rank(command), bank: banks.start, row: u32::MAX });
                    issued = true;
                    if command == RankCommand::Refresh {
                        refreshing[rank] = false;
                        due[rank] += interval;
                    }
                }
            }
            if !issued {
                let chosen = queue
                    .iter()
                    .enumerate()
                    .filter_map(|(i, w)| Some((i, self.wanted(w, &queue, &refreshing, drains, cycle)?)))
                    .min_by_key(|(i, _)| (!queue[*i].opened, queue[*i].id));
                if let Some((i, command)) = chosen {
                    let Waiting { id, request, came_in, .. } = queue[i];
                    let bank = request.bank as usize;
                    let row = if command == Command::Activate || command == Command::Precharge {
                        request.row
                    } else {
                        self.open_row(bank).unwrap()
                    };
                    self.log.push(Record { cycle, command: Issued::Bank(command), bank, row });
                    match command {
                        Command::Precharge => {}
                        Command::Activate => queue[i].opened = true,
                        _ => {
                            queue.remove(i);
                            let latency = if request.write { t.cwl + t.bl } else { t.cl + t.bl };
                            let done = cycle + u64::from(latency);
                            times[id] = (came_in, done);
                            if !request.write {
                                back.push(done);
                            }
                        }
                    }
                }
            }
            // 3. Data that are back leave.
            back.retain(|done| *done > cycle);
            // 4. One request comes in.
            drains = self.direction(&queue, drains);
            if let Some(request) = requests.get(next)
                && cycle >= entry.max(request.not_before)
            {
                let writes = queue.iter().filter(|w| w.request.write).count();
                let reads = queue.len() - writes + back.len();
                let room = if request.write { writes < s.write_queue } else { reads < s.window };
                if room {
                    let same = |w: &Waiting| {
                        let r = &w.request;
                        r.write && (r.bank, r.row, r.column) == (request.bank, request.row, request.column)
                    };
                    if !request.write && queue.iter().any(same) {
                        times[next] = (cycle, cycle + 1);
                    } else {
                        queue.push(Waiting { id: next, request: *request, came_in: cycle, opened: false });
                    }
                    next += 1;
                    entry = cycle + s.gap;
                }
            }
            drains = self.direction(&queue, drains);
        }
        times
    }

    fn direction(&self, queue: &[Waiting], drains: bool) -> bool {
        let writes = queue.iter().filter(|w| w.request.write).count();
        let reads = queue.len() - writes;
        if writes == 0 {
            return false;
        }
        reads == 0 || if drains { writes > self.settings.write_low() } else { writes >= self.settings.write_high() }
    }

    /// The command that `w` would issue in `cycle`, if it may.
    fn wanted(&self, w: &Waiting, queue: &[Waiting], refreshing: &[bool], drains: bool, cycle: u64) -> Option<Command> {
        let bank = w.request.bank as usize;
        if !w.opened && (w.request.write != drains || refreshing.contains(&true)) {
            return None;
        }
        let open = self.open_row(bank);
        let others_hit =
            |row: u32| queue.iter().any(|o| o.id != w.id && (o.request.bank, o.request.row) == (w.request.bank, row));
        let command = match open {
            Some(row) if row == w.request.row => {
                // An older request for another row of the bank that has waited too long holds hits back, unless one
                // that opened the row is due first.
                let bank_opened = queue.iter().any(|o| o.opened && o.request.bank == w.request.bank);
                let oldest_other = queue
                    .iter()
                    .filter(|o| o.request.bank == w.request.bank && o.request.row != row && o.request.write == drains)
                    .min_by_key(|o| o.id);
                let held = |o: &Waiting| o.id < w.id && cycle >= o.came_in + self.settings.age_limit;
                if !bank_opened && oldest_other.is_some_and(held) {
                    return None;
                }
                let closes = self.settings.page == Page::Closed && !others_hit(row);
                match (w.request.write, closes) {
                    (false, false) => Command::Read,
                    (false, true) => Command::ReadPrecharge,
                    (true, false) => Command::Write,
                    (true, true) => Command::WritePrecharge,
                }
            }
            None => Command::Activate,
            Some(row) => {
                if queue.iter().any(|o| o.opened && o.request.bank == w.request.bank) {
                    return None;
                }
                let hit = queue
                    .iter()
                    .any(|o| (o.request.bank, o.request.row, o.request.write) == (w.request.bank, row, drains));
                let holds = hit && self.settings.scheduler == Scheduler::RowHitFirst;
                if holds && cycle < w.came_in + self.settings.age_limit {
                    return None;
                }
                Command::Precharge
            }
        };
        self.allowed(Issued::Bank(command), bank, cycle).then_some(command)
    }
}

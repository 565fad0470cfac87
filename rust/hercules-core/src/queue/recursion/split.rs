//! One pool whose queries come in parts.
//!
//! Queries of different segments have different numbers of parts, so each lane goes through its queries at its own pace;
//! a row is one part of each. The latest end of a query's parts is kept beside the pool.

use super::kernels::{Cutting, LANES, Parts, ROOM, Uncut};
use super::{Account, Block, ROWS, unused};
use crate::error::Result;
use crate::queue::engine::{self, Segment, Use, query_of};
use crate::queue::record::Counts;
use crate::queue::source::Queries;
use crate::rng::Stream;

/// The queries of one lane, drawn some at a time.
struct Lane<'p, 's> {
    queries: Queries<'p, 's>,
    stream: Stream,
    /// Number of queries drawn, and of all.
    drawn: u64,
    total: u64,
    /// Arrival of the latest query drawn, and of the latest begun.
    time_s: f64,
    now_s: f64,
    /// Arrival of the first query.
    first_s: f64,
    /// Parts and their items so far, for the account.
    parts: u64,
    items: u64,
    warm: Before,
}

/// Where a lane stood when its warm-up was over.
#[derive(Clone, Copy, Default)]
struct Before {
    query: u64,
    now_s: f64,
    parts: u64,
    items: u64,
    busy_s: f64,
    sojourn_s: f64,
}

impl Lane<'_, '_> {
    /// Draw queries for lane `at` until there are enough for a block, or no more.
    fn refill(&mut self, at: usize, uncut: &mut Uncut, begun: &mut u32, block: &Block<'_, '_>) {
        let end = uncut.count[at] as usize;
        if end - *begun as usize >= ROWS || self.drawn == self.total {
            return;
        }
        let (gaps, items) = (&mut uncut.gaps[at * ROOM..(at + 1) * ROOM], &mut uncut.items[at * ROOM..(at + 1) * ROOM]);
        // The query at hand stays: its parts may not be over.
        let gone = (*begun as usize).saturating_sub(1);
        gaps.copy_within(gone..end, 0);
        items.copy_within(gone..end, 0);
        let end = end - gone;
        *begun -= gone as u32;
        uncut.first[at] += gone as u64;
        let count = (self.total - self.drawn).min((ROOM - 1 - end) as u64) as usize;
        let fresh = &mut gaps[end..end + count];
        if let Some(law) = block.plan.source.gaps() {
            let indices: [u64; ROOM] = std::array::from_fn(|i| self.drawn + i as u64);
            block.kernels.fill(law, 1.0, &[self.stream; ROOM][..count], &indices[..count], fresh);
            let scale_s = 1.0 / block.plan.qps;
            for gap in fresh {
                let next = self.time_s + *gap * scale_s;
                *gap = next - self.time_s;
                self.time_s = next;
            }
        } else {
            for gap in fresh {
                let next = self.queries.next_time();
                *gap = next - self.time_s;
                self.time_s = next;
            }
        }
        if self.drawn == 0 {
            self.first_s = gaps[end];
        }
        for (i, size) in items[end..end + count].iter_mut().enumerate() {
            *size = self.queries.size(self.drawn + i as u64);
        }
        self.drawn += count as u64;
        uncut.count[at] = (end + count) as u32;
        items[end + count] = 0;
    }
}

#[allow(clippy::needless_range_loop)] // rows of many arrays
pub(super) fn run(mut block: Block<'_, '_>) -> Result<Vec<Segment>> {
    let plan = block.plan;
    let route = &plan.network.routes[0];
    let station = &route.stations[0];
    let mut lanes: Vec<_> = (0..LANES)
        .map(|lane| {
            let segment = block.segment(lane);
            Lane {
                queries: plan.source.queries(plan.qps, segment, plan.cuts.len()),
                stream: plan.source.gap_stream(segment),
                drawn: 0,
                total: plan.cuts[segment].queries,
                time_s: 0.0,
                now_s: 0.0,
                first_s: 0.0,
                parts: 0,
                items: 0,
                warm: Before::default(),
            }
        })
        .collect();
    let mut uncut =
        Box::new(Uncut { gaps: [0.0; LANES * ROOM], items: [0; LANES * ROOM], count: [0; LANES], first: [0; LANES] });
    let mut state = Cutting { begun: [0; LANES], left: [0; LANES], parts: [0; LANES] };
    // A query of `batch` items or fewer is one part; none is larger than the largest query.
    let batch = route.batch.min(plan.max_size);
    let mut seconds = vec![0.0; (batch as usize + 1).next_power_of_two()];
    for items in 1..=batch {
        seconds[items as usize] = station.service.mean_s(items, 1);
    }
    let mut parts = Parts::new(ROWS);
    let streams: Vec<Stream> = block.service_streams(0).into_iter().cycle().take(ROWS * LANES).collect();
    let (mut draws, mut sojourns, mut ends) =
        (vec![[0.0; LANES]; ROWS], vec![[0.0; LANES]; ROWS], vec![[0.0; LANES]; ROWS]);
    let mut lists: [Vec<f64>; LANES] = std::array::from_fn(|_| vec![0.0; ROWS + 1]);
    let mut free = unused(station.threads);
    let mut latest = [f64::NEG_INFINITY; LANES];
    let mut account = Account::NONE;
    let mut waits: Vec<Counts> = (0..if plan.waits { block.lanes() } else { 0 }).map(|_| Counts::default()).collect();
    while block.records.iter().zip(&lanes).any(|(record, lane)| record.position() < lane.total) {
        block.poll()?;
        for (at, lane) in lanes.iter_mut().enumerate() {
            lane.refill(at, &mut uncut, &mut state.begun[at], &block);
        }
        let begun = state.begun;
        // SAFETY: the kernels are those of this CPU.
        unsafe { (block.kernels.cut)(&mut state, &uncut, batch, &seconds, &mut parts) };
        if let Some(law) = station.service.law() {
            block.kernels.fill(law, 1.0, &streams, parts.ids.as_flattened(), draws.as_flattened_mut());
            let draws = draws.as_flattened();
            parts.services.as_flattened_mut().iter_mut().zip(draws).for_each(|(service, draw)| *service *= draw);
        }
        let before = account;
        let mut counts = [0; LANES];
        // SAFETY: the kernels are those of this CPU.
        unsafe {
            let kernel = block.kernels.pool_of_parts;
            kernel(&mut free, &mut latest, &parts.gaps, &parts.services, &parts.before, &mut sojourns, &mut ends);
            (block.kernels.account)(&mut account, &parts.services, &sojourns);
            (block.kernels.gather_ends)(&parts, &ends, &mut lists, &mut counts);
        }
        for ((record, list), count) in block.records.iter_mut().zip(&lists).zip(counts) {
            record.extend(&list[..count]);
        }
        for (at, lane) in lanes.iter_mut().enumerate() {
            // A query of nothing is no job.
            state.begun[at] = state.begun[at].min(uncut.count[at]);
            let new = at * ROOM + begun[at] as usize..at * ROOM + state.begun[at] as usize;
            lane.now_s += uncut.gaps[new.clone()].iter().sum::<f64>();
            lane.items += uncut.items[new].iter().map(|size| u64::from(*size)).sum::<u64>();
            let mut rows = ROWS;
            if parts.items[ROWS - 1][at] == 0 {
                rows = (0..ROWS).take_while(|row| parts.items[*row][at] > 0).count();
                (account.busy_s[at], account.sojourn_s[at]) = (before.busy_s[at], before.sojourn_s[at]);
                for row in 0..rows {
                    account.busy_s[at] += parts.services[row][at];
                    account.sojourn_s[at] += sojourns[row][at];
                }
            }
            lane.parts += rows as u64;
            let (query, warmup) = (uncut.first[at] + u64::from(state.begun[at]), plan.cuts[block.segment(at)].warmup);
            if lane.warm.query == 0 && warmup > 0 && query > warmup && query < lane.total {
                let (busy_s, sojourn_s) = (account.busy_s[at], account.sojourn_s[at]);
                let (now_s, parts, items) = (lane.now_s, lane.parts, lane.items);
                lane.warm = Before { query, now_s, parts, items, busy_s, sojourn_s };
            }
        }
        for (lane, waits) in waits.iter_mut().enumerate() {
            let warmup = plan.cuts[block.segment(lane)].warmup;
            for row in 0..ROWS {
                if parts.items[row][lane] > 0 && query_of(parts.ids[row][lane]) >= warmup {
                    waits.add(f64::max(0.0, sojourns[row][lane] - parts.services[row][lane]));
                }
            }
        }
    }
    let records = std::mem::take(&mut block.records);
    let segments = records.into_iter().zip(lanes).enumerate().map(|(at, (record, lane))| {
        let before = lane.warm;
        let busy_s = account.busy_s[at] - before.busy_s;
        let jobs = lane.parts - before.parts;
        let wait_s = account.sojourn_s[at] - before.sojourn_s - busy_s;
        // A run without a block after its warm-up counts as a whole.
        let from_s = if before.query == 0 { lane.first_s } else { before.now_s };
        let end_s = free[..station.threads as usize].iter().map(|free| free[at]).fold(0.0, f64::max) + lane.time_s;
        Segment {
            record,
            uses: vec![Use {
                busy_s,
                wait_s,
                jobs,
                executions: jobs,
                items: lane.items - before.items,
                ..Use::default()
            }],
            queries: lane.total - before.query,
            seconds: engine::seconds(from_s, lane.time_s, end_s),
            inside_query_s: f64::NAN,
            waits: waits.get_mut(at).map(Counts::take).into_iter().collect(),
        }
    });
    Ok(segments.collect())
}

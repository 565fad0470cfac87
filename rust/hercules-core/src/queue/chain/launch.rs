//! Dynamic batching over queries: which waiting queries a device takes, and when.

use crate::queue::chain::threads::Entry;
use crate::queue::fusion::Limits;

/// One execution: queries `first..last` of the waiting line, launched at `start`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Launch {
    pub start: f64,
    pub last: usize,
    pub items: u32,
}

/// The next launch from the line `waiting` (sorted by time) whose head is `first`, by a device that is free at `free`.
///
/// The device launches at once if the line fills a batch or its head has waited `max_wait_s`; else at the first instant
/// when either holds. Ties: a device that falls free, then the timer, then arrivals. So whoever arrives at the very
/// instant of the launch is left behind, unless it is the head or the arrival that fills the batch.
#[inline]
pub fn next_launch(waiting: &[Entry], first: usize, free: f64, limits: &Limits, size: impl Fn(u32) -> u32) -> Launch {
    let head = waiting[first].time;
    let timer = head + limits.max_wait_s;
    let latest = if timer > free { timer } else { free };
    // Walk the line as far as the batch could reach if nothing filled it before `latest`.
    let mut items = size(waiting[first].job);
    let mut last = first + 1;
    let mut filled_at = (items >= limits.items || limits.queries <= 1).then_some(head);
    while filled_at.is_none() && last < waiting.len() && waiting[last].time < latest {
        let more = size(waiting[last].job);
        let total = items.saturating_add(more);
        if total >= limits.items || (last + 1 - first) as u32 >= limits.queries {
            filled_at = Some(waiting[last].time);
        }
        if total > limits.items {
            break;
        }
        items = total;
        last += 1;
    }
    let start = match filled_at {
        Some(time) if time < free => free,
        Some(time) => time,
        None => latest,
    };
    Launch { start, last, items }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(times: &[f64]) -> Vec<Entry> {
        times.iter().enumerate().map(|(i, time)| Entry { time: *time, job: i as u32 }).collect()
    }

    #[test]
    fn fills_waits_or_takes_what_is_there() {
        let limits = Limits { items: 10, queries: 100, max_wait_s: 2.0 };
        let waiting = line(&[0.0, 1.0, 1.5, 2.0, 2.0]);
        // The timer of the head wins over arrivals at the same instant.
        assert_eq!(next_launch(&waiting, 0, 0.0, &limits, |_| 1), Launch { start: 2.0, last: 3, items: 3 });
        // Filled by the third query.
        assert_eq!(next_launch(&waiting, 0, 0.0, &limits, |_| 4), Launch { start: 1.5, last: 2, items: 8 });
        assert_eq!(next_launch(&waiting, 0, 0.0, &limits, |_| 5), Launch { start: 1.0, last: 2, items: 10 });
        // A query above the limit goes alone and at once.
        assert_eq!(next_launch(&waiting, 1, 0.0, &limits, |_| 50), Launch { start: 1.0, last: 2, items: 50 });
        // A device that falls free late takes all that came before.
        assert_eq!(next_launch(&waiting, 0, 9.0, &limits, |_| 1), Launch { start: 9.0, last: 5, items: 5 });
        assert_eq!(next_launch(&waiting, 0, 2.0, &limits, |_| 1), Launch { start: 2.0, last: 3, items: 3 });
        let eager = Limits { max_wait_s: 0.0, ..limits };
        assert_eq!(next_launch(&waiting, 3, 0.0, &eager, |_| 1), Launch { start: 2.0, last: 4, items: 1 });
    }
}

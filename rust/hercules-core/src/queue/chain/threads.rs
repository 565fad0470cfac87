//! State of an FCFS pool of identical threads (Kiefer and Wolfowitz): the sorted times at which they are free.

/// A job on its way: when it reaches a station, and its number.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Entry {
    pub time: f64,
    pub job: u32,
}

/// Add to a list that is sorted by (time, job).
///
/// Jobs come in FCFS order of their *starts*, so at most `threads - 1` earlier ones can end later: the slide is short.
#[inline]
pub fn push_sorted(list: &mut Vec<Entry>, entry: Entry) {
    let mut at = list.len();
    list.push(entry);
    while at > 0
        && (list[at - 1].time > entry.time || (list[at - 1].time == entry.time && list[at - 1].job > entry.job))
    {
        list[at] = list[at - 1];
        at -= 1;
    }
    list[at] = entry;
}

/// [`push_sorted`] for bare times.
#[inline]
pub fn push_sorted_time(list: &mut Vec<f64>, time: f64) {
    let mut at = list.len();
    list.push(time);
    while at > 0 && list[at - 1] > time {
        list[at] = list[at - 1];
        at -= 1;
    }
    list[at] = time;
}

/// Free times of the threads, ascending, in a window that slides through a buffer: taking the first is one increment,
/// and a new end, nearly always among the latest, is put in its place from the back.
#[derive(Debug, Default)]
pub struct Threads {
    buffer: Vec<f64>,
    head: usize,
    count: usize,
    /// First entry of the window that was later than the last start asked about; starts never decrease.
    first_busy: usize,
}

impl Threads {
    /// `count` threads, all free from the beginning of time.
    pub fn reset(&mut self, count: u32) {
        self.count = count as usize;
        self.buffer.clear();
        self.buffer.resize(self.count * 4 + 64, f64::NEG_INFINITY);
        self.head = 0;
        self.first_busy = 0;
    }

    /// When the earliest free thread is free.
    #[inline]
    pub fn earliest(&self) -> f64 {
        self.buffer[self.head]
    }

    /// When a job that is ready at `ready` starts.
    #[inline]
    pub fn start(&self, ready: f64) -> f64 {
        let free = self.earliest();
        if free > ready { free } else { ready }
    }

    /// Threads busy just after the job starts at `start`, itself included; a thread that ends at `start` is free.
    /// To be asked once for each job, since it advances with the starts.
    #[inline]
    pub fn busy_at(&mut self, start: f64) -> u32 {
        let end = self.head + self.count;
        let later = &self.buffer[self.first_busy..end];
        let ended = later.iter().position(|time| *time > start).unwrap_or(later.len());
        self.first_busy += ended;
        (later.len() - ended) as u32 + 1
    }

    /// The earliest free thread works until `end`.
    #[inline]
    pub fn occupy(&mut self, end: f64) {
        self.head += 1;
        if self.head + self.count > self.buffer.len() {
            self.buffer.copy_within(self.head.., 0);
            self.first_busy = self.first_busy.saturating_sub(self.head);
            self.head = 0;
        }
        let window = &mut self.buffer[self.head..self.head + self.count];
        let mut at = window.len() - 1;
        while at > 0 && window[at - 1] > end {
            window[at] = window[at - 1];
            at -= 1;
        }
        window[at] = end;
    }
}

/// Counts another station's busy threads at times that never decrease: start <= t < end.
#[derive(Debug)]
pub struct BusyCursor<'a> {
    starts: &'a [f64],
    ends: &'a [f64],
    started: usize,
    ended: usize,
}

impl<'a> BusyCursor<'a> {
    /// `starts` and `ends` are each sorted.
    pub fn new(starts: &'a [f64], ends: &'a [f64]) -> Self {
        Self { starts, ends, started: 0, ended: 0 }
    }

    #[inline]
    pub fn at(&mut self, time: f64) -> u32 {
        while self.started < self.starts.len() && self.starts[self.started] <= time {
            self.started += 1;
        }
        while self.ended < self.ends.len() && self.ends[self.ended] <= time {
            self.ended += 1;
        }
        (self.started - self.ended) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_times_stay_sorted_and_busy_counts_match_a_scan() {
        let mut threads = Threads::default();
        for count in [1, 2, 5, 64] {
            threads.reset(count);
            let mut plain = vec![f64::NEG_INFINITY; count as usize];
            let (mut ready, mut state) = (0.0, 9_u64);
            for _ in 0..5000 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                ready += (state >> 60) as f64 / f64::from(count);
                let service = 1.0 + (state >> 40 & 15) as f64;
                let start = threads.start(ready);
                plain.sort_by(f64::total_cmp);
                assert_eq!(start, ready.max(plain[0]));
                plain[0] = start + service;
                assert_eq!(threads.busy_at(start), plain.iter().filter(|t| **t > start).count() as u32);
                threads.occupy(start + service);
            }
        }
    }
}

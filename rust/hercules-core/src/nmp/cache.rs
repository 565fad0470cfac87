//! The cache of a rank: set-associative, least recently used goes, a line holds one vector.

/// Remembers which vectors it holds; of the data nothing is kept.
#[derive(Debug, Clone)]
pub struct Cache {
    ways: usize,
    sets: u64,
    /// Vector addresses of each set, most recent first; [`EMPTY`] for nothing.
    lines: Vec<u64>,
}

const EMPTY: u64 = u64::MAX;

impl Cache {
    /// `sets` and `ways` are from 1.
    pub fn new(sets: usize, ways: usize) -> Self {
        Self { ways, sets: sets as u64, lines: vec![EMPTY; sets * ways] }
    }

    /// Whether the vector at `address`, number `number` of its kind, is there; it is afterwards.
    pub fn access(&mut self, address: u64, number: u64) -> bool {
        let first = (number % self.sets) as usize * self.ways;
        let set = &mut self.lines[first..first + self.ways];
        let found = set.iter().position(|line| *line == address);
        set[..=found.unwrap_or(self.ways - 1)].rotate_right(1);
        set[0] = address;
        found.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Purpose, Stream};

    #[test]
    fn the_least_recently_used_goes() {
        let mut cache = Cache::new(1, 2);
        assert_eq!([1, 2, 1, 3, 1, 2].map(|a| cache.access(a, a)), [false, false, true, false, true, false]);
    }

    #[test]
    fn sets_do_not_disturb_each_other() {
        let mut cache = Cache::new(4, 1);
        assert_eq!([0, 1, 2, 3, 4, 1, 0].map(|a| cache.access(a, a)), [false, false, false, false, false, true, false]);
    }

    #[test]
    fn a_bigger_fully_associative_cache_never_hits_less() {
        let stream = Stream::new(5, Purpose::Search, 0);
        let hits = |ways: usize| {
            let mut cache = Cache::new(1, ways);
            // Products of two dice: some vectors come more often than others.
            (0..20_000).filter(|i| cache.access(stream.bits(*i) % 60 * (stream.bits(*i) >> 40) % 60, 0)).count()
        };
        let counts: Vec<usize> = [1, 2, 4, 8, 16, 32, 64].map(hits).to_vec();
        assert!(counts.is_sorted(), "{counts:?}");
        assert!(counts[0] < counts[6]);
    }
}

//! Who neighbours whom among the candidates.

use crate::error::{Error, Result};
use crate::search::Step;
use std::collections::{BTreeMap, BTreeSet};

/// Points (value, candidate) that differ in one coordinate alone, ascending, by their other coordinates.
type Lines = BTreeMap<Vec<i64>, Vec<(i64, usize)>>;

/// Candidates as points with integer coordinates; column 0 is the kind. Points may be missing anywhere.
#[derive(Debug, Clone)]
pub struct Lattice {
    axes: usize,
    coords: Vec<i64>,
    /// For each axis but the first.
    lines: Vec<Lines>,
    /// For each axis but the first: the values that occur, by kind.
    values: Vec<BTreeMap<i64, BTreeSet<i64>>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Up,
    Down,
}

const WAYS: [Way; 2] = [Way::Up, Way::Down];

impl Way {
    fn opposite(self) -> Self {
        match self {
            Self::Up => Self::Down,
            Self::Down => Self::Up,
        }
    }
}

impl Lattice {
    pub fn new(coords: Vec<i64>, points: usize) -> Result<Self> {
        if coords.is_empty() || !coords.len().is_multiple_of(points) {
            let message =
                format!("has {} entries for {points} candidates; need the same number >= 1 for each", coords.len());
            return Err(Error::invalid("coords", message));
        }
        let axes = coords.len() / points;
        let mut lattice =
            Self { axes, coords, lines: vec![BTreeMap::new(); axes - 1], values: vec![BTreeMap::new(); axes - 1] };
        let mut seen = BTreeMap::new();
        for point in 0..points {
            let at = lattice.at(point).to_vec();
            for axis in 1..axes {
                lattice.lines[axis - 1].entry(others(&at, axis)).or_default().push((at[axis], point));
                lattice.values[axis - 1].entry(at[0]).or_default().insert(at[axis]);
            }
            if let Some(twin) = seen.insert(at, point) {
                return Err(Error::invalid(format!("coords[{point}]"), format!("equal those of candidate {twin}")));
            }
        }
        for line in lattice.lines.iter_mut().flat_map(BTreeMap::values_mut) {
            line.sort_unstable();
        }
        Ok(lattice)
    }

    fn at(&self, point: usize) -> &[i64] {
        &self.coords[point * self.axes..(point + 1) * self.axes]
    }

    /// Column 0 of a point.
    pub fn kind(&self, point: usize) -> i64 {
        self.at(point)[0]
    }

    /// The next existing point from `point` along `axis`.
    fn along(&self, point: usize, axis: usize, way: Way) -> Option<usize> {
        self.nearest(self.at(point), axis, way)
    }

    /// The nearest existing point strictly beyond the place `at` along `axis`.
    fn nearest(&self, at: &[i64], axis: usize, way: Way) -> Option<usize> {
        let line = self.lines[axis - 1].get(&others(at, axis))?;
        match way {
            Way::Up => line.get(line.partition_point(|(value, _)| *value <= at[axis])),
            Way::Down => line[..line.partition_point(|(value, _)| *value < at[axis])].last(),
        }
        .map(|(_, point)| *point)
    }

    /// One value `way_a` on `axis_a`, and from there to the nearest existing point `way_b` on `axis_b`. So a ridge such
    /// as copies * cores <= total is followed although its next point may lie several values away.
    fn diagonal(&self, point: usize, (axis_a, way_a): (usize, Way), (axis_b, way_b): (usize, Way)) -> Option<usize> {
        let mut at = self.at(point).to_vec();
        let values = &self.values[axis_a - 1][&at[0]];
        at[axis_a] = match way_a {
            Way::Up => *values.range(at[axis_a] + 1..).next()?,
            Way::Down => *values.range(..at[axis_a]).next_back()?,
        };
        self.nearest(&at, axis_b, way_b)
    }

    fn pairs(&self) -> impl Iterator<Item = (usize, usize)> {
        let axes = self.axes;
        (1..axes).flat_map(move |a| (1..axes).filter(move |b| *b != a).map(move |b| (a, b)))
    }

    /// All near moves from `point` in a fixed order (so that a move has a number), with the point that each leads to.
    fn moves(&self, point: usize) -> impl Iterator<Item = (Option<usize>, Step)> {
        let axis_steps =
            (1..self.axes).flat_map(move |axis| WAYS.map(|way| (self.along(point, axis, way), Step::Axis)));
        let diagonals = self.pairs().flat_map(move |(a, b)| {
            WAYS.map(|way| (self.diagonal(point, (a, way), (b, way.opposite())), Step::Diagonal))
        });
        axis_steps.chain(diagonals)
    }

    /// One step along an axis, or one value up on one axis and down on another.
    pub fn neighbours(&self, point: usize) -> Vec<(usize, Step)> {
        distinct(point, self.moves(point))
    }

    /// Where the move that led from `from` to `to` leads once more.
    pub fn onward(&self, from: usize, to: usize) -> Option<(usize, Step)> {
        let number = self.moves(from).position(|(next, _)| next == Some(to))?;
        let (next, step) = self.moves(to).nth(number)?;
        next.map(|next| (next, step))
    }

    /// Two steps along an axis, two diagonal steps, or one value the same way on two axes.
    pub fn far_neighbours(&self, point: usize) -> Vec<(usize, Step)> {
        let twice = (1..self.axes)
            .flat_map(|axis| WAYS.map(|way| self.along(point, axis, way).and_then(|next| self.along(next, axis, way))));
        let pairs = self.pairs().flat_map(|(a, b)| {
            WAYS.into_iter().flat_map(move |way| {
                let across = |from: usize| self.diagonal(from, (a, way), (b, way.opposite()));
                [across(point).and_then(across), self.diagonal(point, (a, way), (b, way))]
            })
        });
        distinct(point, twice.chain(pairs).map(|next| (next, Step::Far)))
    }
}

fn others(at: &[i64], axis: usize) -> Vec<i64> {
    at.iter().enumerate().filter(|(i, _)| *i != axis).map(|(_, x)| *x).collect()
}

fn distinct(point: usize, found: impl Iterator<Item = (Option<usize>, Step)>) -> Vec<(usize, Step)> {
    let mut seen = BTreeSet::from([point]);
    found.filter_map(|(next, step)| next.map(|next| (next, step))).filter(|(next, _)| seen.insert(*next)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_skip_gaps_follow_ridges_and_keep_the_kind() {
        // Pairs (m, o) with m * o <= 6, twice (two kinds), and one lonely point of kind 2.
        let mut coords = Vec::new();
        for kind in 0..2 {
            for m in 1..=6_i64 {
                for o in 1..=6 / m {
                    coords.extend([kind, m, o]);
                }
            }
        }
        coords.extend([2, 1, 1]);
        let points = coords.len() / 3;
        let lattice = Lattice::new(coords, points).unwrap();
        let find = |at: [i64; 3]| (0..points).find(|p| lattice.at(*p) == at).unwrap();
        let step_to = |from: [i64; 3], to: [i64; 3]| {
            lattice.neighbours(find(from)).iter().find(|(p, _)| *p == find(to)).map(|(_, step)| *step)
        };
        assert_eq!(step_to([0, 1, 1], [0, 2, 1]), Some(Step::Axis));
        assert_eq!(step_to([0, 1, 6], [0, 2, 3]), Some(Step::Diagonal), "the ridge jumps from 6 cores to 3");
        assert_eq!(step_to([1, 3, 2], [1, 4, 1]), Some(Step::Diagonal));
        assert_eq!(step_to([0, 1, 1], [1, 1, 1]), None);
        let onward = |from, to| lattice.onward(find(from), find(to)).map(|(p, _)| lattice.at(p).to_vec());
        assert_eq!(onward([0, 1, 1], [0, 2, 1]), Some(vec![0, 3, 1]));
        assert_eq!(onward([0, 1, 6], [0, 2, 3]), Some(vec![0, 3, 2]));
        assert_eq!(onward([0, 5, 1], [0, 6, 1]), None);
        assert!(lattice.neighbours(points - 1).is_empty() && lattice.far_neighbours(points - 1).is_empty());
        assert!(lattice.far_neighbours(find([0, 1, 1])).contains(&(find([0, 3, 1]), Step::Far)));
        assert!(Lattice::new(vec![0, 1, 0, 1], 2).unwrap_err().to_string().starts_with("coords[1]"));
        assert!(Lattice::new(vec![0, 1, 0], 2).is_err());
    }
}

//! A small set of columns on which the simplex method works: the few per workload that prices leave in question.

use super::fleet::Fleet;
use super::forest::{Kind, Variable};
use super::pricing::{Best, Costs};

/// Columns by workload, then row.
#[derive(Clone, Debug, Default)]
pub struct Pool {
    types: u32,
    starts: Vec<u32>,
    pub columns: Vec<Column>,
    by_type_starts: Vec<u32>,
    by_type: Vec<u32>,
}

#[derive(Clone, Copy, Debug)]
pub struct Column {
    pub row: u32,
    /// Node of its type.
    pub a: u32,
    /// Node of its workload.
    pub b: u32,
    pub qps: f64,
    pub cost: f64,
}

impl Column {
    /// What the objective gains per machine at these prices: negative = worth using.
    #[inline(always)]
    pub fn reduced_cost(&self, price: impl Fn(u32) -> f64) -> f64 {
        (self.cost + price(self.a)) - self.qps * price(self.b)
    }

    pub fn variable(&self) -> Variable {
        Variable { kind: Kind::Pair, row: self.row, a: self.a, b: self.b, qps: self.qps, cost: self.cost }
    }
}

impl Pool {
    pub fn new(fleet: &Fleet<'_>) -> Self {
        let mut pool = Self { types: fleet.types() as u32, ..Self::default() };
        pool.starts = vec![0; fleet.workloads() + 1];
        pool.index();
        pool
    }

    /// Columns of the workload with index `w`.
    pub fn of_workload(&self, w: usize) -> std::ops::Range<usize> {
        self.starts[w] as usize..self.starts[w + 1] as usize
    }

    /// Positions of the columns of type `h`.
    pub fn of_type(&self, h: usize) -> &[u32] {
        &self.by_type[self.by_type_starts[h] as usize..self.by_type_starts[h + 1] as usize]
    }

    /// Add what `best` found to the columns that `keep` wants; whether any is new.
    pub fn merge(&mut self, fleet: &Fleet<'_>, costs: Costs<'_>, best: &Best, keep: impl Fn(&Column) -> bool) -> bool {
        let workloads = fleet.workloads();
        let old = std::mem::take(&mut self.columns);
        let mut any = false;
        let mut columns = Vec::with_capacity(old.len() + workloads);
        for w in 0..workloads {
            let from = columns.len();
            columns.extend(old[self.of_workload(w)].iter().filter(|column| keep(column)));
            for &row in best.rows(w) {
                if columns[from..].iter().all(|column: &Column| column.row != row) {
                    columns.push(column(fleet, costs, row, w));
                    any = true;
                }
            }
            columns[from..].sort_unstable_by_key(|column| column.row);
            self.starts[w] = from as u32;
        }
        self.starts[workloads] = columns.len() as u32;
        self.columns = columns;
        self.index();
        any
    }

    /// Costs afresh, for another interval.
    pub fn set_costs(&mut self, fleet: &Fleet<'_>, costs: Costs<'_>) {
        for old in &mut self.columns {
            *old = column(fleet, costs, old.row, (old.b - self.types) as usize);
        }
    }

    fn index(&mut self) {
        let mut starts = vec![0_u32; self.types as usize + 1];
        for column in &self.columns {
            starts[column.a as usize + 1] += 1;
        }
        for h in 0..self.types as usize {
            starts[h + 1] += starts[h];
        }
        let mut next = starts.clone();
        self.by_type.resize(self.columns.len(), 0);
        for (place, column) in self.columns.iter().enumerate() {
            let slot = &mut next[column.a as usize];
            self.by_type[*slot as usize] = place as u32;
            *slot += 1;
        }
        self.by_type_starts = starts;
    }
}

fn column(fleet: &Fleet<'_>, costs: Costs<'_>, row: u32, w: usize) -> Column {
    let (qps, power_w) = fleet.row(row as usize);
    let h = fleet.row_type()[row as usize];
    Column { row, a: h, b: fleet.types() as u32 + w as u32, qps: qps[w], cost: costs.machine(h as usize, power_w[w]) }
}

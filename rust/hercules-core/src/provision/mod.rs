//! Provisioning: how many machines of each type serve each workload in each interval, at the least cost.
//!
//! A generalised transportation problem. Machines of row `r` (a server type, or one of its configurations) on
//! workload `w` serve `qps[r, w]` each; types have stock, workloads have demand:
//!
//! ```text
//! minimise   sum cost[r, w] x[r, w] + sum penalty[w] shed[w]
//! coverage   sum_r qps[r, w] x[r, w] + shed[w] >= demand[w]      price v[w] >= 0, cost per q/s
//! stock      sum of x[r, w] over the rows of type h <= stock[h]    price u[h] >= 0, cost per machine
//! ```
//!
//! [`fleet`] holds the data, [`solver`] finds the optimum of one interval, [`timeline`] of all: a simplex method
//! ([`simplex`]) whose basis is a [`forest`], on a small [`pool`] of columns that a [`crash`] start and passes over all
//! columns ([`pricing`]) choose; these prove the answer, too. [`whole`] makes it one of whole machines.

mod crash;
pub mod fleet;
mod forest;
#[cfg(test)]
mod forest_tests;
mod pool;
pub mod pricing;
mod simplex;
pub mod solver;
#[cfg(test)]
mod tests;
pub mod timeline;
pub mod whole;

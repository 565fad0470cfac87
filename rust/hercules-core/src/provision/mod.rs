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
//! [`fleet`] holds the data; [`whole`] makes a fractional answer one of whole machines.

pub mod fleet;
pub mod whole;

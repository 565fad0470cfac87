//! Tail-latency simulators. They know stations, threads and seconds, never hardware.
//!
//! Two generations stand side by side, and share service times, random laws and percentiles:
//!
//! - *Described systems*: routes of stations with any law of service, buffers, fusion, interference, refusals. This is
//!   what people simulate, with intervals on every figure.
//! - *The search's chain* ([`chain`]): one configuration of a service table, judged thousands of times a second. It gives
//!   a run up as soon as a target is surely missed, which is what a search needs and nobody else.
//!
//! Reading order, shared: [`table`] (service times), [`fusion`] (when a device launches), [`law`] (random laws),
//! [`percentile`]. Described systems: [`network`] (the description), [`source`] (where queries come from), [`engine`] (what
//! the engines have in common), [`recursion`] (FCFS pools, splits, tandems), [`events`] (everything else), [`record`] and
//! [`statistics`] (latencies, intervals), [`run`] (a whole run), [`max_load`] (highest load under latency targets); the
//! slow twin is `tests/reference/queueing.py`. The search's: [`chain`], from top to bottom.
//!
//! Simultaneous events: completions first, then batch timers, then arrivals; within a kind, input order.

pub mod chain;
pub mod engine;
pub mod events;
pub mod fusion;
pub mod law;
pub mod max_load;
pub mod network;
pub mod percentile;
pub mod record;
pub mod recursion;
pub mod run;
pub mod source;
pub mod statistics;
pub mod table;

pub use law::Law;
pub use table::{Grid, GridParts, Unit};

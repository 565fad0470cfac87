//! Tail-latency simulator. It knows stages, threads and seconds, never hardware.
//!
//! A server is a chain of stations: FCFS pools of threads and fusing devices. For these no event list is needed: each
//! station is one pass of a recursion over its jobs in order of entry, so a simulated job costs some tens of
//! nanoseconds. The twin in [`reference`] simulates the same semantics instant by instant, and the tests hold the two
//! together.
//!
//! Reading order: [`table`] (service times), [`law`] (random laws), [`input`] (one random run of queries),
//! [`pool`] and [`fusion`] (the recursions), [`system`] (the chain), [`percentile`], [`load`] (highest load under a
//! latency target).
//!
//! Simultaneous events: completions first, then batch timers, then arrivals; within a kind, input order.

pub mod engine;
pub mod events;
pub mod fusion;
pub mod input;
pub mod law;
pub mod load;
pub mod network;
pub mod percentile;
pub mod pool;
pub mod record;
pub mod recursion;
pub mod reference;
pub mod run;
pub mod source;
pub mod statistics;
pub mod system;
pub mod table;

#[cfg(test)]
mod tests;

pub use input::{Input, Traffic};
pub use law::Law;
pub use load::{MaxLoad, Rules, Target};
pub use system::{Config, Scratch, System};
pub use table::{Grid, GridParts, Unit};

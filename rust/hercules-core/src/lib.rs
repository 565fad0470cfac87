//! The computing core of hercules-fast: no Python anywhere, `cargo test` stands alone.
//!
//! Rooms: [`sls`] (embedding-bag kernels), [`host`] (this machine's memory, timed), [`queue`] (tail-latency simulator),
//! [`search`] (scheduling search), [`dram`] (cycle-level memory), [`nmp`] (near-memory processing),
//! [`provision`] (machines for a load), [`load`] (open-loop load on this machine's threads).
//! `search` uses `queue`, `nmp` uses `dram`; no other arrow runs between rooms. [`error`], [`rng`], [`pool`],
//! [`helpers`], [`cpu`] and [`control`] serve all of them.

pub mod control;
pub mod cpu;
pub mod dram;
pub mod error;
pub mod helpers;
pub mod host;
pub mod load;
pub mod nmp;
pub mod pool;
pub mod provision;
pub mod queue;
pub mod rng;
pub mod search;
pub mod sls;

pub use error::{Error, Result};

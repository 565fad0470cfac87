//! Embedding bag: gather rows of a table and pool them, bag by bag.
//!
//! `out[b, c] = reduce over the lookups j of bag b of w[j] * weight[indices[j], c]`, reduce = sum, mean or max.
//!
//! Order of reading: [`reference`] (the definition) · [`input`] (views and bags) · [`format`] (how rows are stored) ·
//! [`kernel`] (the inner loop, once for all tiers and formats) · [`fold`] (what a row adds) · [`window`] (checked
//! indices, prefetch) · [`plan`] (checks, shares of threads) · [`piece`] (one share) ·
//! [`owned`] (tables of our own, on [`pages`], filled by [`encode`]). A call is planned first, which checks everything but
//! the indices; then it runs.
//!
//! Promises:
//! - Each column of a table of floats is summed in f32 (f64 for tables of f64) in the order of the lookups, product and
//!   sum rounded separately: the result is bit-equal to the naive loop for any tier and thread count. (Which NaN comes
//!   out of a sum of NaNs is not promised.)
//! - Quantised tables: bit-equal to a loop of fused multiply-adds if [`Call::exact`], else within the bound derived in
//!   [`fold`]. Equal for any thread count in both cases.
//! - The mean is the sum divided by the number of lookups, weighted or not.
//! - A bag without lookups is zeros in every mode. Padding and pruned rows are skipped and not counted.
//! - The maximum of a column that holds a NaN is a NaN.

#![allow(clippy::cast_ptr_alignment)] // rows are bytes: read unaligned, or aligned by the promise of a constructor
#![allow(clippy::inline_always)] // kernels take their tier's instructions from the function they are inlined into

mod encode;
mod fold;
mod format;
mod half;
mod input;
mod kernel;
mod owned;
mod pages;
mod piece;
mod plan;
mod portable;
mod window;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(all(test, unix))]
mod guard_tests;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_formats;
#[cfg(all(test, unix))]
mod tests_tables;

pub use format::RowFormat;
pub use input::{Bags, Ints, LookupWeights, Table, Tables, checked_bytes};
pub use owned::{Layout, OwnedTable, Source};
pub use plan::{Call, Length, Output, Plan, Skip};

use crate::cpu::Isa;
use crate::error::{Error, Result};
use kernel::{Kernels, PoolingKind, Rounder};
use window::Resolver;

/// How the rows of a bag become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Sum,
    Mean,
    Max,
}

impl Mode {
    pub const ALL: [Self; 3] = [Self::Sum, Self::Mean, Self::Max];

    pub fn name(self) -> &'static str {
        match self {
            Self::Sum => "sum",
            Self::Mean => "mean",
            Self::Max => "max",
        }
    }

    pub fn parse(text: &str) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|mode| mode.name() == text)
            .ok_or_else(|| Error::invalid("mode", format!("is {text:?}; allowed are sum, mean, max")))
    }
}

/// What one tier brings.
#[derive(Clone, Copy)]
struct Tier {
    kernels: fn(RowFormat, dim: usize, PoolingKind, exact: bool, skip: bool) -> Kernels,
    resolve: Resolver,
    round_to_half: Rounder,
}

fn tier(isa: Isa) -> Tier {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => Tier { kernels: avx2::kernels, resolve: avx2::resolve, round_to_half: avx2::round_to_half },
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => Tier { kernels: avx512::kernels, resolve: avx512::resolve, round_to_half: avx2::round_to_half },
        _ => Tier { kernels: portable::kernels, resolve: portable::resolve, round_to_half: portable::round_to_half },
    }
}

//! Binding of near-memory processing: arrays in, dictionaries out.
#![allow(clippy::needless_pass_by_value)] // PyO3 hands extracted arguments over by value

use crate::call::watched_alone;
use crate::dram::{DramStandard, MAX_ACCESSES, addresses_of, counts_dict, energy_dict, settings};
use crate::error::CoreError;
use crate::list::{List, check_entries};
use hercules_core::dram::Mapping;
use hercules_core::nmp::{Hardware, Lookups, Mode, Plan};
use hercules_core::pool;
use numpy::{IntoPyArray, PyReadonlyArray1, PyUntypedArrayMethods};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use std::borrow::Cow;

const MAX_BAGS: usize = 1 << 28;

fn counts_of(field: &str, values: &PyReadonlyArray1<'_, u32>) -> PyResult<Vec<u32>> {
    check_entries(field, values.len(), MAX_BAGS)?;
    Ok(values.as_array().iter().copied().collect())
}

/// Gather and add the rows of bags, near memory (`"nmp"`, `"column-split"`) or on the host.
#[pyfunction]
#[pyo3(signature = (standard, addresses, cacheable, offsets, accesses, results, channels, mode, ranks, ranks_per_dimm, mapping, window, gap, scheduler, age_limit, page, refresh, fifo, inst_per_cycle, packet, tags, cache_bytes, cache_ways, reduce_cycles, threads=None))]
#[allow(clippy::too_many_arguments)] // keyword arguments of a Python function
pub fn simulate_nmp<'py>(
    py: Python<'py>,
    standard: &DramStandard,
    addresses: PyReadonlyArray1<'py, u64>,
    cacheable: Option<PyReadonlyArray1<'py, bool>>,
    offsets: PyReadonlyArray1<'py, u64>,
    accesses: PyReadonlyArray1<'py, u32>,
    results: PyReadonlyArray1<'py, u32>,
    channels: List<usize>,
    mode: &str,
    ranks: usize,
    ranks_per_dimm: usize,
    mapping: &str,
    window: usize,
    gap: u64,
    scheduler: &str,
    age_limit: u64,
    page: &str,
    refresh: bool,
    fifo: usize,
    inst_per_cycle: usize,
    packet: usize,
    tags: usize,
    cache_bytes: usize,
    cache_ways: usize,
    reduce_cycles: u64,
    threads: Option<usize>,
) -> PyResult<Bound<'py, PyDict>> {
    let mode = Mode::parse(mode).map_err(CoreError)?;
    let standard = standard.inner;
    let hardware = Hardware {
        standard,
        ranks,
        ranks_per_dimm,
        mapping: Mapping::new(mapping, &standard, 1, ranks).map_err(CoreError)?,
        settings: settings(window, gap, 1, scheduler, age_limit, page, refresh)?,
        fifo,
        inst_per_cycle,
        cache_bytes,
        cache_ways,
        reduce_cycles,
    };
    let threads = pool::resolve_threads(threads).map_err(CoreError)?;
    check_entries("offsets", offsets.len(), MAX_BAGS + 1)?;
    let cacheable = match &cacheable {
        Some(cacheable) => {
            check_entries("cacheable", cacheable.len(), 1 << 30)?;
            Some(cacheable.as_array().iter().copied().collect())
        }
        None => None,
    };
    // The caller's own array where it can be: a copy would be a part of the time that threads cannot share.
    let addresses = match addresses.as_slice() {
        Ok(own) if own.len() <= MAX_ACCESSES => Cow::Borrowed(own),
        _ => Cow::Owned(addresses_of("addresses", &addresses)?),
    };
    let lookups = Lookups {
        addresses: &addresses,
        cacheable,
        offsets: offsets.as_array().iter().map(|at| usize::try_from(*at).unwrap_or(usize::MAX)).collect(),
        accesses: counts_of("accesses", &accesses)?,
        results: counts_of("results", &results)?,
        channels: channels.into(),
    };
    let plan = Plan { packet, tags };
    let all = watched_alone(py, |control| lookups.run(&hardware, mode, plan, threads, Some(control)))?;
    let dict = PyDict::new(py);
    dict.set_item("total_cycles", all.cycles)?;
    dict.set_item("gather_cycles", all.gather_cycles)?;
    dict.set_item("row_hits", all.row_hits)?;
    dict.set_item("cache_hits", all.cache_hits)?;
    dict.set_item("cache_accesses", all.cache_accesses)?;
    dict.set_item("packets", all.packets)?;
    dict.set_item("transfers", all.activity.transfers)?;
    dict.set_item("commands", counts_dict(py, &all.activity)?)?;
    dict.set_item("energy_nj", energy_dict(py, &standard, &all.activity)?)?;
    dict.set_item("latency_cycles", all.latency.into_pyarray(py))?;
    dict.set_item("reads_by_rank", all.reads_by_rank.into_pyarray(py))?;
    Ok(dict)
}

//! Binding of the DRAM simulator: arrays in, dictionaries out.
#![allow(clippy::needless_pass_by_value)] // PyO3 hands extracted arguments over by value

use crate::call::watched_alone;
use crate::error::{CoreError, invalid};
use crate::list::{List, check_entries};
use hercules_core::dram::{
    Activity, Currents, Issued, Mapping, Organisation, Page, Scheduler, Scripted, Settings, Standard, System, Timing,
    earliest_cycles, energy,
};
use hercules_core::{Result, pool};
use numpy::{IntoPyArray, PyArray1, PyReadonlyArray1, PyUntypedArrayMethods};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use std::collections::BTreeMap;

/// Most accesses of one run: 8 GiB of addresses.
pub const MAX_ACCESSES: usize = 1 << 30;

/// A checked DRAM standard.
#[pyclass(frozen, module = "hercules_fast._core")]
pub struct DramStandard {
    pub inner: Standard,
}

type Numbers<T> = BTreeMap<String, T>;

fn pairs<T>(numbers: Numbers<T>) -> Vec<(String, T)> {
    numbers.into_iter().collect()
}

#[pymethods]
impl DramStandard {
    #[new]
    #[pyo3(signature = (organisation, timing, tck_ns, currents=None))]
    fn new(
        organisation: Numbers<u32>,
        timing: Numbers<u32>,
        tck_ns: f64,
        currents: Option<Numbers<f64>>,
    ) -> PyResult<Self> {
        let read = || -> Result<Standard> {
            let standard = Standard {
                organisation: Organisation::from_pairs(&pairs(organisation))?,
                timing: Timing::from_pairs(&pairs(timing))?,
                tck_ns,
                currents: currents.map(|currents| Currents::from_pairs(&pairs(currents))).transpose()?,
            };
            standard.check().map(|()| standard)
        };
        Ok(Self { inner: read().map_err(CoreError)? })
    }

    #[getter]
    fn access_bytes(&self) -> u64 {
        self.inner.access_bytes()
    }

    #[getter]
    fn banks(&self) -> usize {
        self.inner.banks()
    }

    #[getter]
    fn rank_bytes(&self) -> u64 {
        self.inner.rank_bytes()
    }

    #[getter]
    fn peak_gb_s(&self) -> f64 {
        self.inner.peak_gb_s()
    }
}

/// The settings of a controller as Python names them.
pub fn settings(
    window: usize,
    gap: u64,
    write_queue: usize,
    scheduler: &str,
    age_limit: u64,
    page: &str,
    refresh: bool,
) -> PyResult<Settings> {
    let scheduler = match scheduler {
        "fr-fcfs" => Scheduler::FrFcfs,
        "row-hit-first" => Scheduler::RowHitFirst,
        _ => return Err(invalid("scheduler", format!("is {scheduler:?}; allowed are fr-fcfs, row-hit-first"))),
    };
    let page = match page {
        "open" => Page::Open,
        "closed" => Page::Closed,
        _ => return Err(invalid("page", format!("is {page:?}; allowed are open, closed"))),
    };
    let settings = Settings { window, gap, write_queue, scheduler, age_limit, page, refresh };
    settings.check().map_err(CoreError)?;
    Ok(settings)
}

/// Nanojoules by component, or nothing for a standard without currents.
pub fn energy_dict<'py>(py: Python<'py>, standard: &Standard, activity: &Activity) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    if let Some(energy) = energy(standard, activity) {
        for (name, nj) in energy.components() {
            dict.set_item(name, nj)?;
        }
    }
    Ok(dict)
}

pub fn counts_dict<'py>(py: Python<'py>, activity: &Activity) -> PyResult<Bound<'py, PyDict>> {
    let (dict, counts) = (PyDict::new(py), &activity.counts);
    dict.set_item("activate", counts.activates)?;
    dict.set_item("precharge", counts.precharges)?;
    dict.set_item("read", counts.reads)?;
    dict.set_item("write", counts.writes)?;
    dict.set_item("refresh", counts.refreshes)?;
    Ok(dict)
}

/// Copy an array of addresses, of a length that is looked at first.
pub fn addresses_of(field: &str, addresses: &PyReadonlyArray1<'_, u64>) -> PyResult<Vec<u64>> {
    check_entries(field, addresses.len(), MAX_ACCESSES)?;
    Ok(addresses.as_array().iter().copied().collect())
}

/// Serve accesses to a memory system, cycle by cycle.
#[pyfunction]
#[pyo3(signature = (standard, addresses, writes, channels, ranks, mapping, window, gap, write_queue, scheduler, age_limit, page, refresh, threads=None))]
#[allow(clippy::too_many_arguments)] // keyword arguments of a Python function
pub fn simulate_dram<'py>(
    py: Python<'py>,
    standard: &DramStandard,
    addresses: PyReadonlyArray1<'py, u64>,
    writes: Option<PyReadonlyArray1<'py, bool>>,
    channels: usize,
    ranks: usize,
    mapping: &str,
    window: usize,
    gap: u64,
    write_queue: usize,
    scheduler: &str,
    age_limit: u64,
    page: &str,
    refresh: bool,
    threads: Option<usize>,
) -> PyResult<Bound<'py, PyDict>> {
    let settings = settings(window, gap, write_queue, scheduler, age_limit, page, refresh)?;
    let standard = standard.inner;
    let mapping = Mapping::new(mapping, &standard, channels, ranks).map_err(CoreError)?;
    let threads = pool::resolve_threads(threads).map_err(CoreError)?;
    let addresses = addresses_of("addresses", &addresses)?;
    let writes = match &writes {
        Some(writes) => {
            check_entries("writes", writes.len(), MAX_ACCESSES)?;
            Some(writes.as_array().iter().copied().collect::<Vec<bool>>())
        }
        None => None,
    };
    let system = System { standard, channels, ranks, mapping, settings };
    let outcome = watched_alone(py, |control| system.run(&addresses, writes.as_deref(), threads, Some(control)))?;
    let dict = PyDict::new(py);
    dict.set_item("total_cycles", outcome.cycles)?;
    dict.set_item("row_hits", outcome.row_hits)?;
    dict.set_item("forwarded", outcome.forwarded)?;
    dict.set_item("commands", counts_dict(py, &outcome.activity)?)?;
    dict.set_item("energy_nj", energy_dict(py, &standard, &outcome.activity)?)?;
    dict.set_item("latency_cycles", outcome.latency.into_pyarray(py))?;
    Ok(dict)
}

/// First allowed cycle of each command `(name, bank, cycle)` of a script, the ones before it issued as it says.
#[pyfunction]
#[pyo3(signature = (standard, ranks, commands))]
pub fn dram_earliest<'py>(
    py: Python<'py>,
    standard: &DramStandard,
    ranks: usize,
    commands: List<(String, usize, u64)>,
) -> PyResult<Bound<'py, PyArray1<u64>>> {
    if !(1..=64).contains(&ranks) {
        return Err(invalid("ranks", format!("is {ranks}; allowed is from 1 to 64")));
    }
    let line = |(i, (name, bank, cycle)): (usize, &(String, usize, u64))| {
        let command = Issued::parse(&format!("commands[{i}]"), name)?;
        Ok(Scripted { command, bank: *bank, cycle: *cycle })
    };
    let script = commands.iter().enumerate().map(line).collect::<Result<Vec<_>>>().map_err(CoreError)?;
    Ok(earliest_cycles(&standard.inner, ranks, &script).map_err(CoreError)?.into_pyarray(py))
}

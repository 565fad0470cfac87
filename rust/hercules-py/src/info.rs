//! What was built, and what this machine can use of it.

use crate::error::CoreError;
use hercules_core::{cpu, pool, rng};
use pyo3::prelude::*;
use pyo3::types::PyDict;

/// How this extension was built: version, profile, whether debug assertions are on, target.
#[pyfunction]
pub fn build_info(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let info = PyDict::new(py);
    info.set_item("version", env!("CARGO_PKG_VERSION"))?;
    info.set_item("profile", if cfg!(debug_assertions) { "debug" } else { "release" })?;
    info.set_item("debug_assertions", cfg!(debug_assertions))?;
    info.set_item("target_arch", std::env::consts::ARCH)?;
    info.set_item("target_os", std::env::consts::OS)?;
    info.set_item("random_stream_version", rng::STREAM_VERSION)?;
    Ok(info)
}

/// Instruction-set tiers that exist here, the one in use, and the thread count in use.
#[pyfunction]
pub fn capabilities(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let detected = cpu::Isa::detected();
    let tiers: Vec<&str> = cpu::Isa::ALL.iter().filter(|isa| **isa <= detected).map(|isa| isa.name()).collect();
    let info = PyDict::new(py);
    info.set_item("isa_available", tiers)?;
    info.set_item("isa_detected", detected.name())?;
    info.set_item("isa_used", cpu::Isa::chosen(None).map_err(CoreError)?.name())?;
    info.set_item("isa_cap_variable", cpu::ISA_VARIABLE)?;
    info.set_item("threads_used", pool::resolve_threads(None).map_err(CoreError)?)?;
    Ok(info)
}

//! `hercules_fast._core`: conversions between NumPy and the core, errors, and Ctrl-C. No algorithms live here.

use pyo3::prelude::*;

mod call;
mod chain;
mod dram;
mod error;
mod host;
mod info;
mod list;
mod load;
mod nmp;
mod provision;
mod queueing;
mod search;
mod sls;
mod table;
mod whole;

#[pymodule]
mod _core {
    #[pymodule_export]
    use crate::chain::{ServiceGrid, Traffic, bottleneck_qps, simulate, simulate_trace};
    #[pymodule_export]
    use crate::dram::{DramStandard, dram_earliest, simulate_dram};
    #[pymodule_export]
    use crate::host::{clock_ghz, read_seconds, spin_gaps};
    #[pymodule_export]
    use crate::info::{build_info, capabilities};
    #[pymodule_export]
    use crate::load::{LoadServer, run_load};
    #[pymodule_export]
    use crate::nmp::simulate_nmp;
    #[pymodule_export]
    use crate::provision::provision_linear;
    #[pymodule_export]
    use crate::queueing::{
        draw_queries, max_load_system, service_draws, simulate_system, station_capacities, sweep_systems,
    };
    #[pymodule_export]
    use crate::search::{PowerModel, SearchProblem, candidate_rates, search};
    #[pymodule_export]
    use crate::sls::{embedding_bag, embedding_bag_collection, sparse_lengths_sum};
    #[pymodule_export]
    use crate::table::TableRows;
    #[pymodule_export]
    use crate::whole::provision_whole;
}

//! `hercules_fast._core`: conversions between NumPy and the core, errors, and Ctrl-C. No algorithms live here.

use pyo3::prelude::*;

mod call;
mod error;
mod info;

#[pymodule]
mod _core {
    #[pymodule_export]
    use crate::info::{build_info, capabilities};
}

"""Signatures of the Rust extension, checked against the built module by stubtest."""

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["build_info", "capabilities", "embedding_bag", "gather_limit", "sparse_lengths_sum"]

_Float32 = npt.NDArray[np.float32]
_Ints = npt.NDArray[np.int32] | npt.NDArray[np.int64]

def build_info() -> dict[str, Any]: ...
def capabilities() -> dict[str, Any]: ...
def embedding_bag(
    weight: _Float32,
    indices: _Ints,
    offsets: _Ints | None,
    mode: str,
    per_sample_weights: _Float32 | None,
    include_last_offset: bool,
    padding_idx: int | None,
    out: _Float32 | None,
    threads: int | None,
    isa: str | None = None,
) -> _Float32: ...
def gather_limit(weight: _Float32, indices: _Ints, threads: int | None = None) -> float: ...
def sparse_lengths_sum(
    weight: _Float32,
    indices: _Ints,
    lengths: _Ints,
    weights: _Float32 | None,
    out: _Float32 | None,
    threads: int | None,
    isa: str | None = None,
) -> _Float32: ...

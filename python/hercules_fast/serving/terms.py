"""The effects of the service-time model, each a term that can be switched off, and their parameters.

Formulas: see :mod:`hercules_fast.serving.stages`. Every parameter here is an assumption (listed on the validation
page), never a claim; figures of hardware live in the hardware catalogue, not here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace

from hercules_fast.errors import InputError, UnknownNameError

__all__ = ["ASSUMPTIONS", "SWITCHES", "Terms"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Terms:
    """Switches and parameters of the service-time model. The defaults switch every effect on."""

    operator_overhead: bool = True
    operator_parallelism: bool = True
    memory_bandwidth: bool = True
    gemm_batch: bool = True
    gemm_width: bool = True
    simd_clock: bool = True
    weight_streaming: bool = True
    activations: bool = True
    pollution: bool = True
    near_memory: bool = True
    gpu_sharing: bool = True
    gpu_input: bool = True
    popularity: bool = True
    hot_bags: bool = True

    half_batch: float = 8.0
    """Items at which a GEMM reaches half of its efficiency: b / (b + half_batch)."""
    half_width: float = 256.0
    """Width of a layer at which a GEMM reaches half of its efficiency: w / (w + half_width)."""
    narrow_efficiency: float = 0.15
    """Least share of peak of a GEMM, however narrow its layer."""
    split_loss: float = 0.05
    """A GEMM on p cores runs p / (1 + split_loss (p - 1)) times as fast as on one."""
    pollution_chi: float = 0.2
    """Dense work slows by the factor 1 + pollution_chi * (share of cores that gather rows)."""

    def __post_init__(self) -> None:
        for name in ("half_batch", "half_width", "split_loss", "pollution_chi"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise InputError(f"terms.{name}: is {value}; allowed is finite and >= 0")
        if not 0 < self.narrow_efficiency <= 1:
            raise InputError(f"terms.narrow_efficiency: is {self.narrow_efficiency}; allowed is 0 < share <= 1")

    def without(self, *names: str) -> Terms:
        """The same terms with the named effects switched off.

        Raises:
            UnknownNameError: no such effect; the nearest one is offered.
        """
        for name in names:
            if name not in SWITCHES:
                raise UnknownNameError.of("effect", name, SWITCHES)
        return replace(self, **dict.fromkeys(names, False))


SWITCHES = tuple(f.name for f in fields(Terms) if f.type == "bool")
"""Names of the effects that can be switched off."""

ASSUMPTIONS = {
    "operator_overhead": "each operator costs a fixed dispatch time",
    "operator_parallelism": "independent operators spread over the operator cores; one GEMM splits with a loss",
    "memory_bandwidth": "threads that gather rows at the same time share the memory bandwidth equally",
    "gemm_batch": "GEMM efficiency grows with the batch as b / (b + 8)",
    "gemm_width": "GEMM efficiency grows with the layer's width as w / (w + 256), at least 0.15",
    "simd_clock": "dense layers run at the all-core vector clock",
    "weight_streaming": "a dense layer takes at least the time to stream its weights from the last-level cache",
    "activations": "an elementwise operator takes the time to read and write its values: last-level cache, or HBM",
    "pollution": "dense work slows down by up to 20 % while other cores gather rows",
    "near_memory": "near-memory ranks gather as simulated, one table on one channel, where that is faster",
    "gpu_sharing": "co-located instances share the card and its link; one's transfer overlaps another's work",
    "gpu_input": "the inputs of a launch cross the host link before its work begins",
    "popularity": "each lookup draws its row by the workload's law, on its own; off: every row alike",
    "hot_bags": "a bag whose rows all lie on the accelerator needs no sum from the host",
}
"""What each effect assumes, in words; tables carry those that were on."""

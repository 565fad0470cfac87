"""Signatures of the Rust extension, checked against the built module by stubtest."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeAlias, final

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "DramStandard",
    "LoadServer",
    "PowerModel",
    "SearchProblem",
    "ServiceGrid",
    "TableRows",
    "Traffic",
    "bottleneck_qps",
    "build_info",
    "candidate_rates",
    "capabilities",
    "clock_ghz",
    "dram_earliest",
    "draw_queries",
    "embedding_bag",
    "embedding_bag_collection",
    "max_load_system",
    "provision_linear",
    "provision_whole",
    "read_seconds",
    "run_load",
    "search",
    "service_draws",
    "simulate",
    "simulate_dram",
    "simulate_nmp",
    "simulate_system",
    "simulate_trace",
    "sparse_lengths_sum",
    "spin_gaps",
    "station_capacities",
    "sweep_systems",
]

_U8 = NDArray[np.uint8]
_F32 = NDArray[np.float32]
_F64 = NDArray[np.float64]
_I32 = NDArray[np.int32]
_I64 = NDArray[np.int64]
_U64 = NDArray[np.uint64]
_Ints = NDArray[np.int32] | NDArray[np.int64]
_Floats: TypeAlias = NDArray[np.float16] | NDArray[np.float32] | NDArray[np.float64]
_Weight: TypeAlias = _Floats | TableRows

def build_info() -> dict[str, Any]: ...
def capabilities() -> dict[str, Any]: ...
def clock_ghz(seconds: float) -> float | None: ...
def embedding_bag(
    weight: _Weight,
    indices: _Ints,
    offsets: _Ints | None,
    mode: str,
    per_sample_weights: _Floats | None,
    include_last_offset: bool,
    padding_idx: int | None,
    out: _Floats | None,
    threads: int | None,
    exact: bool,
    isa: str | None = None,
) -> _Floats: ...
def embedding_bag_collection(
    tables: tuple[_Weight, ...],
    indices: _Ints,
    offsets: _Ints,
    mode: str,
    per_sample_weights: _Floats | None,
    skip_pruned: bool,
    out: _Floats | None,
    threads: int | None,
    exact: bool,
    isa: str | None = None,
) -> _Floats: ...
def read_seconds(
    memory: _U8,
    row_bytes: int,
    rows: _I64,
    rows_ahead: int,
    burst: int,
    level: str,
    threads: int | None = None,
) -> float: ...
def spin_gaps(cpus: Sequence[int], seconds: float, least_gap_s: float) -> list[tuple[float, float, bool]]: ...
def sparse_lengths_sum(
    weight: _Weight,
    indices: _Ints,
    lengths: _Ints,
    weights: _Floats | None,
    out: _Floats | None,
    threads: int | None,
    exact: bool,
    isa: str | None = None,
) -> _Floats: ...

@final
class TableRows:
    """Rows of one format, owned; ``hercules_fast.EmbeddingTable`` is its public face."""

    @staticmethod
    def encode(
        array: NDArray[np.float32] | NDArray[np.float16], dtype: str, threads: int | None = None
    ) -> TableRows: ...
    @staticmethod
    def import_fused(array: _U8, dtype: str, layout: str, dim: int | None) -> TableRows: ...
    @staticmethod
    def from_file(fd: int, offset: int, dtype: str, rows: int, dim: int, mapped: bool) -> TableRows: ...
    def export_fused(self, layout: str) -> _U8: ...
    def view(self) -> _U8: ...
    @property
    def rows(self) -> int: ...
    @property
    def dim(self) -> int: ...
    @property
    def row_bytes(self) -> int: ...
    @property
    def dtype(self) -> Literal["float32", "float16", "bfloat16", "int8", "int4", "int2"]: ...
    @property
    def mapped(self) -> bool: ...
    @property
    def huge_page_share(self) -> float: ...

@final
class DramStandard:
    """A checked DRAM standard; ``hercules_fast.memory.DramStandard`` is its public face."""

    def __new__(
        cls,
        organisation: Mapping[str, int],
        timing: Mapping[str, int],
        tck_ns: float,
        currents: Mapping[str, float] | None = None,
    ) -> DramStandard: ...
    @property
    def access_bytes(self) -> int: ...
    @property
    def banks(self) -> int: ...
    @property
    def rank_bytes(self) -> int: ...
    @property
    def peak_gb_s(self) -> float: ...

def simulate_dram(
    standard: DramStandard,
    addresses: _U64,
    writes: NDArray[np.bool_] | None,
    channels: int,
    ranks: int,
    mapping: str,
    window: int,
    gap: int,
    write_queue: int,
    scheduler: str,
    age_limit: int,
    page: str,
    refresh: bool,
    threads: int | None = None,
) -> dict[str, Any]: ...
def simulate_nmp(
    standard: DramStandard,
    addresses: _U64,
    cacheable: NDArray[np.bool_] | None,
    offsets: _U64,
    accesses: NDArray[np.uint32],
    results: NDArray[np.uint32],
    channels: Sequence[int],
    mode: str,
    ranks: int,
    ranks_per_dimm: int,
    mapping: str,
    window: int,
    gap: int,
    scheduler: str,
    age_limit: int,
    page: str,
    refresh: bool,
    fifo: int,
    inst_per_cycle: int,
    packet: int,
    tags: int,
    cache_bytes: int,
    cache_ways: int,
    reduce_cycles: int,
    threads: int | None = None,
) -> dict[str, Any]: ...
def dram_earliest(standard: DramStandard, ranks: int, commands: Sequence[tuple[str, int, int]]) -> _U64: ...

@final
class ServiceGrid:
    """Seconds f64[V,S,I,B] and joules f64[V,S,I] of one service, over items i64[I] and busy threads i64[B].

    ``noise_cv`` [S]: coefficients of variation of lognormal factors of mean 1; None = no noise.
    """

    def __new__(
        cls,
        items: _I64,
        busy: _I64,
        seconds: _F64,
        energy_j: _F64,
        units: Sequence[str],
        busy_of: Sequence[int],
        noise_cv: Sequence[float] | None = None,
    ) -> ServiceGrid: ...
    @property
    def stages(self) -> int: ...
    @property
    def variants(self) -> int: ...
    @property
    def max_items(self) -> int: ...

@final
class Traffic:
    """Arrival law by name with parameters, size_pmf f64[K] for sizes 1..K, seed of all random streams."""

    def __new__(cls, arrivals: str, arrival_params: Sequence[float], size_pmf: _F64, seed: int) -> Traffic: ...
    @property
    def max_size(self) -> int: ...
    @property
    def mean_size(self) -> float: ...
    @property
    def seed(self) -> int: ...

def bottleneck_qps(grid: ServiceGrid, traffic: Traffic, config: _I64) -> float: ...
def simulate(
    grid: ServiceGrid,
    traffic: Traffic,
    config: _I64,
    qps: float,
    queries: int,
    warmup: int,
    percentiles: Sequence[float],
) -> dict[str, Any]: ...
def simulate_trace(grid: ServiceGrid, config: _I64, arrival_s: _F64, sizes: _I64, seed: int = 0) -> _F64: ...

@final
class PowerModel:
    """Power of a server from the use of its stages; cores i64[V, S]."""

    def __new__(
        cls,
        base_w: float,
        idle_w: Sequence[float],
        span_w: Sequence[float],
        component_of: Sequence[int],
        slots: Sequence[int],
        group_of: Sequence[int],
        cores: _I64,
        energy_of: int | None = None,
    ) -> PowerModel: ...
    def power_w(
        self, config: _I64, qps: float, utilisation: Sequence[float], energy_j_per_query: Sequence[float]
    ) -> float: ...

@final
class SearchProblem:
    """One pair to search: candidates i64[N, 6+S], coords i64[N, K] (column 0 = kind), starts i64[], slas."""

    def __new__(
        cls,
        grid: ServiceGrid,
        traffic: Traffic,
        candidates: _I64,
        coords: _I64,
        starts: _I64,
        slas: Sequence[tuple[float, float]],
        lines: Sequence[Sequence[int]] | None = None,
        power: PowerModel | None = None,
        objective: tuple[float, float] | None = None,
        power_budget_w: float | None = None,
    ) -> SearchProblem: ...
    @property
    def candidates(self) -> int: ...

def search(
    problems: Sequence[SearchProblem],
    method: str = "gradient",
    queries: int = 4096,
    final_queries: int = 16384,
    replications: int = 5,
    cap: float = 0.95,
    tolerance: float = 0.0025,
    evaluations: int | None = None,
    threads: int | None = None,
    progress: Callable[[int, int], object] | None = None,
    finished: Callable[[int, dict[str, Any]], object] | None = None,
    deadline_s: float | None = None,
    precision: float = 0.01,
    most_replications: int = 640,
    top: int = 1,
    front: bool = False,
    polish_queries: int = 32768,
) -> tuple[list[dict[str, Any] | None], bool]: ...
def candidate_rates(
    problem: SearchProblem,
    candidates: Sequence[int] | None = None,
    queries: int = 4096,
    cap: float = 0.95,
    threads: int | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> _F64: ...
def simulate_system(
    system: Mapping[str, Any],
    source: Mapping[str, Any],
    size_pmf: _F64,
    qps: float | None,
    queries: int,
    warmup: int | None,
    segments: int | None,
    percentiles: Sequence[float],
    seed: int,
    threads: int | None = None,
    engine: str = "auto",
    keep_latencies: bool = False,
    waits: bool = False,
    isa: str | None = None,
) -> dict[str, Any]: ...
def sweep_systems(
    calls: Sequence[tuple[Any, ...]],
    threads: int | None = None,
    engine: str = "auto",
    waits: bool = False,
    progress: Callable[[int, int], object] | None = None,
) -> list[dict[str, Any]]: ...
def max_load_system(
    system: Mapping[str, Any],
    source: Mapping[str, Any],
    size_pmf: _F64,
    targets: Sequence[tuple[float, float]],
    cap: float,
    precision: float,
    seed: int,
    threads: int | None = None,
    max_queries: int = 1073741824,
    loss: float = 0.0,
    engine: str = "auto",
) -> dict[str, Any]: ...
def station_capacities(system: Mapping[str, Any], size_pmf: _F64) -> _F64: ...
def service_draws(
    law: str, params: Sequence[float], seed: int, segment: int, station: int, queries: _I64, parts: _I64
) -> _F64: ...
def draw_queries(
    source: Mapping[str, Any],
    size_pmf: _F64,
    qps: float | None,
    queries: int,
    seed: int,
    segment: int = 0,
    segments: int = 1,
) -> tuple[_F64, _I64]: ...
def provision_linear(
    qps: _F64,
    power_w: _F64,
    row_type: _I64,
    types: int,
    demand: _F64,
    stock: _I64,
    penalty: _F64 | None = None,
    watt_cost: _F64 | None = None,
    machine_cost: _F64 | None = None,
    threads: int | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> tuple[dict[str, Any], bool]: ...
def provision_whole(
    qps: _F64,
    power_w: _F64,
    row_type: _I64,
    types: int,
    demand: _F64,
    stock: _I64,
    penalty: _F64,
    starts: _I64,
    row: _I32,
    workload: _I32,
    machines: _F64,
    stock_price: _F64,
    watt_cost: _F64 | None = None,
    machine_cost: _F64 | None = None,
    group: _I64 | None = None,
    bound: bool = False,
    threads: int | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> tuple[dict[str, Any], bool]: ...

_PoolParts: TypeAlias = tuple[
    Sequence[tuple[float, float] | Callable[[int, int, Any], object]],
    Sequence[Sequence[int] | None] | None,
    int | None,
]
_LoadEnded: TypeAlias = tuple[dict[str, Any], list[tuple[int, int]], bool]

def run_load(
    pools: Sequence[_PoolParts],
    arrival_s: _F64,
    sizes: _I64,
    batch: int | None = None,
    generator_cpu: int | None = None,
    drain_s: float = 5.0,
    progress: Callable[[int, int], object] | None = None,
    polls: bool = False,
) -> _LoadEnded: ...

@final
class LoadServer:
    def __new__(
        cls,
        pools: Sequence[_PoolParts],
        capacity: int,
        batch: int | None = None,
        done: Callable[[int], object] | None = None,
    ) -> LoadServer: ...
    def submit(self, query: int, items: int) -> None: ...
    def finish(self, drain_s: float) -> _LoadEnded: ...

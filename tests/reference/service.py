"""Service times, one number at a time, straight from the formulas (all effects switched on).

Everything is a scalar; nothing is shared with the package but the descriptors and the memory simulators.
"""

from __future__ import annotations

import math
from functools import cache, wraps

import numpy as np

from hercules_fast.memory import Dimm, NmpTable, simulate_dram, simulate_nmp, uniform_rows

CHI = 0.2
HALF_BATCH = 8.0
HALF_WIDTH = 256.0
FLOOR = 0.15
SPLIT_LOSS = 0.05


def sls_overhead_s(server, model, cores, hot=None):
    tables = [group for group, share in zip(model.tables, hot or cold(model), strict=True) if share < 1]
    count = sum(group.count for group in tables)
    return max(1.0, count / cores) * server.cpu.operator_overhead_us * 1e-6


def gather_s(server, model, items, gathering, cores):
    """One of ``gathering`` threads of ``cores`` cores gathers the rows of ``items`` items."""
    if near_memory_pays(server, model):
        return gathering * near_s(server.memory, model, items) + issue_s(server, model, items, cores)
    alone = items * model.embedding_read_bytes_per_item / (cores * server.cpu.gather_core_gb_s * 1e9)
    return max(alone, gathering * items * host_item_s(server.memory, model))


def issue_s(server, model, items, cores, hot=None):
    lookups = sum(
        (1 - share) * group.count * group.pooling for group, share in zip(model.tables, hot or cold(model), strict=True)
    )
    return items * lookups * server.memory.nmp_issue_ns * 1e-9 / cores


def cold(model):
    """No row of any table group on the accelerator."""
    return (0.0,) * len(model.tables)


def remembered(function):
    """Remember results by the names of servers, memories and models: many are asked for again and again."""
    known = {}

    @wraps(function)
    def remembering(*arguments):
        key = tuple(getattr(argument, "name", argument) for argument in arguments)
        if key not in known:
            known[key] = function(*arguments)
        return known[key]

    return remembering


@remembered
def near_memory_pays(server, model):
    """Of large batches, at the number of cores that just fills the host's bandwidth."""
    if server.memory.kind != "nmp":
        return False
    items = 1e6
    one_core = items * model.embedding_read_bytes_per_item / (server.cpu.gather_core_gb_s * 1e9)
    full = one_core / (items * host_item_s(server.memory, model))
    return full * near_s(server.memory, model, items) + issue_s(server, model, items, 1) <= one_core


def host_item_s(memory, model, hot=None):
    total = 0.0
    for group, share in zip(model.tables, hot or cold(model), strict=True):
        lines = math.ceil(group.row_bytes / memory.standard.access_bytes)
        together = math.ceil(lines / memory.channels)
        line = line_s(memory.standard, memory.ranks, together)
        total += (1 - share) * group.count * group.pooling * lines * line / memory.channels
    return total


@cache
def line_s(standard, ranks, together):
    """One channel reads ``together`` lines from each of many random places; the seconds of one line."""
    bytes_ = together * standard.access_bytes
    places = uniform_rows(math.ceil(32768 / together), min(2**31, ranks * standard.rank_bytes // bytes_))
    reads = [int(place) * bytes_ + k * standard.access_bytes for place in places for k in range(together)]
    return simulate_dram(reads, standard=standard, ranks=ranks).seconds / len(reads)


@remembered
def near_s(memory, model, items, hot=None):
    """The channel with most work decides; tables of one shape are one batch there, shapes follow one another.

    Of a table with hot rows, the cold share of its bags is gathered whole.
    """
    worst = 0.0
    for tables in channels_of(memory, model, hot or cold(model)):
        bags = {}
        for shape, share in tables:
            bags[shape] = bags.get(shape, 0.0) + items * share
        worst = max(worst, sum(batch_s(memory, *shape, count) for shape, count in bags.items()))
    return worst


@remembered
def channels_of(memory, model, hot):
    """(shape, cold share) of the tables on each channel: heaviest first, each where there is least work so far."""
    tables = []
    for group, share in zip(model.tables, hot, strict=True):
        if share < 1:
            tables += [((group.pooling, group.row_bytes), 1 - share)] * group.count
    tables.sort(key=lambda table: (-table[1] * bag_s(memory, *table[0]), *table[0], table[1]))
    channels, work = [[] for _ in range(memory.channels)], [0.0] * memory.channels
    for shape, share in tables:
        least = work.index(min(work))
        channels[least].append((shape, share))
        work[least] += share * bag_s(memory, *shape)
    return channels


def batch_s(memory, pooling, row_bytes, bags):
    """``bags`` bags of one shape on one channel."""
    longest = longest_batch(memory, pooling, row_bytes)
    if bags >= longest:
        return bags * bag_s(memory, pooling, row_bytes)
    low, high = longest, longest
    while low > bags:
        low, high = (max(1, low // 8) if low > 1 else 0), low
    a, b = (simulated_s(memory_key(memory), pooling, row_bytes, n) if n else 0.0 for n in (low, high))
    return max(a + (b - a) * (bags - low) / (high - low), bags * bag_s(memory, pooling, row_bytes))


def longest_batch(memory, pooling, row_bytes):
    """2**14 accesses of each rank."""
    return max(1, 2**14 * memory.ranks // (pooling * math.ceil(row_bytes / memory.standard.access_bytes)))


def bag_s(memory, pooling, row_bytes):
    longest = longest_batch(memory, pooling, row_bytes)
    return simulated_s(memory_key(memory), pooling, row_bytes, longest) / longest


def memory_key(memory):
    dimm = Dimm(standard=memory.standard, dimms=memory.dimms_per_channel, ranks_per_dimm=memory.ranks_per_dimm)
    return dimm, memory.nmp_mode, memory.nmp_packet


@cache
def simulated_s(key, pooling, row_bytes, bags):
    dimm, mode, packet = key
    stride = math.ceil(row_bytes / dimm.standard.access_bytes) * dimm.standard.access_bytes
    table = NmpTable(rows=min(2**31, dimm.ranks * dimm.standard.rank_bytes // stride), dim=stride // 4)
    rows, offsets = uniform_rows(bags * pooling, table.rows), np.arange(bags) * pooling
    return simulate_nmp(rows, offsets, [table], dimm=dimm, mode=mode, packet=packet, baseline=False).seconds


def gemm_core_flop_s(server, op, items):
    cpu = server.cpu
    peak = cpu.simd_frequency_ghz * 1e9 * cpu.fp32_flop_per_cycle
    width = max(FLOOR, cpu.gemm_efficiency * op.width / (op.width + HALF_WIDTH))
    return peak * width * items / (items + HALF_BATCH)


def moved_bytes(op):
    """Per item: an elementwise operator reads and writes one fp32 value after another."""
    return 8 * op.width if op.kind == "elementwise" else 0


def operator_s(server, op, items, cores):
    """One dense operator with all its copies and steps on ``cores`` cores."""

    def copy_on(p):
        compute = items * op.flop_per_item / (gemm_core_flop_s(server, op, items) * p / (1 + SPLIT_LOSS * (p - 1)))
        streamed = (op.weight_bytes + items * moved_bytes(op)) / (p * server.cpu.llc_core_gb_s * 1e9)
        return max(compute, streamed)

    if op.copies == 1:
        return op.steps * copy_on(cores)
    critical_path = op.steps * copy_on(max(1.0, cores / op.copies))
    all_work = op.steps * op.copies * copy_on(1.0) / cores
    return max(critical_path, all_work)


def dense_alone_s(server, model, items, cores):
    total = 0.0
    for op in model.operators():
        if op.kind == "sls":
            continue
        total += op.steps * max(1.0, op.copies / cores) * server.cpu.operator_overhead_us * 1e-6
        total += operator_s(server, op, items, cores)
    return total


def slowdown(server, model, gathering_cores):
    if near_memory_pays(server, model):
        return 1.0
    return 1 + CHI * min(1.0, gathering_cores / server.cpu.cores)


def sparse_s(server, model, items, busy, cores, hot=None):
    overhead = sls_overhead_s(server, model, cores, hot)
    if near_memory_pays(server, model):
        return overhead + issue_s(server, model, items, cores, hot)
    read = sum(
        (1 - share) * group.count * group.pooling * group.row_bytes
        for group, share in zip(model.tables, hot or cold(model), strict=True)
    )
    alone = items * read / (cores * server.cpu.gather_core_gb_s * 1e9)
    return overhead + max(alone, busy * items * host_item_s(server.memory, model, hot))


def dense_s(server, model, items, sparse_busy, sparse_cores, dense_cores):
    return dense_alone_s(server, model, items, dense_cores) * slowdown(server, model, sparse_busy * sparse_cores)


def whole_model_s(server, model, items, busy, cores):
    """Bisection for the mean number of other threads that gather (the package iterates from below)."""
    alone = dense_alone_s(server, model, items, cores)

    def times(others):
        sparse = sls_overhead_s(server, model, cores) + gather_s(server, model, items, 1 + others, cores)
        return sparse, alone * slowdown(server, model, others * cores)

    low, high = 0.0, float(busy - 1)
    for _ in range(60):
        others = (low + high) / 2
        sparse, dense = times(others)
        if (busy - 1) * sparse / (sparse + dense) > others:
            low = others
        else:
            high = others
    return sum(times(low))


def gpu_s(server, model, items, busy, hot):
    gpu = server.gpu
    launches = flop = read = arriving = 0.0
    for op in model.operators():
        if op.kind != "sls":
            launches += op.copies * op.steps
            share = max(FLOOR, op.width / (op.width + HALF_WIDTH)) if op.kind == "gemm" else 1
            flop += op.copies * op.steps * op.flop_per_item / share
            read += op.copies * op.steps * moved_bytes(op)
    for group, share in zip(model.tables, hot, strict=True):
        for _ in range(group.count):
            if share > 0:
                launches += 1
                flop += share * group.pooling * group.dim
                read += share * group.pooling * group.row_bytes
                arriving += 4 * share * group.pooling + 4
            arriving += group.row_bytes * (1 - share**group.pooling)
    work = flop / (gpu.compute_efficiency * gpu.fp32_tflop_s * 1e12)
    work += read / (gpu.gather_efficiency * gpu.memory_gb_s * 1e9)
    link = (arriving + 4 * model.dense_input_dim) / (gpu.link_gb_s * 1e9)
    per_item = max(work + link, busy * work, busy * link)
    return launches * gpu.operator_overhead_us * 1e-6 + items * per_item

"""Service times, one number at a time, straight from the formulas (all effects switched on).

Everything is a scalar; nothing is shared with the package but the descriptors.
"""

from __future__ import annotations

from itertools import pairwise

CHI = 0.2
HALF_BATCH = 8.0
HALF_WIDTH = 64.0
FLOOR = 0.15
SPLIT_LOSS = 0.05


def sls_overhead_s(server, model, cores):
    count = sum(op.copies for op in model.operators() if op.kind == "sls")
    return max(1.0, count / cores) * server.cpu.operator_overhead_us * 1e-6


def gather_s(server, model, items, gathering, cores):
    """One of ``gathering`` threads of ``cores`` cores gathers the rows of ``items`` items."""
    memory, cpu = server.memory, server.cpu
    bandwidth = memory.peak_gb_s * 1e9 * memory.gather_efficiency
    rate = min(cores * cpu.gather_core_gb_s * 1e9, bandwidth / gathering)
    plain = items * model.embedding_read_bytes_per_item / rate
    if memory.kind != "nmp":
        return plain
    near = items * (
        gathering * near_memory_item_s(memory, model) + model.lookups_per_item * memory.nmp_issue_ns * 1e-9 / cores
    )
    return min(plain, near)


def near_memory_item_s(memory, model):
    bags = []
    for group in model.tables:
        bursts = (group.row_bytes + 63) // 64
        in_ranks = group.pooling * bursts * cycles_per_burst(memory, 64 * bursts)
        dimms = memory.dimms_per_channel
        reached = dimms * (1 - (1 - 1 / dimms) ** group.pooling)  # DIMMs that hold at least one of the rows
        over_channel = 4 * bursts * reached
        bags.extend([max(in_ranks, over_channel)] * group.count)
    load = [0.0] * memory.channels
    for bag in sorted(bags, reverse=True):
        load[load.index(min(load))] += bag
    return max(load) * memory.cycle_ns * 1e-9


def cycles_per_burst(memory, row_bytes):
    points = list(zip(memory.nmp_vector_bytes, memory.nmp_cycles_per_64b, strict=True))
    if row_bytes <= points[0][0]:
        return points[0][1]
    if row_bytes >= points[-1][0]:
        return points[-1][1]
    for (x0, y0), (x1, y1) in pairwise(points):
        if x0 <= row_bytes <= x1:
            return y0 + (y1 - y0) * (row_bytes - x0) / (x1 - x0)
    raise AssertionError


def gemm_core_flop_s(server, op, items):
    cpu = server.cpu
    peak = cpu.simd_frequency_ghz * 1e9 * cpu.fp32_flop_per_cycle
    width = max(FLOOR, cpu.gemm_efficiency * op.width / (op.width + HALF_WIDTH))
    return peak * width * items / (items + HALF_BATCH)


def operator_s(server, op, items, cores):
    """One dense operator with all its copies and steps on ``cores`` cores."""

    def copy_on(p):
        compute = items * op.flop_per_item / (gemm_core_flop_s(server, op, items) * p / (1 + SPLIT_LOSS * (p - 1)))
        weights = op.weight_bytes / (p * server.cpu.llc_core_gb_s * 1e9)
        return max(compute, weights)

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


def slowdown(server, gathering_cores):
    return 1 + CHI * min(1.0, gathering_cores / server.cpu.cores)


def sparse_s(server, model, items, busy, cores):
    return sls_overhead_s(server, model, cores) + gather_s(server, model, items, busy, cores)


def dense_s(server, model, items, sparse_busy, sparse_cores, dense_cores):
    return dense_alone_s(server, model, items, dense_cores) * slowdown(server, sparse_busy * sparse_cores)


def whole_model_s(server, model, items, busy, cores):
    """Bisection for the mean number of other threads that gather (the package iterates from below)."""
    alone = dense_alone_s(server, model, items, cores)

    def times(others):
        sparse = sls_overhead_s(server, model, cores) + gather_s(server, model, items, 1 + others, cores)
        return sparse, alone * slowdown(server, others * cores)

    low, high = 0.0, float(busy - 1)
    for _ in range(60):
        others = (low + high) / 2
        sparse, dense = times(others)
        if (busy - 1) * sparse / (sparse + dense) > others:
            low = others
        else:
            high = others
    return sum(times(low))


def gpu_s(server, model, items, busy, pooled):
    gpu = server.gpu
    operators = [op for op in model.operators() if not (pooled and op.kind == "sls")]
    launches = sum(op.copies * op.steps for op in operators)
    flop = sum(op.copies * op.steps * op.flop_per_item for op in operators)
    read = 0 if pooled else model.embedding_read_bytes_per_item
    work = max(
        flop / (gpu.compute_efficiency * gpu.fp32_tflop_s * 1e12),
        read / (gpu.gather_efficiency * gpu.memory_gb_s * 1e9),
    )
    if pooled:
        arriving = sum(t.count * t.row_bytes for t in model.tables) + 4 * model.dense_input_dim
    else:
        tables = sum(t.count for t in model.tables)
        arriving = 4 * model.lookups_per_item + 4 * tables + 4 * model.dense_input_dim
    link = arriving / (gpu.link_gb_s * 1e9)
    per_item = max(work + link, busy * work, busy * link)
    return launches * gpu.operator_overhead_us * 1e-6 + items * per_item

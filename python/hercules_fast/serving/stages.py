"""Seconds of each stage of a model on a server, in vectorised NumPy.

Only ``+ - * / min max`` and comparisons are used: NumPy's exp, log and pow change their last bits with the
instruction set, and the same descriptors must give the same bytes everywhere. Times are seconds, rates per second.

The formulas, for a batch of b items (each is a term of :class:`~hercules_fast.serving.terms.Terms`):

* *overhead* of n independent operators on o cores: ``max(t_op, n t_op / o)``; operators of a chain add up.
* *gather* of R bytes per item by one of n gathering threads of o cores: ``b max(R / (o b_core), n h)``, with h the
  seconds that the memory needs for the rows of an item (:func:`~hercules_fast.serving.gather.host_gather`).
* *GEMM* of F operations per item: ``b F / (peak eff speedup(p))`` with
  ``eff = max(0.15, wide w / (w + 256)) b / (b + 8)`` and ``speedup(p) = p / (1 + 0.05 (p - 1))``,
  at least ``weight bytes / (p llc_core)``; c independent copies spread over the o cores.
* *activations*: an elementwise operator of width w reads and writes its values, ``b 8 w / (p llc_core)``.
* *pollution*: dense time times ``1 + chi (gathering cores / cores)``.
* *near-memory gather* of L lookups per item: a thread issues for ``b L t_issue / o``, then the channels gather for
  ``near(b)`` (:func:`~hercules_fast.serving.gather.near_gather`). In a pipeline they are a stage of their own, which
  takes one batch after another; a whole-model thread waits for its sums while n threads share the channels,
  ``n near(b)``. Rows that are gathered near memory do not pass the cores, so they pollute nothing.
* *GPU* with n busy instances: ``n_ops t_op + b max(w + l, n w, n l)`` with ``l = input / link`` and w the sum over the
  operators, which follow one another, of ``F / (eff peak max(0.15, width / (width + 256)))`` and of
  ``bytes / (eff HBM)``, rows and activations. Instances share the card and the link, and one's transfer overlaps
  another's work: the asymptotic bound of n customers that visit two servers in turn. One instance alone does not
  overlap its own transfer.
* *hot rows*: the card answers the share h of a table's P lookups per item, the host gathers and adds the rest. A table
  with h = 1 is no operator of the host, one with h = 0 none of the card, which adds its hot rows onto the sums that
  arrive. Over the link come the dense features, an index for each hot lookup and an offset for each bag of a table with
  hot rows, and the host's sum of a bag unless all of its lookups are hot, as ``h**P`` of them are. h = 0 for all
  tables is pooling on the host, h = 1 the whole model on the card.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hercules_fast.hardware import Cpu, Gpu, Memory, Server
from hercules_fast.models import Model, Operator
from hercules_fast.serving.gather import Gathering, host_gather, near_gather
from hercules_fast.serving.terms import Terms

__all__ = ["Stages", "Use"]

Array = npt.NDArray[np.float64]

SHARE_ROUNDS = 200
"""Most rounds of the fixed point for the number of gathering threads; about 20 are needed."""
SHARE_SETTLED = 1e-10
"""Largest last step, in threads, of a fixed point that has settled."""

READ_AND_WRITE = 8.0
"""Bytes that an elementwise operator moves for an fp32 value: it reads one and writes one."""

GIGA = 1e9
MICRO = 1e-6
NANO = 1e-9


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Use:
    """What one stage of a variant takes."""

    seconds: Array
    """[I, B], or [I, 1] where the number of busy threads does not matter."""
    cores: int = 0
    """Operator cores of a thread."""
    energy_j: Array | float = 0.0
    """[I], dynamic energy of the memory."""


class Stages:
    """The terms of the model for one (server, model), over batches ``b`` [I] and busy threads ``n`` [B].

    ``hot`` is the share of its lookups that each table group finds on the accelerator.
    """

    def __init__(self, server: Server, model: Model, terms: Terms, b: Array):
        self.cpu: Cpu = server.cpu
        self.memory: Memory = server.memory
        self.model = model
        self.terms = terms
        self.b = b
        operators = model.operators()
        self.sls = [op for op in operators if op.kind == "sls"]  # one for each table group, in their order
        self.chain = [op for op in operators if op.kind != "sls"]
        self.nothing_hot = (0.0,) * len(model.tables)
        self.all_hot = (1.0,) * len(model.tables)
        self.gather_bytes = float(model.embedding_read_bytes_per_item)
        self.host = host_gather(self.memory, model.tables, b)
        self.near = self._near_memory() if self.memory.kind == "nmp" and terms.near_memory else None
        self.gather_j = (self.near or self.host).energy_j

    def _near_memory(self) -> Gathering | None:
        """Gathering near memory, where large batches are never slower so, however many cores gather.

        Hardest is the number of cores that just fills the host's bandwidth: there the host takes ``R / b_core`` for an
        item of each core, and near memory the same share of its channels' time, and the issue.
        """
        near = near_gather(self.memory, self.model.tables, self.b)
        alone = self.gather_bytes / (self.cpu.gather_core_gb_s * GIGA)
        share = near.seconds[-1] / self.host.seconds[-1]
        issue_s = self.model.lookups_per_item * self.memory.nmp_issue_ns * NANO
        return near if share + issue_s / alone <= 1 else None

    def _spread(self, cores: Array) -> Array:
        """Cores over which one thread spreads its work."""
        return cores if self.terms.operator_parallelism else np.ones_like(cores)

    # -- sparse part -------------------------------------------------------------------------------------------

    def _sls_overhead(self, cores: Array, hot: Sequence[float]) -> Array:
        """SLS operators are independent of each other, whatever their shapes, [K]."""
        if not self.terms.operator_overhead:
            return np.zeros_like(cores)
        count = sum(op.dispatches for op, share in zip(self.sls, hot, strict=True) if share < 1)
        return np.maximum(1.0, count / self._spread(cores)) * (self.cpu.operator_overhead_us * MICRO)

    def _alone(self, cores: Array, bytes_per_item: float) -> Array:
        """Seconds of a thread of ``cores`` [K] cores to read the rows of a batch with no other at work, [I, K]."""
        return self.b[:, None] * bytes_per_item / (self._spread(cores) * self.cpu.gather_core_gb_s * GIGA)

    def _issue(self, cores: Array, lookups_per_item: float) -> Array:
        """Seconds of one thread to issue the lookups of a batch, [I, K]."""
        return self.b[:, None] * (lookups_per_item * self.memory.nmp_issue_ns * NANO) / self._spread(cores)

    def sparse(self, n: Array, cores: int, hot: Sequence[float] | None = None) -> dict[str, Use]:
        """The sparse stage while n of its threads are busy; near memory it only issues, and the channels gather."""
        tables = self.model.tables
        hot = hot or self.nothing_hot
        whole = hot == self.nothing_hot
        cold = [1 - share for share in hot]
        own = np.array([float(cores)])
        overhead = self._sls_overhead(own, hot)
        if self.near is None:
            host = self.host if whole else host_gather(self.memory, tables, self.b, cold)
            bytes_per_item = sum(c * t.count * t.pooling * t.row_bytes for c, t in zip(cold, tables, strict=True))
            seconds = self._alone(own, bytes_per_item)
            if self.terms.memory_bandwidth:
                seconds = np.maximum(seconds, n[None, :] * host.seconds[:, None])
            return {"sparse": Use(seconds=overhead + seconds, cores=cores, energy_j=host.energy_j)}
        near = self.near if whole else near_gather(self.memory, tables, self.b, cold)
        lookups = sum(c * t.count * t.pooling for c, t in zip(cold, tables, strict=True))
        return {
            "sparse": Use(seconds=overhead + self._issue(own, lookups), cores=cores),
            "nmp": Use(seconds=near.seconds[:, None], energy_j=near.energy_j),
        }

    # -- dense part --------------------------------------------------------------------------------------------

    def _gemm_rate(self, op: Operator) -> Array:
        """FLOP/s of one core on ``op``, [I, 1]."""
        cpu, terms, b = self.cpu, self.terms, self.b[:, None]
        clock = cpu.simd_frequency_ghz if terms.simd_clock else cpu.frequency_ghz
        efficiency = cpu.gemm_efficiency
        if terms.gemm_width:
            efficiency = max(terms.narrow_efficiency, efficiency * op.width / (op.width + terms.half_width))
        rate: Array = np.full_like(b, clock * GIGA * cpu.fp32_flop_per_cycle * efficiency)
        return rate * (b / (b + terms.half_batch)) if terms.gemm_batch else rate

    def _moved_bytes(self, op: Operator) -> float:
        """Bytes of activations that a copy of ``op`` reads and writes per item and step."""
        return READ_AND_WRITE * op.width if self.terms.activations and op.kind == "elementwise" else 0.0

    def _operator_s(self, op: Operator, own: Array) -> Array:
        """Seconds of all copies and steps of ``op`` on ``own`` [K] cores, without its dispatch, [I, K]."""
        rate = self._gemm_rate(op)
        streamed = self.b[:, None] * self._moved_bytes(op) + (op.weight_bytes if self.terms.weight_streaming else 0.0)

        def one_copy(p: Array) -> Array:
            seconds: Array = self.b[:, None] * op.flop_per_item / (rate * (p / (1 + self.terms.split_loss * (p - 1))))
            return np.maximum(seconds, streamed / (p * self.cpu.llc_core_gb_s * GIGA))

        critical = op.steps * one_copy(np.maximum(1.0, own / op.copies))
        if op.copies == 1:
            return critical
        return np.maximum(critical, op.steps * op.copies * one_copy(np.ones(1)) / own)

    def dense_alone(self, cores: Array) -> Array:
        """Dense chain on ``cores`` [K] cores without other threads, [I, K].

        Operators of a chain wait for the one before them; their copies spread over the cores.
        """
        own = self._spread(cores)
        total = np.zeros((self.b.size, cores.size))
        if self.terms.operator_overhead:
            dispatched = sum(op.steps * np.maximum(1.0, op.copies / own) for op in self.chain)
            total = total + dispatched * (self.cpu.operator_overhead_us * MICRO)
        for op in self.chain:
            total = total + self._operator_s(op, own)
        return total

    def _slowdown(self, gathering_cores: Array) -> Array:
        chi = self.terms.pollution_chi if self.terms.pollution and self.near is None else 0.0
        return 1 + chi * np.minimum(1.0, gathering_cores / self.cpu.cores)

    def dense(self, n: Array, sparse_cores: int, alone: Array) -> Array:
        """Dense stage of a pipeline, [I, B]: ``alone`` [I] seconds, slowed by n busy sparse threads."""
        return alone[:, None] * self._slowdown(n * sparse_cores)[None, :]

    # -- whole model -------------------------------------------------------------------------------------------

    def whole_model(self, n: Array, cores: Sequence[int]) -> Array:
        """Whole model in one thread of each of the ``cores`` [O], [O, I, B], while n threads run it.

        The others are somewhere in their service, so the number that gather at one time is taken as its mean:
        ``g = 1 + (n - 1) s`` with s the sparse share of the service time, which depends on g. The fixed point is
        found by iteration from no others (tested against bisection). Threads beyond those that the cores hold are
        not solved for: they repeat the last number that fits.
        """
        fitting = np.minimum(n.size, self.cpu.cores // np.array(cores))
        which = np.repeat(np.arange(len(cores)), fitting)  # one column for each (cores, threads) that fits
        threads = np.concatenate([n[:count] for count in fitting])
        own = np.array(cores, dtype=np.float64)
        overhead = self._sls_overhead(own, self.nothing_hot)[which]
        alone = self.dense_alone(own)[:, which]
        if self.near is None:
            one, shared = self._alone(own, self.gather_bytes)[:, which], self.host.seconds[:, None]
        else:
            one, shared = self._issue(own, self.model.lookups_per_item)[:, which], self.near.seconds[:, None]
        others = np.zeros_like(alone)
        for _ in range(SHARE_ROUNDS):
            sparse = overhead + self._gather(1 + others, one, shared)
            dense = alone * self._slowdown(others * own[which])
            before, others = others, (threads - 1) * (sparse / (sparse + dense))
            if np.abs(others - before).max() <= SHARE_SETTLED:
                break
        total = sparse + dense
        first = np.cumsum(fitting) - fitting
        columns = first[:, None] + np.minimum(np.arange(n.size), fitting[:, None] - 1)
        return np.moveaxis(total[:, columns], 0, 1)

    def _gather(self, gathering: Array, one: Array, shared: Array) -> Array:
        """Seconds to gather the rows of a batch by one thread while ``gathering`` threads do so."""
        if self.near is not None:
            return gathering * shared + one
        return np.maximum(one, gathering * shared) if self.terms.memory_bandwidth else one

    # -- accelerator -------------------------------------------------------------------------------------------

    def _gpu_width(self, op: Operator) -> float:
        """Share of its efficiency that the card reaches on a layer of this width."""
        if not self.terms.gemm_width or op.kind != "gemm":
            return 1.0
        return max(self.terms.narrow_efficiency, op.width / (op.width + self.terms.half_width))

    def gpu(self, gpu: Gpu, n: Array, hot: Sequence[float]) -> Array:
        """Accelerator stage, [I, B], with n busy instances."""
        terms, tables = self.terms, list(zip(self.model.tables, hot, strict=True))
        sls = [(op, share) for op, share in zip(self.sls, hot, strict=True) if share > 0]
        launches = sum(op.dispatches for op in self.chain) + sum(op.dispatches for op, _ in sls)
        flop = sum(op.dispatches * op.flop_per_item / self._gpu_width(op) for op in self.chain)
        flop += sum(share * op.dispatches * op.flop_per_item for op, share in sls)
        moved = sum(op.dispatches * self._moved_bytes(op) for op in self.chain)
        moved += sum(share * t.count * t.pooling * t.row_bytes for t, share in tables)
        indices = sum(4 * t.count * (share * t.pooling + 1) for t, share in tables if share > 0)
        sums = sum(t.count * t.row_bytes * self._sent(share, t.pooling) for t, share in tables)
        compute = flop / (gpu.compute_efficiency * gpu.fp32_tflop_s * 1e12)
        memory = moved / (gpu.gather_efficiency * gpu.memory_gb_s * GIGA)
        arrived = indices + sums + 4 * self.model.dense_input_dim
        link = arrived / (gpu.link_gb_s * GIGA) if terms.gpu_input else 0.0
        work = compute + memory
        sharers = n if terms.gpu_sharing else np.ones_like(n)
        per_item = np.maximum(work + link, sharers * max(work, link))
        overhead = launches * gpu.operator_overhead_us * MICRO if terms.operator_overhead else 0.0
        return overhead + self.b[:, None] * per_item[None, :]

    def _sent(self, hot: float, pooling: int) -> float:
        """Share of a table's bags whose sum crosses the link: those with a cold lookup, ``1 - hot ** pooling``."""
        if hot in (0.0, 1.0) or not self.terms.hot_bags:
            return float(hot < 1)
        all_hot = 1.0
        for _ in range(pooling):
            all_hot *= hot
        return 1 - all_hot

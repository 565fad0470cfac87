"""Safe failure domains: each workload cut into one part per domain, a plain problem again."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from hercules_fast.provisioning.assignment import Assignment
from hercules_fast.provisioning.constraints import Rules
from hercules_fast.provisioning.problem import FloatArray, IntArray, Problem
from hercules_fast.provisioning.solution import Solution

__all__ = ["Parts"]


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """Each workload cut into one part per failure domain, so that any k may fail: a plain problem again."""

    problem: Problem
    workload: IntArray
    """int64 [V], the workload of each part."""
    per_part: FloatArray
    """[V] demand of the part per demand of its workload."""
    minimum: IntArray | None
    """int64 [R, V]."""

    @classmethod
    def of(cls, problem: Problem, rules: Rules) -> Parts:
        """A workload that no more than k domains can run stays whole: nothing could protect it."""
        assert rules.domain is not None
        domain = rules.domain[problem.types]
        able = np.stack([problem.eligible[domain == f].any(axis=0) for f in range(rules.n_domains)])  # [F, W]
        workload, inside, share = [], [], []
        for w, domains in enumerate(able.T):
            some = np.flatnonzero(domains)
            if len(some) > rules.k:
                workload += [w] * len(some)
                inside += [domain == f for f in some]
                share += [1.0 / (len(some) - rules.k)] * len(some)
            else:
                workload.append(w)
                inside.append(np.ones(problem.n_rows, dtype=bool))
                share.append(1.0)
        of = np.array(workload, dtype=np.int64)
        rows = np.stack(inside, axis=1)
        split = dataclasses.replace(
            problem,
            qps=np.where(rows, problem.qps[:, of], 0.0),
            power_w=problem.power_w[:, of],
            demand_qps=problem.demand_qps[:, of] * np.array(share),
            group=None if problem.group is None else problem.group[:, of],
            workloads=tuple(f"{problem.workloads[w]}, part {i}" for i, w in enumerate(workload)),
        )
        minimum = None if rules.minimum is None else np.where(rows, rules.minimum[:, of], 0)
        return cls(split, of, np.array(share), minimum)

    def folded(self, problem: Problem, solution: Solution) -> Solution:
        """The solution of the parts as one of the workloads; objective and bound stay those of the parts."""

        def fold(table: Assignment) -> Assignment:
            workload = self.workload[table.workload]
            order = np.lexsort((workload, table.row, table.interval))
            return dataclasses.replace(
                table,
                shape=(table.shape[0], problem.n_rows, problem.n_workloads),
                row=table.row[order],
                workload=workload[order].astype(np.int32),
                machines=table.machines[order],
            )

        linear = solution.linear
        load_price = np.zeros((len(linear.load_price_w), problem.n_workloads))
        np.add.at(load_price.T, self.workload, (linear.load_price_w * self.per_part).T)
        penalty = np.zeros(load_price.shape)
        np.maximum.at(penalty.T, self.workload, linear.penalty_w_per_qps.T)
        return dataclasses.replace(
            solution,
            linear=dataclasses.replace(
                linear, assignment=fold(linear.assignment), load_price_w=load_price, penalty_w_per_qps=penalty
            ),
            whole=None if solution.whole is None else fold(solution.whole),
        )

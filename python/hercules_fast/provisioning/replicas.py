"""A plan as what a cluster manager applies: one Kubernetes Deployment per workload and server type, with replicas."""

from __future__ import annotations

import json
import re

import numpy as np

from hercules_fast.errors import InputError
from hercules_fast.provisioning.operations import utc_moment
from hercules_fast.provisioning.plan import Plan

__all__ = ["NODE_LABEL", "interval_at", "replicas_yaml"]

NODE_LABEL = "hercules-fast/server-type"
"""Label by which nodes tell their server type."""
_NAME_MAX = 63


def interval_at(plan: Plan, time: str) -> int:
    """The interval of ``plan`` in which ``time`` (ISO 8601, with an offset or in UTC) lies.

    Raises :class:`InputError`.
    """
    allowed = (
        f"a time from {plan.times[0]} to before {plan.times[-1] + np.timedelta64(round(plan.interval_s), 's')} (UTC)"
    )
    try:
        moment = utc_moment(time)
    except (ValueError, OverflowError):
        raise InputError(f"at: is {time!r}; allowed is {allowed}") from None
    t = int(np.searchsorted(plan.times, moment, side="right")) - 1
    if t < 0 or moment >= plan.times[t] + np.timedelta64(round(plan.interval_s), "s"):
        raise InputError(f"at: is {time!r}; allowed is {allowed}")
    return t


def replicas_yaml(plan: Plan, interval: int) -> str:
    """Deployments with the replicas of ``interval``, as YAML documents to apply on top of one's own.

    One per workload and row of a server type that the plan uses in some interval, also where it is 0 in this one: what
    ran before is then switched off. Pods are bound to nodes by the label :data:`NODE_LABEL`. Names and label values are
    those of the plan where Kubernetes allows them, else with "-" for what it does not; the plan's own stand in the
    annotations. Raises :class:`InputError` where two names become the same.
    """
    part = plan.assignment
    used = sorted(set(zip(part.workload.tolist(), part.row.tolist(), strict=True)))
    begin, end = part.starts[interval : interval + 2].tolist()
    now = {
        (w, r): n
        for w, r, n in zip(
            part.workload[begin:end].tolist(),
            part.row[begin:end].tolist(),
            part.machines[begin:end].tolist(),
            strict=True,
        )
    }
    made: dict[str, tuple[str, str]] = {}
    documents = []
    for w, r in used:
        server, workload = plan.servers[int(plan.row_type[r])], plan.workloads[w]
        rank = int((plan.row_type[:r] == plan.row_type[r]).sum())
        name = _name(f"{workload}-{server}" + (f"-{rank}" if rank else ""))
        if name in made:
            raise InputError(
                f"workload {workload!r} on server {server!r} and workload {made[name][0]!r} on server "
                f"{made[name][1]!r} are both called {name!r} in Kubernetes; allowed: names that differ in letters "
                "and digits"
            )
        made[name] = (workload, server)
        documents.append(_deployment(name, server, workload, rank, now.get((w, r), 0), str(plan.times[interval])))
    return "".join(f"---\n{document}" for document in documents)


def _deployment(name: str, server: str, workload: str, rank: int, replicas: int, time: str) -> str:
    """One document; texts are written as JSON strings, which YAML reads alike."""
    quote = json.dumps
    return f"""apiVersion: apps/v1
kind: Deployment
metadata:
  name: {quote(name)}
  annotations:
    hercules-fast/workload: {quote(workload)}
    hercules-fast/server: {quote(server)}
    hercules-fast/configuration: {quote(str(rank))}
    hercules-fast/interval: {quote(f"{time}Z")}
spec:
  replicas: {replicas}
  template:
    spec:
      nodeSelector:
        {NODE_LABEL}: {quote(_label(server))}
"""


def _name(text: str) -> str:
    """A DNS label: lower-case letters, digits and "-", at most 63."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:_NAME_MAX].rstrip("-") or "unnamed"


def _label(text: str) -> str:
    """A label value: letters, digits, "-", "_" and ".", a letter or digit at both ends, at most 63."""
    kept = re.sub(r"[^A-Za-z0-9._-]+", "-", text)[:_NAME_MAX]
    return re.sub(r"^[^A-Za-z0-9]+|[^A-Za-z0-9]+$", "", kept)

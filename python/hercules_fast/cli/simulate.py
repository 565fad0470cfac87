"""``simulate``: tail latencies of one configuration of one workload on one server at a given load."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from hercules_fast.cli.common import (
    ExitCode,
    Verbs,
    add_output_options,
    add_seed_option,
    emit,
    emit_json,
    positive,
    positive_int,
)
from hercules_fast.cli.inputs import add_pair_options, add_sla_option, pair_from
from hercules_fast.errors import InputError

if TYPE_CHECKING:
    from hercules_fast.tables import SchedulingConfig, ServiceTable

PERCENTILES = (50.0, 95.0, 99.0)


def add_parser(verbs: Verbs) -> None:
    """Declare the options of the verb."""
    parser = verbs.add_parser(
        "simulate",
        help="simulate one configuration at one load",
        description="Simulate one scheduling configuration at one load and print its tail latencies. Exits 1 when an "
        "SLA of the workload is missed.",
        epilog="A configuration of several stages takes one number per stage, in order: "
        "--kind cpu-sd --threads 8,5 --cores 1,2. Near-memory channels are a stage too, of one: --threads 8,1,5.",
        allow_abbrev=False,
    )
    add_pair_options(parser)
    add_sla_option(parser)
    parser.add_argument("--qps", type=positive, required=True, metavar="Q", help="load, queries per second")
    parser.add_argument("--kind", default="cpu", metavar="KIND", help="cpu, cpu-sd, gpu or gpu-host-pooling (cpu)")
    parser.add_argument(
        "--threads", type=_counts, required=True, metavar="N[,N]", help="model threads or accelerator instances"
    )
    parser.add_argument("--cores", type=_counts, metavar="N[,N]", help="operator cores per thread of CPU stages (1)")
    parser.add_argument("--batch", type=positive_int, metavar="N", help="most items of a sub-batch (64)")
    parser.add_argument(
        "--fuse-items", type=positive_int, metavar="N", help="most items that an accelerator launches together (1)"
    )
    parser.add_argument("--queries", type=positive_int, default=65536, metavar="N", help="queries to simulate (65536)")
    add_seed_option(parser)
    add_output_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Simulate and print latencies and utilisation."""
    from hercules_fast.report import simulation_text
    from hercules_fast.serving import service_table, simulate

    server, workload = pair_from(args)
    table = service_table(server, workload)
    config = _config(table, args)
    promised = {sla.percentile: sla.latency_ms for sla in workload.slas}
    result = simulate(
        table,
        config,
        sizes=workload.sizes,
        arrivals=workload.arrivals,
        qps=args.qps,
        queries=args.queries,
        seed=args.seed,
        percentiles=tuple(sorted({*PERCENTILES, *promised})),
    )
    if args.json:
        emit_json(result.to_dict())
    else:
        emit(simulation_text(result, slas=workload.slas))
    reached = dict(zip(result.percentiles, result.latency_ms, strict=True))
    met = all(reached[percentile] <= limit_ms for percentile, limit_ms in promised.items())
    return ExitCode.DONE if met else ExitCode.NOT_MET


def _counts(text: str) -> tuple[int, ...]:
    """Argument type: whole numbers from 1 with commas between them."""
    return tuple(positive_int(part) for part in text.split(","))


def _config(table: ServiceTable, args: argparse.Namespace) -> SchedulingConfig:
    """The configuration of ``table`` that the options describe.

    Raises:
        InputError: naming the option that does not fit, and what is allowed.
    """
    kinds = list(dict.fromkeys(v.kind for v in table.variants))
    if args.kind not in kinds:
        raise InputError(
            f"--kind: is {args.kind!r}; allowed for {table.workload} on {table.server} are {', '.join(kinds)}"
        )
    variants = [k for k, v in enumerate(table.variants) if v.kind == args.kind]
    used = [s for s in range(len(table.stages)) if table.uses(variants[0], s)]
    names = ", ".join(table.stages[s].name for s in used)
    if len(args.threads) != len(used):
        raise InputError(f"--threads: has {len(args.threads)} numbers; allowed is one per stage of the kind: {names}")
    offered = {tuple(c for c in table.variants[k].operator_cores if c): k for k in variants}
    cores = args.cores or (1,) * len(next(iter(offered)))
    if cores not in offered:
        choices = " or ".join(",".join(map(str, choice)) or "none" for choice in offered)
        raise InputError(f"--cores: is {','.join(map(str, cores))}; allowed for kind {args.kind} are {choices}")
    threads = [0] * len(table.stages)
    for stage, count in zip(used, args.threads, strict=True):
        threads[stage] = count
    launches = any(table.stages[s].unit == "fused" for s in used)
    if args.fuse_items and not launches:
        raise InputError(f"--fuse-items: kind {args.kind} has no accelerator stage; leave it out")
    return table.config(
        offered[cores],
        tuple(threads),
        batch=args.batch or min(64, table.max_items),
        fuse_items=args.fuse_items or 1,
    )

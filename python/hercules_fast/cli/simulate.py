"""``simulate``: tail latencies of a system of one's own, or of one configuration of a workload on a server."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hercules_fast.cli.common import (
    ExitCode,
    Verbs,
    add_output_options,
    add_seed_option,
    check_output_file,
    emit,
    emit_json,
    positive,
    positive_int,
    say,
)
from hercules_fast.cli.inputs import add_fleet_option, add_sla_option, pair_from
from hercules_fast.errors import InputError

if TYPE_CHECKING:
    from hercules_fast.queueing import Simulation
    from hercules_fast.tables import SchedulingConfig, ServiceTable

PERCENTILES = (50.0, 95.0, 99.0)
QUERIES = 1_000_000
_OF_A_PAIR = ("server", "workload", "threads", "qps")
"""Options that a pair needs."""
_ONLY_OF_A_PAIR = ("server", "workload", "threads", "cores", "batch", "fuse_items", "sla")


def add_parser(verbs: Verbs) -> None:
    """Declare the options of the verb."""
    parser = verbs.add_parser(
        "simulate",
        help="simulate one system at one load, or over many loads",
        description="Simulate a system that a file describes, or one scheduling configuration of a workload on a "
        "server, and print its tail latencies with their 95 %% intervals. Exits 1 when an SLA is missed.",
        epilog="A configuration of several stages takes one number per stage, in order: "
        "--kind cpu-sd --threads 8,5 --cores 1,2. Near-memory channels are a stage too, of one: --threads 8,1,5.",
        allow_abbrev=False,
    )
    parser.add_argument("--config", metavar="FILE", help="a system, its queries and SLAs (.toml)")
    parser.add_argument("--qps", type=positive, metavar="Q", help="load, queries per second (of --config: the file's)")
    pair = parser.add_argument_group("a workload on a server, instead of --config")
    pair.add_argument("--server", metavar="S", help="server type of the fleet")
    pair.add_argument("--workload", metavar="W", help="workload of the fleet")
    add_fleet_option(pair)
    add_sla_option(pair)
    pair.add_argument("--kind", default="cpu", metavar="KIND", help="cpu, cpu-sd, gpu or gpu-host-pooling (cpu)")
    pair.add_argument("--threads", type=_counts, metavar="N[,N]", help="model threads or accelerator instances")
    pair.add_argument("--cores", type=_counts, metavar="N[,N]", help="operator cores per thread of CPU stages (1)")
    pair.add_argument("--batch", type=positive_int, metavar="N", help="most items of a sub-batch (64)")
    pair.add_argument(
        "--fuse-items", type=positive_int, metavar="N", help="most items that an accelerator launches together (1)"
    )
    parser.add_argument(
        "--queries", type=positive_int, default=QUERIES, metavar="N", help=f"queries to simulate ({QUERIES})"
    )
    parser.add_argument("--load-curve", type=positive_int, metavar="N", help="N loads up to 95 %% of the bottleneck")
    parser.add_argument("--plot", metavar="FILE", help="draw the load curve (.svg or .png)")
    parser.add_argument("--overwrite", action="store_true", help="replace the file that --plot names")
    add_seed_option(parser)
    add_output_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Simulate and print latencies and stations, at one load or along a curve."""
    target = None
    if args.plot is not None:
        if args.load_curve is None:
            raise InputError("--plot: draws the curve of --load-curve, which is not given")
        inputs = [] if args.config is None else [args.config]
        target = check_output_file(args.plot, suffixes=(".svg", ".png"), inputs=inputs, overwrite=args.overwrite)
        from hercules_fast.plotting.style import require_matplotlib

        require_matplotlib()
    simulation = _of_file(args) if args.config is not None else _of_pair(args)
    promised = {sla.percentile: sla.latency_ms for sla in simulation.slas}
    percentiles = tuple(sorted({*PERCENTILES, *promised}))
    options = {"queries": args.queries, "seed": args.seed, "percentiles": percentiles}
    if args.load_curve is not None:
        return _curve(args, simulation, target, options)
    from hercules_fast.queueing import simulate
    from hercules_fast.report import simulation_text

    result = simulate(simulation.system, simulation.queries, **options)
    if args.json:
        emit_json(result.to_dict())
    else:
        emit(simulation_text(result, simulation.name, slas=simulation.slas))
    reached = dict(zip(result.percentiles, result.latency_ms, strict=True))
    met = all(reached[sla.percentile] <= sla.latency_ms for sla in simulation.slas)
    return ExitCode.DONE if met else ExitCode.NOT_MET


def _curve(args: argparse.Namespace, simulation: Simulation, target: Path | None, options: dict[str, Any]) -> int:
    from hercules_fast.queueing import load_curve
    from hercules_fast.report import load_curve_text

    results = load_curve(simulation.system, simulation.queries, args.load_curve, **options)
    if args.json:
        emit_json([result.to_dict() for result in results])
    else:
        emit(load_curve_text(results, simulation.name))
    if target is not None:
        from hercules_fast.plotting import plot_load_curve

        plot_load_curve(results, target)
        if not args.quiet:
            say(f"written to {target}")
    return ExitCode.DONE


def _of_file(args: argparse.Namespace) -> Simulation:
    """What ``--config`` describes, at the load of ``--qps`` if it is given."""
    from hercules_fast.queueing import load_simulation

    given = [_option(name) for name in _ONLY_OF_A_PAIR if getattr(args, name) is not None]
    if given:
        raise InputError(f"{', '.join(given)}: given beside --config; the file says all of it")
    simulation = load_simulation(args.config)
    return simulation if args.qps is None else replace(simulation, queries=replace(simulation.queries, qps=args.qps))


def _of_pair(args: argparse.Namespace) -> Simulation:
    """One configuration of a workload on a server."""
    from hercules_fast.queueing import Queries, Simulation, System
    from hercules_fast.serving import service_table

    needed = [name for name in _OF_A_PAIR if not (name == "qps" and args.load_curve)]
    missing = [_option(name) for name in needed if getattr(args, name) is None]
    if missing:
        raise InputError(f"{', '.join(missing)}: not given; needed for a workload on a server (or give --config FILE)")
    server, workload = pair_from(args)
    table = service_table(server, workload)
    config = _config(table, args)
    queries = Queries(qps=args.qps or 1.0, arrivals=workload.arrivals, sizes=workload.sizes)
    return Simulation(
        name=config.describe(), system=System.from_table(table, config), queries=queries, slas=workload.slas
    )


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


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

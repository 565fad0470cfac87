"""``measure``: service times of a model on this machine, as a service table."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from hercules_fast.cli.common import (
    ExitCode,
    Progress,
    Verbs,
    add_output_options,
    add_seed_option,
    check_output_file,
    emit,
    emit_json,
    name_list,
    not_negative,
    positive,
    positive_int,
    say,
)
from hercules_fast.cli.inputs import add_sla_option, model_files, model_from, slas_from
from hercules_fast.errors import InputError, InterruptedRun

if TYPE_CHECKING:
    from hercules_fast.measure import ServiceMeasurement
    from hercules_fast.models import Model
    from hercules_fast.profiling import SearchResult
    from hercules_fast.traffic import Workload

BACKENDS = ("auto", "onnxruntime", "numpy")
STAGES = {"whole": ("model",), "pipeline": ("sparse", "dense"), "both": ("model", "sparse", "dense")}


def add_parser(verbs: Verbs) -> None:
    """Declare the options of the verb."""
    parser = verbs.add_parser(
        "measure",
        help="measure the service times of a model on this machine",
        description="Build a model with random weights and measure how long a batch takes, by batch, cores inside a "
        "thread and threads at the same time. Exits 4 when the machine was too noisy to certify the figures.",
        allow_abbrev=False,
    )
    parser.add_argument("--model", required=True, metavar="NAME|FILE", help="of the catalogue, a TOML or a JSON file")
    parser.add_argument("--out", metavar="FILE", help="service table to write (.npz), for search --table")
    parser.add_argument(
        "--csv", metavar="FILE", help="write the points as ServiceTable.from_csv reads them (with --device: to look at)"
    )
    parser.add_argument(
        "--journal", metavar="FILE", help="take down every visit there; with the same file a later run goes on"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the files that --out, --csv, --search name")
    grid = parser.add_argument_group("what is measured")
    grid.add_argument("--batches", type=_numbers, metavar="A,B", help="items (1, 2, 4, ... 1024)")
    grid.add_argument("--operator-cores", type=_numbers, metavar="A,B", help="cores inside a thread (1, 2, 4, ...)")
    grid.add_argument("--threads", type=_numbers, metavar="A,B", help="threads at the same time (1, 2, 4, ...)")
    grid.add_argument("--stages", choices=STAGES, default="whole", help="the whole model, a pipeline, or both (whole)")
    grid.add_argument("--seconds", type=positive, default=30.0, metavar="S", help="how long to measure (30)")
    engine = parser.add_argument_group("the model on this machine")
    engine.add_argument("--backend", choices=BACKENDS, default="auto", help="of the dense layers (auto)")
    engine.add_argument(
        "--device", metavar="cuda[:N]", help="the whole model there, in PyTorch; --threads are its instances"
    )
    engine.add_argument("--rows-scale", type=positive, metavar="SHARE", help="of every table's rows (what fits)")
    engine.add_argument("--max-bytes", type=positive_int, metavar="N", help="most of all tables (a quarter of memory)")
    engine.add_argument("--server", default="this-host", metavar="NAME", help="what this machine is called (this-host)")
    engine.add_argument("--idle-w", type=not_negative, metavar="W", help="watts at rest (measured, or assumed)")
    engine.add_argument("--tdp-w", type=not_negative, metavar="W", help="watts with all cores busy")
    found = parser.add_argument_group("what follows from it")
    found.add_argument(
        "--search",
        nargs="?",
        const="",
        metavar="FILE",
        help="search the best configuration; FILE (.json): write its row as an efficiency table",
    )
    add_sla_option(found)
    add_seed_option(parser)
    add_output_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Measure, print and save; what was measured before Ctrl-C is saved too."""
    from hercules_fast.report import search_text

    files = _Files(args)
    model = model_from(args.model)
    workload = None if args.search is None else _workload(model, args.sla)
    if args.search is None and args.sla is not None:
        raise InputError("--sla: given without --search")
    measure = _on_host(args, model) if args.device is None else _on_device(args, model)
    try:
        with Progress("measuring", quiet=args.quiet, color=not args.no_color) as progress:
            found = measure(
                batches=args.batches,
                seconds=args.seconds,
                server=args.server,
                idle_w=args.idle_w,
                tdp_w=args.tdp_w,
                journal=args.journal,
                progress=progress,
            )
    except InterruptedRun as stop:
        if stop.partial is not None:
            files.save(stop.partial)
        raise
    files.save(found)
    result = None if workload is None else found.search(workload, seed=args.seed)
    if result is not None and files.row is not None:
        found.efficiency(result).save(files.row)
    if args.json:
        emit_json(found.to_dict() | ({} if result is None else {"search": result.to_dict()}))
    else:
        emit(found.explain() + ("" if result is None else f"\n\n{search_text(result)}"))
    if not args.quiet:
        for target in files.all():
            say(f"written to {target}")
    return _exit_code(found, result)


def _on_host(args: argparse.Namespace, model: Model) -> Callable[..., ServiceMeasurement]:
    from hercules_fast.measure import Engine, measure_service

    engine = Engine.build(
        model,
        rows_scale=args.rows_scale,
        max_bytes=args.max_bytes,
        backend=args.backend,
        max_items=max(args.batches) if args.batches else 1024,
        seed=args.seed,
    )
    stages = STAGES[args.stages]
    return partial(measure_service, engine, operator_cores=args.operator_cores, threads=args.threads, stages=stages)


def _on_device(args: argparse.Namespace, model: Model) -> Callable[..., ServiceMeasurement]:
    from hercules_fast.measure import Accelerator, measure_accelerator

    host = {
        "--backend": args.backend != "auto",
        "--operator-cores": args.operator_cores,
        "--stages": args.stages != "whole",
    }
    if given := [name for name, value in host.items() if value]:
        raise InputError(f"{', '.join(given)}: given with --device, where it has no meaning")
    accelerator = Accelerator.build(
        model,
        device=args.device,
        rows_scale=args.rows_scale,
        max_bytes=args.max_bytes,
        max_items=max(args.batches) if args.batches else 8192,
        seed=args.seed,
    )
    return partial(measure_accelerator, accelerator, instances=args.threads)


def _exit_code(found: ServiceMeasurement, result: SearchResult | None) -> ExitCode:
    if not found.certified:
        return ExitCode.NOISY
    return ExitCode.DONE if result is None or result.row.status == "ok" else ExitCode.NOT_MET


class _Files:
    """The places to write, proven before the work."""

    def __init__(self, args: argparse.Namespace):
        inputs = model_files(args.model)

        def place(path: str | None, suffix: str) -> Path | None:
            return check_output_file(path, suffixes=(suffix,), inputs=inputs, overwrite=args.overwrite)

        self.table = place(args.out, ".npz")
        self.points = place(args.csv, ".csv")
        self.row = place(args.search or None, ".json")
        self.journal = check_output_file(args.journal, inputs=inputs, overwrite=True)
        if self.journal is not None and self.journal.resolve() in [file.resolve() for file in self.all()]:
            raise InputError(
                f"--journal: is {args.journal!r}, which another option names, too; allowed is another file"
            )

    def all(self) -> list[Path]:
        """Those that were asked for."""
        return [path for path in (self.table, self.points, self.row) if path is not None]

    def save(self, found: ServiceMeasurement) -> None:
        """Write table and points, as far as there are any."""
        from hercules_fast.tables import write_atomically

        if self.points is not None:
            write_atomically(self.points, found.to_csv().encode())
        if self.table is not None and found.table is not None:
            found.save(self.table)
        if not found.complete:
            kept = (self.points, self.table if found.table else None, self.journal)
            written = [str(path) for path in kept if path is not None]
            say(f"what was measured is saved in {', '.join(written) or 'no file: --csv or --journal would name one'}")


def _workload(model: Model, sla: str | None) -> Workload:
    """The model with the catalogue's traffic and its own targets, or what ``--sla`` asks for."""
    from hercules_fast.traffic import workload_of

    workload = workload_of(model, slas_from(model, sla))
    if not workload.slas:
        raise InputError(f"--sla: not given, and {model.name!r} has no latency target; allowed is such as p95:20ms")
    return workload


def _numbers(text: str) -> list[int]:
    """Argument type: whole numbers from 1 with commas between them."""
    return [positive_int(part) for part in name_list(text)]

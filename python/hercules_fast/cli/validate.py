"""``validate``: predict what a model does on this machine, run it under load, and lay the two side by side."""

from __future__ import annotations

import argparse
from contextlib import ExitStack
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
    output_directory,
    positive,
    say,
)
from hercules_fast.cli.inputs import model_from, slas_from
from hercules_fast.errors import InterruptedRun, OutputError

if TYPE_CHECKING:
    from hercules_fast.measure import Validation

BACKENDS = ("auto", "onnxruntime", "numpy")


def add_parser(verbs: Verbs) -> None:
    """Declare the options of the verb."""
    parser = verbs.add_parser(
        "validate",
        help="predict what a model does on this machine, run it under load, and compare",
        description="Build the model with random weights, measure its service times, search the best configuration and "
        "predict its max load, then run it at several loads and compare latencies and throughput at three levels: "
        "(a) the queue, with each run's own service times; (b) the service model with fresh arrivals; (c) where the "
        "SLA is crossed. Exits 4 when the machine was too noisy to certify that, 1 when a level was missed.",
        allow_abbrev=False,
    )
    parser.add_argument("--model", default="dlrm-rmc1", metavar="NAME|FILE", help="model of the catalogue or of a file")
    parser.add_argument(
        "--sla", metavar="pNN[:MS]", help="such as p99 (same latency) or p99:25ms; default: the model's"
    )
    parser.add_argument(
        "--config",
        metavar="TEXT",
        help="'model 1x1, batch 64' (threads x cores) or 'sparse 1x1, dense 1x1, batch 64, buffer 8'; default: the "
        "search's choice",
    )
    parser.add_argument(
        "--loads",
        type=_shares,
        default=(0.5, 0.7, 0.85),
        metavar="A,B",
        help="shares of the predicted max load (0.5,0.7,0.85); 1.0 and 1.1 are always run",
    )
    parser.add_argument(
        "--seconds", type=positive, metavar="S", help="length of each run; default: what --budget leaves"
    )
    parser.add_argument("--budget", type=positive, default=114.0, metavar="S", help="seconds for everything (114)")
    engine = parser.add_argument_group("the model on this machine")
    engine.add_argument("--backend", choices=BACKENDS, default="auto", help="of the dense layers (auto)")
    engine.add_argument(
        "--rows-scale", type=positive, metavar="SHARE", help="of the rows of every table; default: what fits"
    )
    parser.add_argument("--out", metavar="DIR", help="new directory for report, figures of every run, and plots")
    parser.add_argument("--plot", metavar="FILE", help="draw latency against load (.svg or .png)")
    parser.add_argument("--overwrite", action="store_true", help="replace the file that --plot names")
    add_seed_option(parser)
    add_output_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Validate, print and save what was found; what was run before Ctrl-C is saved too."""
    from hercules_fast.measure import validate
    from hercules_fast.report import validation_text

    target = check_output_file(args.plot, suffixes=(".svg", ".png"), overwrite=args.overwrite)
    if target is not None:
        from hercules_fast.plotting.style import require_matplotlib

        require_matplotlib()
    model = model_from(args.model)
    slas = slas_from(model, args.sla)
    with ExitStack() as stack:
        folder = None if args.out is None else stack.enter_context(output_directory(args.out))
        try:
            with Progress("validating", quiet=args.quiet, color=not args.no_color) as progress:
                found = validate(
                    model,
                    config=args.config,
                    sla=slas,
                    loads=args.loads,
                    seconds=args.seconds,
                    time_budget_s=args.budget,
                    seed=args.seed,
                    rows_scale=args.rows_scale,
                    backend=args.backend,
                    out=folder,
                    progress=progress,
                )
        except InterruptedRun as stop:
            if folder is not None and stop.partial is not None:
                _save(stop.partial, folder, quiet=args.quiet)
                say(f"what was run is saved in {folder}")
            raise
        if args.json:
            emit_json(found.to_dict())
        else:
            emit(validation_text(found))
        if folder is not None:
            _save(found, folder, quiet=args.quiet)
        if target is not None and found.points:
            from hercules_fast.plotting import plot_validation

            plot_validation(found, target)
        for place in (folder, target):
            if place is not None and not args.quiet:
                say(f"written to {place}")
    return _exit_code(found)


def _exit_code(found: Validation) -> ExitCode:
    if not found.certified:
        return ExitCode.NOISY
    held = found.complete and all(level.passed for level in found.levels)
    return ExitCode.DONE if held else ExitCode.NOT_MET


def _save(found: Validation, folder: Path, *, quiet: bool) -> None:
    """Beside what the run itself wrote: the last state, the report, and plots where matplotlib is there."""
    from hercules_fast.plotting import PlotsUnavailableError, plot_validation
    from hercules_fast.report import validation_text
    from hercules_fast.tables import write_atomically

    write_atomically(folder / "validation.json", found.to_json().encode())
    write_atomically(folder / "report.md", f"```text\n{validation_text(found)}\n```\n".encode())
    if not found.points:
        return
    try:
        (folder / "plots").mkdir(exist_ok=True)
        plot_validation(found, folder / "plots" / "latency.svg")
    except PlotsUnavailableError as error:
        if not quiet:
            say(str(error))
    except OSError as error:
        raise OutputError(f"cannot make {folder / 'plots'}: {error.strerror or error}") from error


def _shares(text: str) -> tuple[float, ...]:
    """Argument type: numbers above 0 with commas between them."""
    return tuple(positive(part) for part in name_list(text))

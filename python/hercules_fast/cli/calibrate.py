"""``calibrate``: constants of hosts fitted to measured run times, and how far to trust them."""

from __future__ import annotations

import argparse

from hercules_fast.cli.common import (
    ExitCode,
    Progress,
    Verbs,
    add_output_options,
    emit,
    emit_json,
    output_directory,
)


def add_parser(verbs: Verbs) -> None:
    """Declare the options of the verb."""
    parser = verbs.add_parser(
        "calibrate",
        help="fit the constants of hosts to measured run times",
        description="Fit the constants of every host to run times over batches, and print the error of each curve: of "
        "the fit, with each batch left out, with each model left out. A CPU host ran on one core.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "curves",
        nargs="?",
        metavar="CURVES.csv",
        help="columns model, host, batch, run_ms_median (twelve public curves)",
    )
    parser.add_argument(
        "--server", action="append", default=[], metavar="FILE", help="a host that the catalogue does not have"
    )
    parser.add_argument(
        "--model",
        action="append",
        default=[],
        metavar="FILE",
        help="a model that the catalogue lacks",
    )
    parser.add_argument("--out", metavar="DIR", help="write a file for every calibrated processor and accelerator")
    parser.add_argument("--overwrite", action="store_true", help="let --out be a folder that holds files")
    add_output_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Calibrate, print the errors, and write the descriptors."""
    from contextlib import nullcontext

    from hercules_fast.hardware import load_server, toml_text
    from hercules_fast.models import load_any_model
    from hercules_fast.profiling import calibrate
    from hercules_fast.report import calibration_text
    from hercules_fast.tables import write_atomically

    servers = [load_server(path) for path in args.server]
    models = [load_any_model(path) for path in args.model]
    folder = output_directory(args.out, overwrite=args.overwrite) if args.out is not None else nullcontext()
    with folder as target:
        with Progress("calibrating", quiet=args.quiet, color=not args.no_color) as progress:
            found = calibrate(args.curves, servers=servers, models=models, progress=progress)
        if target is not None:
            for host in found.hosts:
                write_atomically(target / f"{host.part.name.lower()}.toml", toml_text(host.part).encode())
    if args.json:
        emit_json(found.to_dict())
    else:
        emit(calibration_text(found))
    return ExitCode.DONE

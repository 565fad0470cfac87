"""``memory``: near-memory processing over ranks, row sizes and cache sizes, cycle by cycle."""

from __future__ import annotations

import argparse

from hercules_fast.cli.common import (
    ExitCode,
    Progress,
    Verbs,
    add_output_options,
    add_overwrite_option,
    add_seed_option,
    add_threads_option,
    check_output_file,
    emit,
    emit_json,
    positive_int,
    say,
    whole_number,
)


def add_parser(verbs: Verbs) -> None:
    """Declare the options of the verb."""
    parser = verbs.add_parser(
        "memory",
        help="simulate near-memory processing over ranks, row sizes and caches",
        description="Gather the same embedding bags near memory (after RecNMP) and on a host with the same ranks, on "
        "one channel of cycle-level DRAM, and print how they compare.",
        allow_abbrev=False,
    )
    parser.add_argument("--standard", default="DDR4-2400R", metavar="NAME", help="DRAM standard, or a .toml file")
    parser.add_argument("--ranks", type=_counts, default=(2, 4, 8), metavar="N[,N]", help="ranks of a channel (2,4,8)")
    parser.add_argument(
        "--vector-bytes", type=_counts, default=(64, 128, 256), metavar="N[,N]", help="bytes of a row (64,128,256)"
    )
    parser.add_argument(
        "--cache-kb", type=_sizes, default=(0, 128), metavar="N[,N]", help="KiB of cache at each rank (0,128)"
    )
    parser.add_argument("--exponent", type=_exponent, default=0.9, metavar="S", help="Zipf law of the rows (0.9)")
    parser.add_argument("--pooling", type=positive_int, default=80, metavar="N", help="lookups of a bag (80)")
    parser.add_argument("--bags", type=positive_int, default=32, metavar="N", help="bags of each of 8 tables (32)")
    parser.add_argument("--packet", type=whole_number, default=640, metavar="N", help="lookups between barriers (640)")
    parser.add_argument("--out", metavar="FILE", help="draw the speedups (.svg or .png)")
    add_overwrite_option(parser)
    add_seed_option(parser)
    add_threads_option(parser)
    add_output_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Sweep, print the table, draw the figure."""
    from hercules_fast.memory import Variant, load_standard, sweep_memory
    from hercules_fast.report import memory_text

    target = check_output_file(args.out, suffixes=(".svg", ".png"), overwrite=args.overwrite)
    if target is not None:
        from hercules_fast.plotting.style import require_matplotlib

        require_matplotlib()
    standard = load_standard(args.standard) if args.standard.endswith(".toml") else args.standard
    stages = [Variant(name=_stage(kb), cache_kb=kb, order="tables", hot_threshold=1) for kb in args.cache_kb]
    with Progress("simulating", quiet=args.quiet, color=not args.no_color) as progress:
        sweep = sweep_memory(
            standard=standard,
            ranks=args.ranks,
            vector_bytes=args.vector_bytes,
            stages=stages,
            pooling=args.pooling,
            bags=args.bags,
            packet=args.packet,
            exponent=args.exponent,
            seed=args.seed,
            threads=args.threads,
            progress=progress,
        )
    if args.json:
        emit_json(sweep.to_dict())
    else:
        emit(memory_text(sweep))
    if target is not None:
        from hercules_fast.plotting import plot_memory

        plot_memory(sweep, target)
        if not args.quiet:
            say(f"written to {target}")
    return ExitCode.DONE


def _stage(kb: int) -> str:
    return f"{kb} KiB" if kb else "no cache"


def _counts(text: str) -> tuple[int, ...]:
    """Argument type: whole numbers from 1 with commas between them."""
    return tuple(positive_int(part) for part in text.split(","))


def _sizes(text: str) -> tuple[int, ...]:
    """Argument type: whole numbers from 0 with commas between them."""
    return tuple(whole_number(part) for part in text.split(","))


def _exponent(text: str) -> float:
    """Argument type: 0 to 10, as ``zipf_rows`` takes it."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 10:
        raise argparse.ArgumentTypeError(f"is {text!r}; allowed is a number from 0 to 10")
    return value

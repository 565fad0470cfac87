"""``host``: what this machine is, how fast its memory is, how quiet it is; descriptors of it and of other machines."""

from __future__ import annotations

import argparse
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hercules_fast.cli.common import (
    ExitCode,
    Progress,
    Verbs,
    add_output_options,
    emit,
    emit_json,
    output_directory,
    positive,
    save_partial,
    say,
)
from hercules_fast.errors import InputError

if TYPE_CHECKING:
    from hercules_fast.hardware import Cpu, Gpu, Server
    from hercules_fast.host import MemoryLimits

NOISE_S = 0.5
DEFAULT_LIKE, DEFAULT_CARD, DEFAULT_NAME = "T2", "V100", "this-host"


def add_parser(verbs: Verbs) -> None:
    """Declare the options of the verb."""
    parser = verbs.add_parser(
        "host",
        help="say what this machine is; describe it, or another, as a server type",
        description="Say what this machine is, as this process may use it: CPU, usable cores and what limits them, "
        "caches, memory, huge pages, energy counters. With --emit, measure it and write a server type of it for "
        "fleets; with --lscpu and --nvidia-smi, describe another machine by what its own tools printed.",
        allow_abbrev=False,
    )
    parser.add_argument("--probe", action="store_true", help="also measure memory speed and noise (about 15 s)")
    parser.add_argument("--emit", metavar="DIR", help="write descriptors (server, CPU, memory, accelerator) as TOML")
    parser.add_argument("--overwrite", action="store_true", help="let --emit be a folder that holds files")
    described = parser.add_argument_group("the server type")
    described.add_argument("--name", metavar="NAME", help="of the server (this-host, or another machine's CPU)")
    described.add_argument("--like", metavar="SERVER", help="of the catalogue; stands in for what is not known (T2)")
    described.add_argument("--standard", metavar="NAME", help="DRAM standard of the catalogue (that of --like)")
    described.add_argument("--tdp-w", type=positive, metavar="W", help="of the CPU (RAPL's, or by cores from --like)")
    described.add_argument("--base-w", type=positive, metavar="W", help="of the rest of the server (that of --like)")
    others = parser.add_argument_group("another machine")
    others.add_argument("--lscpu", metavar="FILE", help="what `lscpu -J` wrote there")
    others.add_argument(
        "--nvidia-smi",
        metavar="FILE",
        help="what `nvidia-smi --query-gpu=name,memory.total,power.max_limit,clocks.max.sm --format=csv` wrote there",
    )
    add_output_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Describe another machine where files of one are given, else this one."""
    other = args.lscpu is not None or args.nvidia_smi is not None
    named = {"--name": args.name, "--base-w": args.base_w}
    ours = {"--standard": args.standard, "--tdp-w": args.tdp_w}
    if other:
        _refuse({"--probe": args.probe, **ours}, "with files of another machine; allowed for this one only")
        _refuse(named if args.lscpu is None else {}, "without --lscpu, which a server needs")
    elif args.emit is None:
        _refuse({"--like": args.like, **named, **ours}, "without --emit, which writes a server type")
    args.like = args.like or DEFAULT_LIKE
    return _other(args) if other else _this(args)


def _refuse(options: dict[str, Any], why: str) -> None:
    if given := [name for name, value in options.items() if value]:
        raise InputError(f"{', '.join(given)}: given {why}")


def _this(args: argparse.Namespace) -> int:
    from hercules_fast.host import describe, save_descriptors

    if args.emit is not None:
        from hercules_fast.host.alike import check_name
        from hercules_fast.measure.descriptor import known_parts

        check_name(args.name or DEFAULT_NAME)
        known_parts(args.like, args.standard)
    folder = output_directory(args.emit, overwrite=args.overwrite) if args.emit is not None else nullcontext()
    with folder as target:
        measured = args.probe or target is not None
        facts = describe(noise_s=NOISE_S if measured else None)
        limits, trouble, server = None, "", None
        try:
            with Progress("measuring", quiet=args.quiet, color=not args.no_color) as progress:
                if measured:
                    limits, trouble = _limits(progress)
                if target is not None:
                    server = _server(args, limits, trouble, progress)
        except KeyboardInterrupt as stop:
            partial = limits or getattr(stop, "partial", None)
            if target is not None:
                save_partial(partial, target / "memory-limits.partial.json")
            elif partial is not None and partial.limits:
                emit(f"{facts}\n\n{partial}")
            raise
        files = save_descriptors(target, [server]) if target is not None and server is not None else ()
    document: dict[str, Any] = facts.to_dict()
    if measured:
        document["memory_limits"] = limits.to_dict() if limits else None
        document["memory_limits_trouble"] = trouble
    text = [str(facts)]
    if limits or trouble:
        text += ["", str(limits) if limits else f"memory speed  not measured: {trouble}"]
    return _report(args, document, "\n".join(text), files)


def _limits(progress: Progress) -> tuple[MemoryLimits | None, str]:
    """How fast the memory is, or why that cannot be said."""
    from hercules_fast.host import memory_limits

    try:
        return memory_limits(row_bytes=(64, 256), progress=progress), ""
    except MemoryError as error:
        return None, str(error)


def _server(args: argparse.Namespace, limits: MemoryLimits | None, trouble: str, progress: Progress) -> Server:
    from hercules_fast.measure import server_descriptor

    if limits is None:
        raise InputError(f"--emit: the memory's speed cannot be measured: {trouble}")
    return server_descriptor(
        name=args.name or DEFAULT_NAME,
        like=args.like,
        standard=args.standard,
        tdp_w=args.tdp_w,
        base_w=args.base_w,
        limits=limits,
        progress=progress,
    )


def _other(args: argparse.Namespace) -> int:
    from hercules_fast import hardware
    from hercules_fast.host import read_lscpu_json, read_nvidia_smi_csv, save_descriptors, server_of

    like = hardware.server(args.like)
    folder = output_directory(args.emit, overwrite=args.overwrite) if args.emit is not None else nullcontext()
    with folder as target:
        card = like.gpu.name if like.gpu is not None else DEFAULT_CARD
        gpus = read_nvidia_smi_csv(args.nvidia_smi, like=card) if args.nvidia_smi is not None else ()
        parts: list[Cpu | Gpu | Server] = [*gpus]
        if args.lscpu is not None:
            cpu = read_lscpu_json(args.lscpu, name=args.name, like=like.cpu.name)
            alone = gpus[0] if len(gpus) == 1 else None
            parts += [cpu, server_of(cpu, alone, like=like, base_w=args.base_w)]
        files = save_descriptors(target, parts) if target is not None else ()
    texts = [hardware.toml_text(part) for part in parts]
    return _report(args, {"parts": texts}, "\n".join(texts), files)


def _report(args: argparse.Namespace, document: dict[str, Any], text: str, files: tuple[Path, ...]) -> int:
    if args.json:
        emit_json({**document, "files": [str(path) for path in files]})
    else:
        emit(text)
    if files and not args.quiet:
        say("\n".join(f"written to {path}" for path in files))
    return ExitCode.DONE

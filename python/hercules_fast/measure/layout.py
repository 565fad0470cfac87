"""Scheduling configurations as text and on CPUs: which threads run where, and who hands in the queries."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal

from hercules_fast.errors import InputError
from hercules_fast.tables import SchedulingConfig, ServiceTable

__all__ = ["Cpus", "Wanted", "as_wanted", "parse_config"]

StageOf = Literal["model", "sparse", "dense"]
STAGES: tuple[StageOf, ...] = ("model", "sparse", "dense")
ALLOWED = "such as 'model 1x1, batch 64' or 'sparse 2x1, dense 1x1, batch 64, buffer 8' (threads x cores of each)"

_POOL = re.compile(r"(model|sparse|dense) (\d{1,4})(?:x(\d{1,4}))?\Z")
_NUMBER = re.compile(r"(batch|buffer) (\d{1,7})\Z")


@dataclass(frozen=True, slots=True)
class Wanted:
    """A configuration that was asked for, before there is a service table that it belongs to."""

    pools: tuple[tuple[StageOf, int, int], ...]
    """(stage, threads, operator cores) in the order of the stages."""
    batch: int
    buffer: int | None = None

    @property
    def cores(self) -> int:
        """Cores that its threads have for themselves."""
        return sum(threads * cores for _, threads, cores in self.pools)

    @property
    def stages(self) -> tuple[StageOf, ...]:
        """Stages in use."""
        return tuple(stage for stage, _, _ in self.pools)

    def of(self, table: ServiceTable) -> SchedulingConfig:
        """This configuration of ``table``.

        Raises:
            InputError: the table holds no such layout, or the threads do not fit it.
        """
        names = tuple(stage.name for stage in table.stages)
        cores: dict[str, int] = {stage: c for stage, _, c in self.pools}
        threads: dict[str, int] = {stage: t for stage, t, _ in self.pools}
        wanted = tuple(cores.get(name, 0) for name in names)
        for number, variant in enumerate(table.variants):
            if variant.operator_cores == wanted and set(cores) <= set(names):
                counts = tuple(threads.get(name, 0) for name in names)
                return table.config(number, counts, batch=self.batch, buffer=self.buffer)
        offered = "; ".join(variant.name for variant in table.variants)
        raise InputError(f"config: operator cores {cores} were not measured; allowed are the layouts {offered}")


def parse_config(text: str) -> Wanted:
    """Read a configuration as reports print it, say ``"cpu: model 1x1, batch 64"``; the kind may be left out.

    Raises:
        InputError: it is none.
    """
    pools: dict[str, tuple[int, int]] = {}
    numbers: dict[str, int] = {}
    for part in text.strip().lower().split(": ")[-1].split(","):
        part = " ".join(part.split())
        if found := _POOL.match(part):
            pools[found[1]] = (int(found[2]), int(found[3] or 1))
        elif found := _NUMBER.match(part):
            numbers[found[1]] = int(found[2])
        else:
            raise InputError(f"config: is {text!r}, in which {part!r} is not known; allowed is text {ALLOWED}")
    used = tuple((stage, *pools[stage]) for stage in STAGES if stage in pools)
    names = tuple(stage for stage, _, _ in used)
    if (
        names not in (("model",), ("sparse", "dense"))
        or not all(t and c for _, t, c in used)
        or not numbers.get("batch")
    ):
        raise InputError(f"config: is {text!r}; allowed is text {ALLOWED}, each number but the buffer's above 0")
    if "buffer" in numbers and names == ("model",):
        raise InputError(f"config: is {text!r}; a buffer stands between the pools of a pipeline, sparse and dense")
    return Wanted(used, numbers["batch"], numbers.get("buffer"))


def as_wanted(config: SchedulingConfig | str) -> Wanted:
    """A configuration that a user gave, as text or of another table.

    Raises:
        InputError: the text is none, or it uses what this machine's engine does not have.
    """
    if isinstance(config, str):
        return parse_config(config)
    if not isinstance(config, SchedulingConfig):
        raise InputError(f"config: is {config!r}; allowed is a SchedulingConfig, or text {ALLOWED}")
    try:
        return parse_config(config.describe())
    except InputError as error:
        raise InputError(f"config: is {config.describe()!r}; allowed is a configuration of CPUs, {ALLOWED}") from error


@dataclass(frozen=True, slots=True)
class Cpus:
    """Who runs where."""

    model: tuple[int, ...]
    generator: int | None
    """CPU that the generator has for itself and spins on; None: it shares the model's, and sleeps."""

    @classmethod
    def share(cls, cpus: Sequence[int], count: int, needed: int | None) -> Cpus:
        """Give the last of ``count`` of ``cpus`` to the generator, where the model can spare it.

        Args:
            cpus: CPUs that may be used.
            count: how many of them.
            needed: cores that a given configuration takes; None: what there is.

        Raises:
            InputError: more are needed than there are.
        """
        own = tuple(cpus)[: min(count, len(cpus))]
        if needed is not None and needed > len(own):
            raise InputError(f"config: takes {needed} cores; allowed are the {len(own)} that this process may use")
        if len(own) == 1 or needed == len(own):
            return cls(own, None)
        return cls(own[:-1] if needed is None else own[:needed], own[-1])

    @property
    def all(self) -> tuple[int, ...]:
        """Every CPU of the run."""
        return self.model if self.generator is None else (*self.model, self.generator)

    def deal(self, wanted: Wanted) -> list[list[tuple[int, ...]]]:
        """CPUs of every thread of every pool."""
        free = iter(self.model)
        return [[tuple(islice(free, cores)) for _ in range(threads)] for _, threads, cores in wanted.pools]

"""A journal of a profile: the rows of each finished pair, and digests of what only they depend on.

Its first record says what all rows depend on (seed, effort, versions, ...); see :mod:`hercules_fast.tables.records`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from hercules_fast.errors import ConfigError, Fault
from hercules_fast.tables import EfficiencyRow, EfficiencyTable
from hercules_fast.tables.efficiency import SCHEMA as TABLE_SCHEMA
from hercules_fast.tables.records import RecordFile

__all__ = ["SCHEMA", "Inputs", "Journal"]

SCHEMA = "hercules_fast.profile_journal/1"

Inputs = Mapping[str, str]
"""What only the rows of one pair depend on, by name: digests."""


class Journal(RecordFile):
    """An open journal of rows; raises as :class:`hercules_fast.tables.records.RecordFile` does."""

    def __init__(self, path: str | os.PathLike[str], header: Mapping[str, Any]):
        super().__init__(path, SCHEMA, header)
        self._known: dict[tuple[str, str], list[tuple[Inputs, tuple[EfficiencyRow, ...]]]] = {}
        try:
            for k, record in enumerate(self.records, 2):
                self._take(f"{self.path}, line {k}", record)
        except BaseException:
            self.close()
            raise

    def __contains__(self, pair: tuple[str, str]) -> bool:
        return pair in self._known

    def rows(self, pair: tuple[str, str], inputs: Inputs) -> tuple[EfficiencyRow, ...] | None:
        """The rows of ``pair`` (server, workload) that were made from just these ``inputs``."""
        return next((rows for known, rows in self._known.get(pair, ()) if known == inputs), None)

    def changes(self, pair: tuple[str, str], inputs: Inputs) -> tuple[str, ...]:
        """Names of the inputs in which the newest rows of ``pair`` differ from ``inputs``."""
        known, _ = self._known[pair][-1]
        return tuple(name for name in inputs if known.get(name) != inputs[name])

    def add(self, pair: tuple[str, str], inputs: Inputs, rows: Sequence[EfficiencyRow]) -> None:
        """Append the rows of one pair, and return when they are on the disk.

        Raises:
            OutputError: they cannot be written; the journal is as it was before.
        """
        server, workload = pair
        table = EfficiencyTable(rows=tuple(rows), servers=(server,), workloads=(workload,)).to_dict()
        record = {"server": server, "workload": workload, "inputs": dict(inputs), "rows": table["rows"]}
        self.append(record)
        self._known.setdefault(pair, []).append((dict(inputs), tuple(rows)))

    def _take(self, where: str, record: Any) -> None:
        try:
            server, workload, inputs, rows = (record[name] for name in ("server", "workload", "inputs", "rows"))
            names = {"servers": [server], "workloads": [workload]}
            table = EfficiencyTable.from_dict({"schema": TABLE_SCHEMA, "rows": rows, **names}, source=where)
            known = {str(name): str(digest) for name, digest in inputs.items()}
        except (AttributeError, KeyError, TypeError) as error:
            raise ConfigError(where, [Fault("record", f"does not meet the schema: {error!r}")]) from error
        self._known.setdefault((server, workload), []).append((known, table.rows))

"""Embedding bags on NumPy arrays and on tables of our own: gather rows of a table and pool them, bag by bag.

Arrays are used where they lie (a read-only array or an ``np.memmap`` will do). Tables, indices and weights are never
copied as a whole: indices pass through a small buffer, where they are checked; only the ends of bags are copied.

Over floats sums are exact in the sense of the naive loop: each column is added in float32 (float64 over float64) in the
order of the lookups, so the result has the same bytes for any thread count and instruction set.

Another thread may write an input during a call. Each index is read once, checked, and used from the checked copy:
the worst that comes of it is a wrong sum or an error.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, TypeAlias

from hercules_fast import _core
from hercules_fast.errors import ConfigError, DTypeError, Fault, MissingFileError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    _Floats: TypeAlias = npt.NDArray[np.float16] | npt.NDArray[np.float32] | npt.NDArray[np.float64]
    _Ints: TypeAlias = npt.NDArray[np.int32] | npt.NDArray[np.int64]
    _Weight: TypeAlias = "_Floats | EmbeddingTable"

__all__ = ["EmbeddingBagCollection", "EmbeddingTable", "embedding_bag", "sparse_lengths_sum"]

TableDType = Literal["float32", "float16", "bfloat16", "int8", "int4", "int2"]
FusedLayout = Literal["last", "first"]

SCHEMA = "hercules_fast.embedding_table/1"
_MAGIC = b"HFTABLE\n"
_HEADER_BYTES = 4096
"""Header of a table's file: a page, so that mapped rows start on one."""
_DEQUANTISED_AT_A_TIME = 1 << 16


class EmbeddingTable:
    """A table that owns its rows: floats of 32 or 16 bits, or rows of 8, 4 or 2 bits with a scale and a bias each.

    Rows lie one after another in private memory, on 2 MiB pages where the system grants them (for tables from 2 MiB
    on; :attr:`huge_page_share` tells), or in a mapped file. They never change. Quantised rows are kept as PyTorch's
    fused rowwise tables are: packed codes, then scale and bias (float32 each for int8, float16 for int4 and int2), and
    ``value = scale * code + bias``.

    Make one with :meth:`from_array`, :meth:`from_fused` or :meth:`load`, and hand it to :func:`embedding_bag`.
    """

    __slots__ = ("_rows",)

    _rows: _core.TableRows

    def __init__(self) -> None:
        raise TypeError("an EmbeddingTable is made by from_array, from_fused or load")

    @classmethod
    def _of(cls, rows: _core.TableRows) -> EmbeddingTable:
        table = object.__new__(cls)
        table._rows = rows
        return table

    @classmethod
    def from_array(
        cls,
        array: npt.NDArray[np.float32] | npt.NDArray[np.float16],
        dtype: TableDType = "float32",
        *,
        threads: int | None = None,
    ) -> EmbeddingTable:
        """Encode the rows of ``array``.

        Narrower floats are rounded to nearest, ties to even. Quantised rows are byte for byte those of PyTorch's
        ``embedding_bag_byte_prepack`` (int8), ``_4bit_prepack`` and ``_2bit_prepack``: per row, ``bias`` is the
        smallest value and ``scale`` the range over 255, 15 or 3 steps, codes are rounded to the nearest step.

        Args:
            array: float32 or float16 ``[rows, dim]``, C-contiguous, ``dim`` at least 1.
            dtype: ``"float32"``, ``"float16"``, ``"bfloat16"``, ``"int8"``, ``"int4"`` or ``"int2"``.
            threads: As for :func:`embedding_bag`.

        Raises:
            InputError: A value cannot be encoded, and is named: not finite in a quantised row, or beyond the range of
                float16 or bfloat16 (of scale and bias, for int4 and int2); or shape, layout, ``dtype``, ``threads``.
            DTypeError: ``array`` is no array of float32 or float16 in native byte order.
            SizeError: The table would exceed the address space.
            MemoryError: There is no memory for the table.
            KeyboardInterrupt: Ctrl-C; nothing is kept.
        """
        return cls._of(_core.TableRows.encode(array, dtype, threads))

    @classmethod
    def from_fused(
        cls,
        array: npt.NDArray[np.uint8],
        dtype: Literal["int8", "int4", "int2"],
        *,
        layout: FusedLayout = "last",
        dim: int | None = None,
    ) -> EmbeddingTable:
        """Copy fused rows that PyTorch or FBGEMM made.

        Args:
            array: uint8 ``[rows, row bytes]``, C-contiguous.
            dtype: What the codes are.
            layout: ``"last"``: codes, scale, bias (PyTorch; float32 for int8, else float16). ``"first"``: scale, bias
                (float16), codes (FBGEMM's table-batched embeddings).
            dim: Columns. Default: all that the codes' bytes hold.

        Raises:
            InputError: ``dtype``, ``layout``, ``dim``, shape or memory layout are not as said above.
            DTypeError: ``array`` is no array of uint8.
            MemoryError: There is no memory for the table.
        """
        return cls._of(_core.TableRows.import_fused(array, dtype, layout, dim))

    def to_fused(self, layout: FusedLayout = "last") -> npt.NDArray[np.uint8]:
        """A copy of the quantised rows, uint8 ``[rows, row bytes]``; for layouts see :meth:`from_fused`.

        Only int8 to layout ``"first"`` loses anything: scale and bias are rounded to float16, as FBGEMM does.

        Raises:
            InputError: The table is not quantised, ``layout`` is unknown, or a scale or bias is beyond float16.
        """
        return self._rows.export_fused(layout)

    def dequantize(self, *, threads: int | None = None) -> npt.NDArray[np.float32]:
        """The values that the kernels see, float32 ``[rows, dim]``: ``scale * code + bias``, rounded once."""
        import numpy as np

        out = np.empty((self.rows, self.dim), np.float32)
        for start in range(0, self.rows, _DEQUANTISED_AT_A_TIME):
            part = out[start : start + _DEQUANTISED_AT_A_TIME]
            rows = np.arange(start, start + len(part))[:, None]
            # The largest of one row is that row, bit for bit (a sum would turn -0 into 0).
            embedding_bag(self, rows, mode="max", out=part, threads=threads)
        return out

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the table to ``path``, all or nothing: a header of 4 KiB with a line of JSON, then the rows' bytes.

        Raises:
            OutputError: The file cannot be written; an old one stays as it was.
        """
        from hercules_fast.tables.files import write_atomically

        about = {"schema": SCHEMA, "dtype": self.dtype, "rows": self.rows, "dim": self.dim, "row_bytes": self.row_bytes}
        header = _MAGIC + json.dumps(about).encode() + b"\n"
        write_atomically(Path(path), header.ljust(_HEADER_BYTES, b" "), self._rows.view().reshape(-1).data)

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, mapped: bool = False) -> EmbeddingTable:
        """Read a table that :meth:`save` wrote. Nothing in the file is executed.

        Args:
            path: The file.
            mapped: Use the rows where they are, in the file: at once and shared between processes, but on 4 KiB pages
                and from the disk at first touch. The file must then stay as it is; shortening it kills the process.

        Raises:
            MissingFileError: There is no such file, or it cannot be read.
            ConfigError: It is not such a file, or it is cut short or too long.
            MemoryError: There is no memory for the rows.
        """
        try:
            file = Path(path).open("rb")  # noqa: SIM115 - closed below; the try is for its opening only
        except OSError as error:
            raise MissingFileError(f"cannot read {path}: {error.strerror or error}") from error
        with file:
            about = _read_header(file, str(path))
            rows = _core.TableRows.from_file(
                file.fileno(), _HEADER_BYTES, about["dtype"], about["rows"], about["dim"], bool(mapped)
            )
        return cls._of(rows)

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self._rows.rows

    @property
    def dim(self) -> int:
        """Number of columns."""
        return self._rows.dim

    @property
    def shape(self) -> tuple[int, int]:
        """``(rows, dim)``."""
        return self._rows.rows, self._rows.dim

    @property
    def dtype(self) -> TableDType:
        """Name of the format of the rows."""
        return self._rows.dtype

    @property
    def row_bytes(self) -> int:
        """Bytes per row, scale and bias included."""
        return self._rows.row_bytes

    @property
    def nbytes(self) -> int:
        """Bytes of all rows."""
        return self.rows * self.row_bytes

    @property
    def mapped(self) -> bool:
        """Whether the rows lie in a mapped file."""
        return self._rows.mapped

    @property
    def huge_page_share(self) -> float:
        """Share of the rows' memory on 2 MiB pages, 0 to 1, as the system reports it now (``/proc/self/smaps``)."""
        return self._rows.huge_page_share

    def __len__(self) -> int:
        return self.rows

    def __reduce__(self) -> Any:
        raise TypeError("an EmbeddingTable is not pickled; save it, and load it where it is needed")

    def __repr__(self) -> str:
        return f"<EmbeddingTable {self.dtype} {self.rows} x {self.dim}, {self.nbytes} bytes>"


def _unwrapped(weight: _Weight) -> _Floats | _core.TableRows:
    return weight._rows if isinstance(weight, EmbeddingTable) else weight


def _read_header(file: BinaryIO, path: str) -> dict[str, Any]:
    """What the header of a table's file says, checked, and that the file is as long as it says."""
    header = file.read(_HEADER_BYTES)
    if len(header) < _HEADER_BYTES or not header.startswith(_MAGIC):
        raise ConfigError(path, [Fault("", "is not a table that EmbeddingTable.save wrote")])
    try:
        about = json.loads(header[len(_MAGIC) :])
    except (ValueError, RecursionError):
        about = None
    if not isinstance(about, dict) or about.get("schema") != SCHEMA:
        raise ConfigError(path, [Fault("schema", f"must be {SCHEMA!r}")])
    faults = []
    bits = _BITS.get(about["dtype"]) if isinstance(about.get("dtype"), str) else None
    if bits is None:
        faults.append(Fault("dtype", f"is {about.get('dtype')!r}; allowed are {', '.join(_BITS)}"))
    for name, least in (("rows", 0), ("dim", 1), ("row_bytes", 1)):
        value = about.get(name)
        if type(value) is not int or not least <= value < 1 << 62:
            faults.append(Fault(name, f"is {value!r}; allowed is a whole number from {least} on"))
    if not faults and bits is not None:
        params = {8: 8, 4: 4, 2: 4}.get(bits, 0)
        row_bytes = (about["dim"] * bits + 7) // 8 + params
        if about["row_bytes"] != row_bytes:
            faults.append(
                Fault("row_bytes", f"is {about['row_bytes']}; rows of {about['dim']} columns have {row_bytes}")
            )
        size, needed = os.fstat(file.fileno()).st_size, _HEADER_BYTES + about["rows"] * row_bytes
        if size != needed:
            faults.append(Fault("", f"has {size} bytes; its header promises {needed}"))
    if faults:
        raise ConfigError(path, faults)
    return about


_BITS = {"float32": 32, "float16": 16, "bfloat16": 16, "int8": 8, "int4": 4, "int2": 2}


class EmbeddingBagCollection:
    """Many tables looked up in one call, their pooled rows side by side, as FBGEMM's table-batched embeddings do.

    Tables may differ in rows, columns and format. One call crosses the border to the core once, prefetches across the
    borders of tables, and shares the work of all tables between threads by the bytes that they move.

    Args:
        tables: One or more, each an :class:`EmbeddingTable` or an array, as for :func:`embedding_bag`; float64 all of
            them or none. They are kept, not copied.

    Raises:
        InputError: There is no table, an array is not 2-D, C-contiguous and aligned, or tables are float64 in part.
        DTypeError: An entry is no table, or an array of another dtype or byte order.
        SizeError: The columns of all tables exceed the address space.
    """

    __slots__ = ("_rows", "_tables")

    def __init__(self, tables: Iterable[_Weight]) -> None:
        import numpy as np

        if not isinstance(tables, Iterable):
            raise DTypeError(f"tables: must be several tables, not {type(tables).__name__}")
        self._tables = tuple(tables)
        self._rows = tuple([_unwrapped(table) for table in self._tables])
        self(np.empty(0, np.int64), np.zeros(1, np.int64))  # no bags: all that a call can say about the tables

    def __call__(
        self,
        indices: _Ints,
        offsets: _Ints,
        *,
        mode: Literal["sum", "mean", "max"] = "sum",
        per_sample_weights: _Floats | None = None,
        skip_pruned: bool = False,
        out: _Floats | None = None,
        threads: int | None = None,
        exact: bool = False,
    ) -> _Floats:
        """Pool ``B`` bags of each of the ``T`` tables.

        Args:
            indices: Rows to look up, 1-D, int32 or int64, C-contiguous: those of the first table, then those of the
                second, and so on; numbered from 0 in each table.
            offsets: int32 or int64 ``[T * B + 1]``: bag ``b`` of table ``t`` holds lookups ``offsets[t * B + b]`` up to
                ``offsets[t * B + b + 1]``. Starts with 0, never decreases; indices after the last are not read.
            mode: As for :func:`embedding_bag`, but ``"sum"`` by default.
            per_sample_weights: One factor per lookup, of the indices' shape, float32 (float64 if the tables are); not
                with ``"max"``.
            skip_pruned: An index of -1 names a row that was pruned away: it is skipped and not counted. Otherwise it is
                an error like any index outside the table.
            out: Where to write the result, as for :func:`embedding_bag`.
            threads: As for :func:`embedding_bag`.
            exact: As for :func:`embedding_bag`.

        Returns:
            ``[B, sum of dims]``, the tables' columns side by side; float32 (float64 if the tables are): ``out`` where
            given, else a new array. Each block has the bytes that :func:`embedding_bag` gives for its table.

        Raises:
            IndexRangeError: An index is outside its table; names the first such position, the value and the table.
            InputError: Offsets, shapes, layout, ``out`` or an option are not as said above.
            DTypeError: An argument is no array, or one of another dtype or byte order. Nothing is cast silently.
            SizeError: The result would exceed the address space.
            MemoryError: There is no memory for the result.
        """
        return _core.embedding_bag_collection(
            self._rows, indices, offsets, mode, per_sample_weights, skip_pruned, out, threads, exact
        )

    @property
    def tables(self) -> tuple[_Weight, ...]:
        """The tables, in the order of their columns."""
        return self._tables

    @property
    def dims(self) -> tuple[int, ...]:
        """Columns of each table: table ``t`` fills columns ``sum(dims[:t])`` up to ``sum(dims[:t + 1])``."""
        return tuple(int(table.shape[1]) for table in self._tables)

    def __reduce__(self) -> Any:
        return type(self), (self._tables,)

    def __repr__(self) -> str:
        return f"<EmbeddingBagCollection of {len(self._tables)} tables, {sum(self.dims)} columns>"


def embedding_bag(
    weight: _Weight,
    indices: _Ints,
    offsets: _Ints | None = None,
    *,
    mode: Literal["sum", "mean", "max"] = "mean",
    per_sample_weights: _Floats | None = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
    out: _Floats | None = None,
    threads: int | None = None,
    exact: bool = False,
) -> _Floats:
    """Pool rows of ``weight`` into one row per bag. Names and default mode are those of ``torch``'s function.

    ``out[b] = reduce(w[j] * weight[indices[j]] for j in bag b)``; a bag without lookups gives zeros.

    Args:
        weight: The table: an :class:`EmbeddingTable`, or float32, float16 or float64 ``[rows, dim]``, C-contiguous.
        indices: Rows to look up, int32 or int64, C-contiguous. 1-D with ``offsets``, or 2-D ``[B, L]``: one bag of
            ``L`` lookups per row.
        offsets: Where each bag starts in 1-D ``indices``, int32 or int64 ``[B]`` (need not match the indices'):
            starts with 0, never decreases, stays within ``len(indices)``. The last bag runs to the end.
        mode: ``"sum"``; ``"mean"``: the sum divided by the number of lookups, weighted or not; ``"max"``: the
            largest value per column, NaN if there is one.
        per_sample_weights: One factor per lookup, of the indices' shape, float32 (float64 if ``weight`` is); not with
            ``"max"``.
        include_last_offset: ``offsets`` has ``B + 1`` entries, the last being where the last bag ends (the row
            pointer of a CSR matrix). Indices after it are neither read nor checked.
        padding_idx: A row that is skipped and not counted. Negative ones count from the end.
        out: Where to write the result: ``[B, dim]``, C-contiguous, writable, apart from all inputs; float32, float16 or
            bfloat16 (of ``ml_dtypes``; both rounded once, at the end, ties to even), or float64 if ``weight`` is.
            After an error its content is unspecified.
        threads: Threads to use at most (1 to 1024). Default: ``HERCULES_FAST_NUM_THREADS``, else the CPUs that this
            process may use. Small calls stay on the calling thread.
        exact: How to sum quantised rows. False: in the fastest order, ``sum(w * scale * code) + sum(w * bias)``; with
            ``n`` lookups in a bag, within ``gamma(n + 2) * sum(|w * scale * code| + |w * bias|)`` of real arithmetic,
            ``gamma(k) = k u / (1 - k u)``, ``u = 2**-24`` (a mean has one rounding more). The same for any thread
            count, not for any instruction set. True: bit-equal on any machine to PyTorch's ``acc = fma(code, w * scale,
            acc + w * bias)``. Tables of floats are always exact.

    Returns:
        ``[B, dim]``, float32 (float64 if ``weight`` is): ``out`` where given, else a new array.

    Raises:
        IndexRangeError: An index is outside the table; names the first such position.
        InputError: Offsets, shapes, layout, ``out`` or an option are not as said above.
        DTypeError: An argument is no array, or one of another dtype or byte order. Nothing is cast silently.
        SizeError: The result would exceed the address space.
        MemoryError: There is no memory for the result.
    """
    return _core.embedding_bag(
        weight._rows if isinstance(weight, EmbeddingTable) else weight,  # not by a function: this is a tenth of a call
        indices,
        offsets,
        mode,
        per_sample_weights,
        include_last_offset,
        padding_idx,
        out,
        threads,
        exact,
    )


def sparse_lengths_sum(
    weight: _Weight,
    indices: _Ints,
    lengths: _Ints,
    *,
    weights: _Floats | None = None,
    out: _Floats | None = None,
    threads: int | None = None,
    exact: bool = False,
) -> _Floats:
    """Sum rows of ``weight`` into one row per bag, bags given by their lengths (the SparseLengthsSum operator).

    Bag ``b`` holds the next ``lengths[b]`` lookups: ``out[b] = sum(w[j] * weight[indices[j]] for j in bag b)``.

    Args:
        weight: As for :func:`embedding_bag`.
        indices: Rows to look up, int32 or int64, 1-D, C-contiguous.
        lengths: Lookups per bag, int32 or int64 ``[B]``, 0 or more each, together ``len(indices)``.
        weights: One factor per lookup, ``[len(indices)]``, float32 (float64 if ``weight`` is).
        out: As for :func:`embedding_bag`.
        threads: As for :func:`embedding_bag`.
        exact: As for :func:`embedding_bag`.

    Returns:
        ``[B, dim]``, float32 (float64 if ``weight`` is): ``out`` where given, else a new array.

    Raises:
        IndexRangeError: An index is outside the table; names the first such position.
        InputError: Lengths, shapes, layout, ``out`` or ``threads`` are not as said above.
        DTypeError: An argument is no array, or one of another dtype or byte order. Nothing is cast silently.
        SizeError: The result would exceed the address space.
        MemoryError: There is no memory for the result.
    """
    return _core.sparse_lengths_sum(_unwrapped(weight), indices, lengths, weights, out, threads, exact)

"""Embedding bags on NumPy arrays: gather rows of a table and pool them, bag by bag.

Arrays are used where they lie (a read-only array or an ``np.memmap`` will do); nothing as long as the indices is
copied. Sums are exact in the sense of the naive loop: each column is added in float32 in the order of the lookups,
so the result has the same bytes for any thread count and instruction set.

Another thread may write an input during a call. Each index is read once, checked, and used from the checked copy:
the worst that comes of it is a wrong sum or an error.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from hercules_fast import _core

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    _Float32 = npt.NDArray[np.float32]
    _Ints = npt.NDArray[np.int32] | npt.NDArray[np.int64]

__all__ = ["embedding_bag", "sparse_lengths_sum"]


def embedding_bag(
    weight: _Float32,
    indices: _Ints,
    offsets: _Ints | None = None,
    *,
    mode: Literal["sum", "mean", "max"] = "mean",
    per_sample_weights: _Float32 | None = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
    out: _Float32 | None = None,
    threads: int | None = None,
) -> _Float32:
    """Pool rows of ``weight`` into one row per bag. Names and default mode are those of ``torch``'s function.

    ``out[b] = reduce(w[j] * weight[indices[j]] for j in bag b)``; a bag without lookups gives zeros.

    Args:
        weight: The table, float32 ``[rows, dim]``, C-contiguous.
        indices: Rows to look up, int32 or int64, C-contiguous. 1-D with ``offsets``, or 2-D ``[B, L]``: one bag of
            ``L`` lookups per row.
        offsets: Where each bag starts in 1-D ``indices``, int32 or int64 ``[B]`` (need not match the indices'):
            starts with 0, never decreases, stays within ``len(indices)``. The last bag runs to the end.
        mode: ``"sum"``; ``"mean"``: the sum divided by the number of lookups, weighted or not; ``"max"``: the
            largest value per column, NaN if there is one.
        per_sample_weights: One factor per lookup, float32 of the indices' shape; not with ``"max"``.
        include_last_offset: ``offsets`` has ``B + 1`` entries, the last being where the last bag ends (the row
            pointer of a CSR matrix). Indices after it are neither read nor checked.
        padding_idx: A row that is skipped and not counted. Negative ones count from the end.
        out: Where to write the result: float32 ``[B, dim]``, C-contiguous, writable, apart from all inputs. After an
            error its content is unspecified.
        threads: Threads to use at most (1 to 1024). Default: ``HERCULES_FAST_NUM_THREADS``, else the CPUs that this
            process may use. Small calls stay on the calling thread.

    Returns:
        float32 ``[B, dim]``: ``out`` where given, else a new array.

    Raises:
        IndexRangeError: An index is outside the table; names the first such position.
        InputError: Offsets, shapes, layout, ``out`` or an option are not as said above.
        DTypeError: An argument is no array, or one of another dtype or byte order. Nothing is cast silently.
        SizeError: The result would exceed the address space.
        MemoryError: There is no memory for the result.
    """
    return _core.embedding_bag(
        weight, indices, offsets, mode, per_sample_weights, include_last_offset, padding_idx, out, threads
    )


def sparse_lengths_sum(
    weight: _Float32,
    indices: _Ints,
    lengths: _Ints,
    *,
    weights: _Float32 | None = None,
    out: _Float32 | None = None,
    threads: int | None = None,
) -> _Float32:
    """Sum rows of ``weight`` into one row per bag, bags given by their lengths (the SparseLengthsSum operator).

    Bag ``b`` holds the next ``lengths[b]`` lookups: ``out[b] = sum(w[j] * weight[indices[j]] for j in bag b)``.

    Args:
        weight: The table, float32 ``[rows, dim]``, C-contiguous.
        indices: Rows to look up, int32 or int64, 1-D, C-contiguous.
        lengths: Lookups per bag, int32 or int64 ``[B]``, 0 or more each, together ``len(indices)``.
        weights: One factor per lookup, float32 ``[len(indices)]``.
        out: As for :func:`embedding_bag`.
        threads: As for :func:`embedding_bag`.

    Returns:
        float32 ``[B, dim]``: ``out`` where given, else a new array.

    Raises:
        IndexRangeError: An index is outside the table; names the first such position.
        InputError: Lengths, shapes, layout, ``out`` or ``threads`` are not as said above.
        DTypeError: An argument is no array, or one of another dtype or byte order. Nothing is cast silently.
        SizeError: The result would exceed the address space.
        MemoryError: There is no memory for the result.
    """
    return _core.sparse_lengths_sum(weight, indices, lengths, weights, out, threads)

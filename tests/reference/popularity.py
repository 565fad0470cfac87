"""Popularity of rows, one row at a time."""

from __future__ import annotations


def weights(law, rows):
    """Accesses of each row of a table, most popular first, up to a factor."""
    if law.kind == "uniform":
        return [1.0] * rows
    if law.kind == "zipf":
        return [rank**-law.exponent for rank in range(1, rows + 1)]
    found = []
    left, before = 0, 0.0
    for row, share in zip(law.rows, law.shares, strict=True):
        found += [(share - before) / (row - left)] * (row - left)
        left, before = row, share
    return (found + [0.0] * rows)[:rows]


def hit_share(law, rows, kept):
    each = weights(law, rows)
    return sum(each[:kept]) / sum(each)


def hot_rows(law, tables, limit_bytes):
    """Rows kept of each table of a group: the next row with most lookups per byte, until one has no room."""
    shares = []
    for group in tables:
        each = weights(law, group.rows)
        shares.append([x / sum(each) for x in each])
    kept = [0] * len(tables)
    room = limit_bytes
    while True:
        open_groups = [g for g, group in enumerate(tables) if kept[g] < group.rows]
        if not open_groups:
            return kept
        best = max(open_groups, key=lambda g: (tables[g].pooling * shares[g][kept[g]] / tables[g].row_bytes, -g))
        need = tables[best].count * tables[best].row_bytes
        if need > room:
            return kept
        room -= need
        kept[best] += 1

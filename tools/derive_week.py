"""Derive the built-in week of load from a public trace of request counts.

    python tools/derive_week.py elb_request_count_5min.csv > python/hercules_fast/traffic/catalog/load/week.toml

Input: CSV ``timestamp,value``, counts of one load balancer per five minutes over two weeks, with bursts and a few
missing values. Two weeks give each hour of the week only about 24 counts, too few to tell its load from noise, so the
shape is a product: level of the day of the week (median of its counts, at noon, linear in between) times profile of the
hour of the day (median of its counts, then a centred moving mean over three hours, around midnight); then the largest
hour is set to 1.
"""

from __future__ import annotations

import csv
import math
import sys
from datetime import datetime
from pathlib import Path
from statistics import median

HOURS = 168

HEADER = """\
# Request counts of one AWS load balancer, 2014-04-10 to 2014-04-24: GitHub numenta/NAB,
# data/realAWSCloudwatch/elb_request_count_8c0756.csv, commit ea702d75cc2258d9d7dd35ca8e5e2539d71f3140,
# MIT, Copyright 2014-2024 Numenta Inc. Written by tools/derive_week.py; not a recommendation trace.
schema = "hercules_fast.load/1"
name = "week"
start = "2024-01-01T00:00:00Z"  # a Monday
interval_s = 3600
"""
SOURCES = """\

[sources]
interval_s = "derived: hours of the week, Monday 00:00 UTC first"
shape = "derived: median level per day of the week times smoothed median profile per hour of the day of GitHub \
numenta/NAB, data/realAWSCloudwatch/elb_request_count_8c0756.csv (two weeks of 2014, peak set to 1); not a \
recommendation trace"
"""


def week_shape(path: Path) -> list[float]:
    """Return 168 figures relative to the largest, four decimals, Monday 00:00 first."""
    by_day: list[list[float]] = [[] for _ in range(7)]
    by_hour: list[list[float]] = [[] for _ in range(24)]
    with path.open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream):
            moment = datetime.fromisoformat(row["timestamp"])
            by_day[moment.weekday()].append(float(row["value"]))
            by_hour[moment.hour].append(float(row["value"]))
    hours = [median(counts) for counts in by_hour]
    smooth = [(hours[h - 1] + hours[h] + hours[(h + 1) % 24]) / 3.0 for h in range(24)]
    days = [median(counts) for counts in by_day]
    week = [_level(days, day + (hour + 0.5) / 24.0) * smooth[hour] for day in range(7) for hour in range(24)]
    return [round(rate / max(week), 4) for rate in week]


def _level(days: list[float], moment: float) -> float:
    """Level at ``moment`` (in days): each day's level stands at its noon, linear in between, around the week."""
    before = math.floor(moment - 0.5)
    share = moment - 0.5 - before
    return (1.0 - share) * days[before % 7] + share * days[(before + 1) % 7]


def to_toml(shape: list[float]) -> str:
    """Return the catalogue file, a day in two lines."""
    lines = [", ".join(f"{figure:.4f}" for figure in shape[h : h + 12]) for h in range(0, HOURS, 12)]
    return HEADER + "shape = [\n" + "".join(f"  {line},\n" for line in lines) + "]\n" + SOURCES


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.stdout.write(to_toml(week_shape(Path(sys.argv[1]))))

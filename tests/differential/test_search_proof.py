"""What the search claims, held against every configuration: a sample of pairs here, all of them with ``-m long``.

The long run (`make check-search`) prints a line for each pair and percentile: the configurations that the gradient
search simulated, those that the exhaustive search had to (the bounds exclude the others, which the sample verifies),
the share of the best load that was found, then what rivals found with as many evaluations. TPE is Optuna's, where that
is installed.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable

import numpy as np
import pytest

import hercules_fast as hf
from tests.landscapes import Landscape, at_percentile, landscape, nine

RIVALS = ("hill", "deeprecsys", "random")
LEAST_WORTH = 0.99
MOST_SHARE = 0.10
MOST_BEHIND = 0.005
SAMPLE = [
    ("T1", "wnd", 95),
    ("T2", "rmc2", 99),
    ("T2-NMPx8", "rmc1", 95),
    ("T1-P100", "din", 99),
    ("T2-V100", "rmc1", 95),
]


def tpe(at: Landscape, evaluations: int) -> int:
    """Optuna's TPE with its defaults: the kind, then one number along each axis of the kind."""
    optuna = pytest.importorskip("optuna")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    coords = at.space.coords
    place = {tuple(row): k for k, row in enumerate(coords.tolist())}
    values = {
        kind: [sorted(set(axis)) for axis in coords[coords[:, 0] == kind].T] for kind in set(coords[:, 0].tolist())
    }
    spent: dict[int, float] = {}

    def objective(trial: Callable) -> float:
        kind = trial.suggest_categorical("kind", sorted(values))
        at_axis = [kind]
        for axis, allowed in enumerate(values[kind][1:]):
            step = trial.suggest_int(f"{kind}.{axis}", 0, len(allowed) - 1) if len(allowed) > 1 else 0
            at_axis.append(allowed[step])
        candidate = place.get(tuple(at_axis))
        if candidate is None:
            return 0.0  # outside the lattice: told, and not counted
        spent[candidate] = at.qps(candidate, at.short)
        if len(spent) >= evaluations:
            trial.study.stop()
        return spent[candidate]

    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=0))
    study.optimize(objective, n_trials=3 * evaluations + 30)
    return max(spent, key=spent.__getitem__, default=-1)


def check(at: Landscape) -> tuple[float, int]:
    """Worth of what the gradient search finds, and how many configurations it simulates."""
    found, evaluations = at.found_by("gradient")
    assert (found < 0) == (at.best < 0)
    return (at.worth(found) if found >= 0 else 1.0), evaluations


@pytest.mark.parametrize(("server", "workload", "percentile"), SAMPLE)
def test_the_best_of_all_configurations_is_found(server: str, workload: str, percentile: float) -> None:
    (model,) = [w for w in nine() if w.name == workload]
    asked = hf.hardware.server(server), at_percentile(model, percentile)
    at = landscape(*asked, short=2048, long=8192, prune=False)
    assert at is not None
    found, evaluations = check(at)
    assert found >= LEAST_WORTH
    assert evaluations <= MOST_SHARE * at.size
    pruned = landscape(*asked, short=2048, long=8192)
    assert pruned is not None and at.worth(pruned.best) >= 1 - 0.0051, "bounds hide nothing"


@pytest.mark.long
@pytest.mark.timeout(4 * 3600)
def test_every_pair_of_the_fleet() -> None:
    fleet = hf.fleet("zoo10")
    lines, shares, behind = [], [], []
    ratios: dict[str, list[float]] = {name: [] for name in (*RIVALS, "tpe")}
    print("\nserver       workload  pct  configs  evals  share %  proof   found |    hill  deeprecsys  random     tpe")
    for percentile in (95, 99):
        for server in fleet.servers:
            for workload in nine():
                at = landscape(server, at_percentile(workload, percentile))
                if at is None:
                    continue
                found, evaluations = check(at)
                shares.append(evaluations / at.size)
                lines.append((found, server.name, workload.name, percentile))
                others = {}
                if at.best >= 0:
                    others = {name: at.worth(at.found_by(name, evaluations)[0]) for name in RIVALS}
                    others["tpe"] = at.worth(tpe(at, evaluations))
                for name, value in others.items():
                    ratios[name].append(max(value, 1e-3) / found)
                    if value > found * (1 + MOST_BEHIND):
                        behind.append((name, server.name, workload.name, percentile, value / found))
                told = "".join(f"{others.get(name, np.nan):10.4f}" for name in ratios)
                pair = f"{server.name:12} {workload.name:9} {percentile:3} {at.size:8} {evaluations:6}"
                print(f"{pair} {100 * shares[-1]:8.2f} {at.looked_at:6} {found:7.4f} |{told}", flush=True)
    print(f"pairs: {len(lines)}; worst found: {min(lines)}")
    print(f"evaluations: median {100 * statistics.median(shares):.2f} %, most {100 * max(shares):.2f} %")
    for name, values in ratios.items():
        mean = np.exp(np.mean(np.log(values)))
        print(f"{name}: geometric mean of its load over ours {mean:.4f}, best {max(values):.4f}")
    assert min(lines)[0] >= LEAST_WORTH
    assert max(shares) <= MOST_SHARE
    assert not behind
    assert all(np.mean(np.log(values)) < 0 for values in ratios.values())

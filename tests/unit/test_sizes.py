"""The exact size laws against the slow twin, a drawn sample and the published percentiles."""

from __future__ import annotations

import hashlib
import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hercules_fast import traffic
from hercules_fast.errors import ConfigError, InputError, UnknownNameError
from hercules_fast.traffic import SizeComponent, SizeLaw
from hercules_fast.traffic.size_law import UNITS, _exp, _log, _normal_below
from tests.reference import sizes as slow

NAMES = ("fixed", "kairos", "lognormal", "mlperf", "normal", "ribbon")

# Mean, p50, p75, p90, p95, p99 of a million draws each, and the allowed distance: a sampled percentile moves by an
# item or two, and for mlperf all figures are counts of a hundred queries.
PUBLISHED = {
    "normal": (164, 165, 175, 185, 191, 202),
    "lognormal": (167, 164, 187, 212, 227, 261),
    "ribbon": (186, 168, 199, 268, 376, 475),
    "kairos": (239, 178, 241, 510, 605, 921),
    "mlperf": (270, 200, 300, 500, 700, 700),
}


def test_catalogue_is_complete() -> None:
    assert traffic.sizes_names() == NAMES


@pytest.mark.parametrize("name", PUBLISHED)
def test_percentiles_of_the_sheet(name: str) -> None:
    law = traffic.sizes(name)
    mean, *percentiles = PUBLISHED[name]
    assert traffic.size_mean(law) == pytest.approx(mean, abs=0.6)
    for fraction, expected in zip((0.5, 0.75, 0.9, 0.95, 0.99), percentiles, strict=True):
        assert abs(traffic.size_quantile(law, fraction) - expected) <= 1, fraction


def test_heavy_tail_of_the_default_law() -> None:
    """The sheet: the largest quarter of Kairos queries carries 52 % of the work, of lognormal ones 32 %."""
    for name, expected in (("kairos", 0.52), ("lognormal", 0.32), ("ribbon", 0.38), ("normal", 0.28)):
        pmf = traffic.size_pmf(traffic.sizes(name))
        work = pmf * np.arange(1, len(pmf) + 1)
        above = 1.0 - np.cumsum(pmf)  # share of queries that are larger
        in_quarter = np.clip(0.25 - above, 0.0, pmf)
        share = (in_quarter / np.where(pmf > 0, pmf, 1.0) * work).sum() / work.sum()
        assert share == pytest.approx(expected, abs=0.005)


@pytest.mark.parametrize("name", NAMES)
def test_matches_the_slow_twin(name: str) -> None:
    law = traffic.sizes(name)
    np.testing.assert_allclose(traffic.size_pmf(law), slow.probabilities(law), rtol=0, atol=2.0 / UNITS)


@pytest.mark.parametrize("name", NAMES)
def test_matches_drawing(name: str) -> None:
    law = traffic.sizes(name)
    stream = random.Random(7)
    count = 20_000
    drawn = np.bincount([slow.draw(law, stream) for _ in range(count)], minlength=law.max_items + 1)[1:]
    distance = np.abs(np.cumsum(drawn) / count - np.cumsum(traffic.size_pmf(law))).max()
    assert distance < 1.95 / math.sqrt(count)  # Kolmogorov-Smirnov at 0.1 %


component = st.one_of(
    st.builds(
        lambda low, span: {"kind": "uniform", "low": low, "high": low + span}, st.integers(1, 300), st.integers(0, 300)
    ),
    st.builds(lambda mu, sigma: {"kind": "lognormal", "mu": mu, "sigma": sigma}, st.floats(-3, 7), st.floats(0.01, 3)),
    st.builds(lambda mean, sd: {"kind": "normal", "mean": mean, "sd": sd}, st.floats(-50, 400), st.floats(0.1, 100)),
    st.builds(lambda value: {"kind": "fixed", "value": value}, st.integers(1, 500)),
)


@given(st.lists(component, min_size=1, max_size=3), st.integers(1, 300), st.booleans())
def test_any_law_is_a_law(parts: list[dict[str, float]], max_items: int, redraw: bool) -> None:
    extra = {"keep": (20, 80), "redraw": (30, 50)} if redraw else {}
    law = SizeLaw(
        name="any",
        max_items=max_items,
        components=tuple(
            SizeComponent(weight=1.0 / len(parts), **part, **(extra if part["kind"] != "fixed" else {}))  # type: ignore[arg-type]
            for part in parts
        ),
    )
    pmf = traffic.size_pmf(law)
    assert pmf.shape == (max_items,)
    assert (pmf >= 0).all()
    assert pmf.sum() == 1.0
    assert np.array_equal(pmf * UNITS, np.rint(pmf * UNITS))
    if all(part["kind"] != "lognormal" or part["mu"] + 5 * part["sigma"] < 7.5 for part in parts):
        np.testing.assert_allclose(pmf, slow.probabilities(law), rtol=0, atol=1e-6)


def test_elementary_functions() -> None:
    z = np.linspace(-9, 9, 20_001)
    assert np.abs(_normal_below(z) - [0.5 * math.erfc(-v / math.sqrt(2)) for v in z]).max() < 1e-14
    x = np.geomspace(1e-3, 1e9, 20_001)
    np.testing.assert_allclose(_log(x), [math.log(v) for v in x], rtol=2e-15, atol=1e-16)
    x = np.linspace(-40, 0, 20_001)
    np.testing.assert_allclose(_exp(x), [math.exp(v) for v in x], rtol=2e-15)


def test_same_bytes_everywhere() -> None:
    """A digest of the default law: it may change only when the law does."""
    digest = hashlib.sha256(traffic.size_units(traffic.sizes("kairos")).astype("<i8").tobytes()).hexdigest()
    assert digest[:16] == "bb742d239e9e7d12"


def test_quantile_of_a_step() -> None:
    law = SizeLaw(name="two", max_items=9, components=(SizeComponent(weight=1.0, kind="uniform", low=3, high=4),))
    assert [traffic.size_quantile(law, q) for q in (0.1, 0.5, 0.500001, 1.0)] == [3, 3, 4, 4]
    assert traffic.size_mean(law) == 3.5


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.1, math.nan, "0.5"])
def test_quantile_refuses(fraction: float) -> None:
    with pytest.raises(InputError, match=r"fraction is .*allowed"):
        traffic.size_quantile(traffic.sizes("fixed"), fraction)


def test_law_made_in_python_is_checked() -> None:
    law = SizeLaw(
        name="bad",
        max_items=0,
        components=(
            SizeComponent(weight=0.5, kind="lognormal", mu=0.0, sigma=-1.0),
            SizeComponent(weight=0.6, kind="uniform", low=5, high=4),
        ),
    )
    with pytest.raises(ConfigError) as caught:
        traffic.size_pmf(law)
    paths = {fault.path for fault in caught.value.faults}
    assert paths == {"max_items", "components[0].sigma", "components[1].low", "components"}


def test_unknown_name_is_corrected() -> None:
    with pytest.raises(UnknownNameError, match=r"did you mean 'kairos'"):
        traffic.sizes("kairo")
    assert traffic.sizes("KAIROS") is traffic.sizes("kairos")

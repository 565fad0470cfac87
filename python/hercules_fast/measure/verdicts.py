"""What a validation showed: loads run beside loads predicted, three levels of agreement, and how far to trust them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from hercules_fast.host import Noise
from hercules_fast.measure.comparison import LoadPoint
from hercules_fast.measure.rehearsal import Rehearsal
from hercules_fast.tables import SchedulingConfig
from hercules_fast.traffic import Sla

__all__ = ["LEVELS", "SCHEMA", "Level", "Prediction", "Validation"]

SCHEMA = "hercules_fast.validation/1"
LEVELS = {
    "a": "queue discipline: the simulator with each run's own service times",
    "b": "service model: measured service times, fresh arrivals",
    "c": "max load: where the SLA is crossed",
}
REPLAY_TOLERANCE = 0.05
"""Level a, every percentile: replayed over measured, less 1."""
MODEL_TOLERANCE = {95.0: 0.10, 99.0: 0.15}
"""Level b, by percentile: long simulation over measured, less 1."""
MAX_LOAD_TOLERANCE = 0.10
"""Level c: measured max load over predicted, less 1."""
_UNCERTIFIED_TIMES = "the service times it rests on are not certified"


@dataclass(frozen=True, kw_only=True, slots=True)
class Prediction:
    """The max load that the simulator, on the measured service times, claims for a configuration."""

    config: SchedulingConfig
    rehearsal: Rehearsal | None
    """How long services take under load, at the highest of ``loads``; None before it was run."""
    unrehearsed_qps: float
    """The max load by the table of service times alone, on which the configuration was chosen."""
    qps: float
    interval_qps: tuple[float, float]
    limit: str
    """What keeps it from being higher."""
    searched: bool
    """Whether the configuration is the search's choice, or was given."""
    evaluations: int
    """Configurations that the search simulated."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Level:
    """One level of agreement. It rests on certified runs only."""

    name: str
    title: str
    passed: bool | None
    """None: no certified run shows it."""
    facts: tuple[str, ...]
    """What it rests on and what was left out, in words."""

    @property
    def verdict(self) -> str:
        """``passed``, ``missed`` or ``not shown``."""
        return "not shown" if self.passed is None else "passed" if self.passed else "missed"


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Validation:
    """A prediction for this machine, and what running it showed. ``points`` run by rising load."""

    model: str
    slas: tuple[Sla, ...]
    loads: tuple[float, ...]
    """Shares of the predicted max load that level b is judged at."""
    prediction: Prediction | None
    """None where the validation ended before it."""
    points: tuple[LoadPoint, ...]
    noise_before: Noise | None
    noise_after: Noise | None
    service_certified: bool
    """Whether the noise gate passed while service times were measured."""
    service_cause: str
    complete: bool
    """False where Ctrl-C or the end of the time left something out."""
    notes: tuple[str, ...]
    provenance: Mapping[str, Any]
    """Inputs as they were used, versions, facts of the machine, seed, seconds of each step."""

    @property
    def causes(self) -> tuple[str, ...]:
        """Why the validation is not certified, a sentence each; empty where it is."""
        return tuple(self._causes())

    def _causes(self) -> Iterator[str]:
        for when, noise in (("before", self.noise_before), ("after", self.noise_after)):
            if noise is None:
                yield f"the machine's noise {when} the runs is not known"
            elif not noise.quiet:
                yield f"{when} the runs: {noise.cause()}"
        if not self.service_certified:
            yield f"service times: {self.service_cause or 'not measured'}"
        for point in self.points:
            if not point.certified:
                yield f"run at {point.share:.2f}x: {point.cause}"
            if point.rehearsal_cause:
                yield f"service times at {point.share:.2f}x: {point.rehearsal_cause}"
        if not self.points:
            yield "no load was run"

    @property
    def certified(self) -> bool:
        """Whether every noise gate passed: before, while service times were measured, in each run, and after."""
        return not self.causes

    @property
    def levels(self) -> tuple[Level, ...]:
        """The three levels, each judged on the certified runs."""
        return (self._queue_level(), self._model_level(), self._load_level())

    def passed(self, level: str) -> bool | None:
        """Whether level ``"a"``, ``"b"`` or ``"c"`` held; None where no certified run shows it."""
        return next(one for one in self.levels if one.name == level).passed

    @property
    def measured_qps(self) -> float:
        """Load at which the certified runs cross from meeting the SLA to missing it.

        Between two runs one over the latency is taken as linear in the load: exact for the quantiles of an M/M/1 queue,
        and zero where a backlog grows without end. Infinite where the highest load still meets it, 0 where the lowest
        does not, NaN where the certified runs do not tell.
        """
        return self._crossing()[0]

    def _shown(self) -> list[LoadPoint]:
        return [point for point in self.points if point.certified]

    def _queue_level(self) -> Level:
        facts, held = [], []
        for point in self._shown():
            if point.replay_error is None:
                facts.append(f"{point.share:.2f}x: left out, {point.unfinished} queries had not ended")
                continue
            known = [e for e in point.replay_error if not math.isnan(e)]
            if not known:
                facts.append(f"{point.share:.2f}x: left out, {point.queries} queries are too few for a percentile")
                continue
            worst = max(known, key=abs)
            held.append(abs(worst) <= REPLAY_TOLERANCE)
            facts.append(f"{point.share:.2f}x: {worst:+.1%} at worst; allowed {REPLAY_TOLERANCE:.0%}")
        return _level("a", held, facts + _left_out(self.points, self._shown()))

    def _model_level(self) -> Level:
        facts: list[str] = []
        held: list[bool] = []
        judged = [point for point in self.points if point.share in self.loads]
        shown = [point for point in judged if point.counts_for_model]
        for point in shown if self.service_certified else ():
            for k, percentile in enumerate(point.percentiles):
                allowed = MODEL_TOLERANCE.get(percentile)
                if allowed is None:
                    continue
                name = f"{point.share:.2f}x p{percentile:g}"
                error = math.nan if point.model_error is None else point.model_error[k]
                if math.isnan(error):
                    facts.append(f"{name}: left out, {point.queries} queries are too few")
                    continue
                held.append(abs(error) <= allowed)
                low, high = point.chance_ms[k]
                chance = "within" if point.within_chance[k] else "outside"
                facts.append(
                    f"{name}: {error:+.1%}; allowed {allowed:.0%}; measured {point.measured_ms[k]:.3g} ms is {chance} "
                    f"the {low:.3g} to {high:.3g} ms that runs of this length give"
                )
        if judged and not self.service_certified:
            facts.append(_UNCERTIFIED_TIMES)
        return _level("b", held, facts + _left_out(judged, shown))

    def _load_level(self) -> Level:
        if self.prediction is None or not self.service_certified:
            return _level("c", [], [_UNCERTIFIED_TIMES])
        claimed = self.prediction.qps
        facts = [f"{point.share:.2f}x: {self._said(point)}" for point in self._shown() if point.share >= 1.0]
        found, where = self._crossing()
        facts.append(f"max load {claimed:,.1f} q/s predicted; measured: {where}")
        held = [abs(found / claimed - 1.0) <= MAX_LOAD_TOLERANCE] if not math.isnan(found) else []
        if 0.0 < found < math.inf:
            facts[-1] += f", {found / claimed:.3f} of the prediction; allowed 1 +- {MAX_LOAD_TOLERANCE:g}"
        return _level("c", held, facts + _left_out(self.points, self._shown()))

    def _meets(self, point: LoadPoint) -> bool:
        return all(self._latency(point, sla) <= sla.latency_ms for sla in self.slas)

    def _said(self, point: LoadPoint) -> str:
        if any(math.isnan(self._latency(point, sla)) for sla in self.slas):
            return f"left out, {point.queries} queries are too few for the SLA's percentile"
        return f"{'meets' if self._meets(point) else 'misses'} the SLA, {self._reached(point)}"

    def _latency(self, point: LoadPoint, sla: Sla) -> float:
        """Measured latency at the SLA's percentile, milliseconds; NaN where there are too few queries."""
        return point.measured_ms[point.percentiles.index(float(sla.percentile))]

    def _reached(self, point: LoadPoint) -> str:
        return ", ".join(
            f"p{sla.percentile:g} {self._latency(point, sla):.3g} of {sla.latency_ms:g} ms" for sla in self.slas
        )

    def _crossing(self) -> tuple[float, str]:
        """:attr:`measured_qps`, and how it was found in words."""
        tells = [
            point.certified and not any(math.isnan(self._latency(point, sla)) for sla in self.slas)
            for point in self.points
        ]
        told = [k for k, known in enumerate(tells) if known]
        met = [k for k in told if self._meets(self.points[k])]
        if self.prediction is None or not told:
            return math.nan, "no certified run with enough queries for the SLA's percentile"
        lowest, highest = self.points[told[0]], self.points[told[-1]]
        if told[-1] in met:
            far = highest.share >= 1.0 + MAX_LOAD_TOLERANCE
            words = f"above {highest.qps:,.1f} q/s, the highest load with a certified run"
            return (math.inf if far else math.nan), words
        if not met:
            far = lowest.share <= 1.0 - MAX_LOAD_TOLERANCE
            return (0.0 if far else math.nan), f"below {lowest.qps:,.1f} q/s, the lowest load with a certified run"
        low, high = self.points[met[-1]], self.points[met[-1] + 1]
        if not tells[met[-1] + 1]:
            return math.nan, f"the run at {high.share:.2f}x, where the SLA may be crossed, is not certified"
        crossings = []
        for sla in self.slas:
            at, late, limit = 1.0 / self._latency(low, sla), 1.0 / self._latency(high, sla), 1.0 / sla.latency_ms
            if late < limit:
                crossings.append(low.qps + (at - limit) / (at - late) * (high.qps - low.qps))
        found = min(crossings)
        return found, f"{found:,.1f} q/s, between the runs at {low.share:.2f}x and {high.share:.2f}x"

    def explain(self) -> str:
        """What was claimed, what was shown, and what was not, in words."""
        return "\n".join(
            [*self.facts(), *(f"{one.name}: {one.verdict}: {fact}" for one in self.levels for fact in one.facts)]
        )

    def facts(self) -> list[str]:
        """The outcome without the figures of single runs: a sentence for each thing to know."""
        lines = [f"{self.model}, {' and '.join(map(str, self.slas))}"]
        if self.prediction is not None:
            p = self.prediction
            how = f"the best of {p.evaluations} configurations simulated" if p.searched else "as given"
            lines.append(f"configuration: {p.config.describe()} ({how})")
            low, high = p.interval_qps
            known = f" (95 % interval {low:,.1f} to {high:,.1f})" if math.isfinite(low) else ""
            lines.append(f"predicted max load: {p.qps:,.1f} q/s{known}, limited by {p.limit}")
            if p.rehearsal is not None:
                lines.append(
                    f"services under load, over their table: {p.rehearsal} at {p.rehearsal.qps:,.1f} q/s; by the "
                    f"table {p.unrehearsed_qps:,.1f} q/s"
                )
            else:
                lines.append("services were not rehearsed under load: too few queries in the time that was left")
        lines += [f"level {one.name}, {one.title}: {one.verdict}" for one in self.levels]
        lines.append("certified: every noise gate passed" if self.certified else "NOT CERTIFIED")
        lines += list(self.causes)
        lines += [f"note: {note}" for note in self.notes]
        if not self.complete:
            lines.append("the validation ended early; what is here was measured")
        return lines

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; a figure that is not finite is None."""
        prediction = None
        if self.prediction is not None:
            p = self.prediction
            names = ("qps", "interval_qps", "limit", "unrehearsed_qps", "searched", "evaluations")
            prediction = {name: getattr(p, name) for name in names}
            prediction["rehearsal"] = None if p.rehearsal is None else asdict(p.rehearsal)
            prediction["config"] = p.config.to_dict()
        document: dict[str, Any] = _plain(
            {
                "schema": SCHEMA,
                "model": self.model,
                "slas": [{"percentile": s.percentile, "latency_ms": s.latency_ms} for s in self.slas],
                "loads": self.loads,
                "prediction": prediction,
                "measured_max_qps": self.measured_qps,
                "points": [point.to_dict() for point in self.points],
                "levels": [
                    {"name": one.name, "title": one.title, "passed": one.passed, "facts": one.facts}
                    for one in self.levels
                ],
                "certified": self.certified,
                "causes": self.causes,
                "noise_before": self.noise_before.to_dict() if self.noise_before else None,
                "noise_after": self.noise_after.to_dict() if self.noise_after else None,
                "service_certified": self.service_certified,
                "service_cause": self.service_cause,
                "complete": self.complete,
                "notes": self.notes,
                "provenance": self.provenance,
            }
        )
        return document

    def to_json(self) -> str:
        """:meth:`to_dict` as text."""
        return json.dumps(self.to_dict(), indent=1, sort_keys=True, allow_nan=False) + "\n"


def _left_out(points: Sequence[LoadPoint], shown: Sequence[LoadPoint]) -> list[str]:
    noisy = [f"{point.share:.2f}x" for point in points if point not in shown]
    return [f"left out, not certified: {', '.join(noisy)}"] if noisy else []


def _level(name: str, held: Sequence[bool], facts: Sequence[str]) -> Level:
    return Level(name=name, title=LEVELS[name], passed=all(held) if held else None, facts=tuple(facts))


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value

"""Which arm a person gets, and what each arm adds for them: learned by `uplift`, kept as JSON, asked by `decide`. Pure."""

from __future__ import annotations

from typing import Any, NamedTuple, Self

import msgspec
import numpy as np
import numpy.typing as npt

from kiki.engage.feature_coder import Coded, FeatureCoder
from kiki.engage.outcomes import Features, Floats, Ints
from kiki.engage.shrunk_line import ShrunkLine
from kiki.errors import InvalidInput


class Evidence(NamedTuple):
    """What spoke for or against leaving the best constant arm, from persons whom no judged model had seen."""

    persons: int
    gain: float
    """Per person over the incumbent, in micros of margin after costs."""
    low: float
    """The gain is above this, as surely as was asked."""
    margin_gain: float
    """The same measured on the margin alone, without the early outcome."""
    margin_high: float
    deviating: float
    """The share of persons who would get another arm than the incumbent."""
    caution: float
    """How many standard deviations a person's gain must be above zero to deviate."""
    used_early: bool
    constants: dict[str, float]
    """By arm what a person earns when everybody gets it, after costs."""


class Policy(NamedTuple):
    """A rule that gives every person an arm."""

    arms: tuple[str, ...]
    """The first is the control."""
    costs: tuple[float, ...]
    incumbent: str
    """The best constant arm."""
    deviates: bool
    """Whether the evidence carries leaving it for some persons."""
    coder: FeatureCoder
    lines: dict[str, ShrunkLine]
    """By arm what it adds over the incumbent, before costs; arms without a line add what is unknown, so nothing."""
    evidence: Evidence | None = None

    @classmethod
    def constant(cls, arm: str, arms: tuple[str, ...], costs: tuple[float, ...] | None = None) -> Self:
        """The policy that gives everybody the same."""
        if arm not in arms:
            raise InvalidInput(f"{arm!r} is none of the arms: {', '.join(arms)}")
        return cls(arms, costs or (0.0,) * len(arms), arm, deviates=False, coder=FeatureCoder(()), lines={})

    def gains(self, features: Features, *, caution: float = 0.0) -> Floats:
        """Persons by arms: the expected gain over the incumbent after costs, less `caution` standard deviations of it."""
        rows = len(next(iter(features.values()))) if features else 0
        found = np.full((rows, len(self.arms)), -np.inf)
        at = self.arms.index(self.incumbent)
        found[:, at] = 0.0
        if self.lines and rows:
            columns = self.coder.matrix(features)
            for arm, line in self.lines.items():
                place = self.arms.index(arm)
                found[:, place] = line.at(columns) - (self.costs[place] - self.costs[at])
                if caution:
                    found[:, place] -= caution * line.deviation(columns)
        return found

    def choose(self, features: Features) -> list[str]:
        """By person the arm."""
        return [self.arms[place] for place in self.places(features).tolist()]

    def places(self, features: Features) -> Ints:
        """By person the place of the arm in `arms`."""
        rows = len(next(iter(features.values()))) if features else 0
        at = self.arms.index(self.incumbent)
        if not self.deviates:
            return np.full(rows, at, dtype=np.int64)
        found = self.gains(features, caution=self.evidence.caution if self.evidence else 0.0)
        best = np.argmax(found, axis=1)
        return np.where(found[np.arange(rows), best] > 0, best, at)

    def incremental(self, features: Features) -> Ints:
        """Persons by arms, in micros: what an arm adds over the control after its cost; what an allocation is made from.

        Shrunk estimates order the persons, so that a budget goes first where most is gained. Unless the evidence
        carries more, no arm is put above the incumbent for anybody.
        """
        gains = self.gains(features)
        at = self.arms.index(self.incumbent)
        if not self.deviates:
            gains = np.minimum(gains, np.where(np.arange(len(self.arms)) == at, np.inf, -1.0))
        known = np.isfinite(gains[:, 0]) if gains.size else np.zeros(0, dtype=bool)
        over = gains - np.where(known, gains[:, 0], 0.0)[:, None]
        if not self.lines and at != 0:
            over[:, at] = max(over[:, at].max(initial=0.0), 1.0)  # never measured, only told: enough to be chosen
        # -1 is "adds nothing" for an arm that nothing is known about.
        return np.where(np.isfinite(over), np.rint(np.nan_to_num(over, neginf=-1.0)), -1).astype(np.int64)

    def dump(self) -> bytes:
        """The policy as JSON."""
        return msgspec.json.encode(
            {
                "format": 1,
                "arms": self.arms,
                "costs": self.costs,
                "incumbent": self.incumbent,
                "deviates": self.deviates,
                "coder": {
                    "coded": [each._asdict() for each in self.coder.coded],
                    "centre": self.coder.centre,
                    # A column without spread has none to divide by: JSON knows no infinity.
                    "spread": [each if np.isfinite(each) else None for each in self.coder.spread],
                },
                "lines": {arm: _line_dict(line) for arm, line in self.lines.items()},
                "evidence": None if self.evidence is None else self.evidence._asdict(),
            }
        )

    @classmethod
    def load(cls, data: bytes) -> Self:
        """The policy that was dumped; raises `InvalidInput`."""
        try:
            read = msgspec.json.decode(data)
            if read["format"] != 1:
                raise InvalidInput(f"the policy has the format {read['format']!r}, and this kiki reads 1")
            coder = read["coder"]
            return cls(
                arms=tuple(read["arms"]),
                costs=tuple(map(float, read["costs"])),
                incumbent=str(read["incumbent"]),
                deviates=bool(read["deviates"]),
                coder=FeatureCoder(
                    tuple(
                        Coded(**{**each, "levels": tuple(each["levels"]), "cuts": tuple(each["cuts"])})
                        for each in coder["coded"]
                    ),
                    tuple(coder["centre"]),
                    tuple(np.inf if each is None else each for each in coder["spread"]),
                ),
                lines={arm: _read_line(line) for arm, line in read["lines"].items()},
                evidence=None if read["evidence"] is None else Evidence(**read["evidence"]),
            )
        except (msgspec.DecodeError, KeyError, TypeError, ValueError, AttributeError) as error:
            if isinstance(error, InvalidInput):
                raise
            raise InvalidInput("this is no policy that was learned by kiki") from None


def _line_dict(line: ShrunkLine) -> dict[str, Any]:
    return {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in line._asdict().items()}


def _read_line(read: dict[str, Any]) -> ShrunkLine:
    slopes: npt.NDArray[np.float64] = np.array(read["slopes"], dtype=float)
    return ShrunkLine(
        float(read["intercept"]),
        slopes,
        np.array(read["centre"], dtype=float),
        float(read["intercept_variance"]),
        np.array(read["covariance"], dtype=float).reshape(slopes.size, slopes.size),
        float(read["spread"]),
    )

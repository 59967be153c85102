"""Many customers at once, as columns: what playbooks ask about and decisions rest on. Pure.

Nothing here reaches anybody: no address, no name. A number that is not known is NaN, never zero.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from kiki.engage.profile import Profile
from kiki.errors import InvalidInput

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

DAY = 24 * 3600 * 1_000_000


@dataclass(slots=True)
class People:
    """Columns of equal length, sorted by customer id; moments in microseconds (NaN: never), money in micros."""

    now: int
    customers: list[str]
    persons: list[str]
    last_purchase: Floats
    last_engagement: Floats
    last_contact: Floats
    purchases: Ints
    spend: Ints
    engagement_score: Floats
    value: Floats
    """Expected revenue in micros."""
    churn: Floats
    """P(no purchase within the playbook's horizon)."""
    zones: list[str]
    countries: list[str]
    locales: list[str]
    segments: list[str]
    tags: list[tuple[str, ...]]
    is_test: Mask
    email_marketing: Floats
    """1, 0, NaN: not asked."""
    sms_marketing: Floats
    has_email: Mask
    has_phone: Mask
    events: dict[tuple[str, int], Ints] = field(default_factory=dict)
    """By kind and span, how many events each customer had."""

    def __len__(self) -> int:
        return len(self.customers)

    def number(self, name: str) -> Floats:
        """One of `kiki.engage.segment.NUMBERS`; money in whole units of the currency."""
        if name in {"days_since_purchase", "days_since_engagement", "days_since_contact"}:
            last: Floats = getattr(self, f"last_{name.removeprefix('days_since_')}")
            return (self.now - last) / DAY
        if name == "purchases":
            return self.purchases.astype(np.float64)
        if name in {"spend", "value"}:
            return np.asarray(getattr(self, name), dtype=np.float64) / 1e6
        if name in {"engagement_score", "churn"}:
            return np.asarray(getattr(self, name), dtype=np.float64)
        raise InvalidInput(f"{name!r} is no number that is known of customers")

    def has_text(self, name: str, values: Collection[str]) -> Mask:
        """By customer whether a text is one of these; of tags, whether at least one is."""
        wanted = frozenset(values)
        if name == "tag":
            return np.fromiter((not wanted.isdisjoint(tags) for tags in self.tags), dtype=bool, count=len(self))
        column: Sequence[str] = {"segment": self.segments, "country": self.countries, "locale": self.locales}[name]
        return np.fromiter((text in wanted for text in column), dtype=bool, count=len(self))

    def counts(self, event: str, within: int) -> Ints:
        """How many events of a kind each customer had within a span."""
        found = self.events.get((event, within))
        return np.zeros(len(self), dtype=np.int64) if found is None else found

    def take(self, rows: Ints) -> People:
        """Some of these people, in the order of `rows`."""
        at = rows.tolist()
        picked: dict[str, object] = {"now": self.now}
        for name in self.__slots__:
            column = getattr(self, name)
            if isinstance(column, np.ndarray):
                picked[name] = column[rows]
            elif isinstance(column, list):
                picked[name] = [column[place] for place in at]
        picked["events"] = {key: counts[rows] for key, counts in self.events.items()}
        return People(**picked)  # type: ignore[arg-type]  # every column of this one


def people_of(
    profiles: Sequence[Profile],
    now: int,
    *,
    persons: Sequence[str] = (),
    has_email: Sequence[bool] = (),
    has_phone: Sequence[bool] = (),
    last_contact: Mapping[str, int] | None = None,
) -> People:
    """Columns of these profiles; value and churn are not known yet."""
    contacts = last_contact or {}
    references = list(persons) or [profile.customer for profile in profiles]
    return People(
        now=now,
        customers=[each.customer for each in profiles],
        persons=references,
        last_purchase=_moments([each.last_purchase for each in profiles]),
        last_engagement=_moments([each.last_engagement for each in profiles]),
        last_contact=_moments([contacts.get(each) for each in references]),
        purchases=np.array([each.purchase_count for each in profiles], dtype=np.int64),
        spend=np.array([each.total_spend for each in profiles], dtype=np.int64),
        engagement_score=np.array([each.engagement_score for each in profiles], dtype=np.float64),
        value=np.full(len(profiles), np.nan),
        churn=np.full(len(profiles), np.nan),
        zones=[each.zone for each in profiles],
        countries=[each.country for each in profiles],
        locales=[each.locale for each in profiles],
        segments=[each.segment for each in profiles],
        tags=[each.tags for each in profiles],
        is_test=np.array([each.is_test for each in profiles], dtype=bool),
        email_marketing=_moments([each.email_marketing for each in profiles]),
        sms_marketing=_moments([each.sms_marketing for each in profiles]),
        has_email=np.array(has_email or [bool(each.email) for each in profiles], dtype=bool),
        has_phone=np.array(has_phone or [bool(each.phone) for each in profiles], dtype=bool),
    )


def _moments(given: Sequence[float | None]) -> Floats:
    return np.array([np.nan if each is None else each for each in given], dtype=np.float64)

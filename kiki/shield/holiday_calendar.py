"""The calendars that statutory clocks go by, from a country and a time zone, as `holidays` and the tz database have them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from kiki.errors import InvalidInput
from kiki.shield.deadline import Regime, WorkCalendar


def calendars_of(country: str | None, zone: str = "UTC") -> dict[Regime, WorkCalendar]:
    """The calendar of each law; `country` is ISO 3166, with a part after a dash: DE, DE-BY, US-CA.

    A country's holidays count for the law that holds there: those of the United States under CCPA, all others under
    GDPR. The other law then knows Saturdays and Sundays only, so its clocks can only be too early. Raises
    `InvalidInput` for a country or a time zone that is not known.
    """
    try:
        tz = ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise InvalidInput(f"{zone[:40]!r} is no time zone: write one such as Europe/Berlin or UTC") from None
    plain = WorkCalendar(tz, zone)
    if country is None:
        return dict.fromkeys(Regime, plain)
    dated = WorkCalendar(tz, zone, country, _holidays_of(country))
    own = Regime.CCPA if country.partition("-")[0] == "US" else Regime.GDPR
    return {regime: dated if regime is own else plain for regime in Regime}


def _holidays_of(country: str) -> Callable[[date], bool]:
    # A large package of data, which is loaded only where a country is configured.
    from holidays import country_holidays

    name, _, part = country.partition("-")
    try:
        days = country_holidays(name, subdiv=part or None)
    except NotImplementedError:
        raise InvalidInput(
            f"the public holidays of {country!r} are not known: write an ISO 3166 code such as DE, DE-BY or US-CA"
        ) from None
    # Years are worked out as they are asked for.
    return days.__contains__

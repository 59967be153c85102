"""A campaign's `settings` in a plan: what only its platform knows, each asked for by name. Pure.

Everything that is wrong is gathered; `refusal` says it at once, and then nothing is sent.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Final

from kiki.outbound.exchange import INVALID
from kiki.outbound.outcome import Outcome, refused

Plain = str | int | float | bool
SHOWN: Final = 60


class CampaignSettings:
    """Ask for everything that the platform knows, then for the `refusal`."""

    def __init__(self, given: Mapping[str, Plain]) -> None:
        self._given = given
        self._asked: dict[str, None] = {}
        self._problems: list[str] = []

    @property
    def refusal(self) -> Outcome | None:
        """The refusal of a campaign with such settings; None: they are right."""
        problems = [*self._problems, *map(self._unknown, sorted(set(self._given) - set(self._asked)))]
        return refused(INVALID, f"not sent: {'; '.join(problems)}") if problems else None

    def text(self, name: str, default: str | None, form: str, accepted: str) -> str:
        """A text that matches `form`; where it is missing `default`, and a problem when that is None."""
        value = self._take(name)
        if value is None:
            if default is None:
                self.wrong(f"setting {name!r} is missing; {accepted}")
            return default or ""
        text = str(value)
        if isinstance(value, bool) or not re.fullmatch(form, text):
            self.wrong(f"setting {name!r} is {text[:SHOWN]!r}; {accepted}")
        return text

    def word(self, name: str, default: str | None, words: tuple[str, ...]) -> str:
        """One of `words`."""
        return self.text(name, default, "|".join(map(re.escape, words)), f"write one of {', '.join(words)}")

    def flag(self, name: str, *, default: bool, meaning: str) -> bool:
        """True or false; `meaning` says of what."""
        value = self._take(name)
        if value is not None and not isinstance(value, bool):
            self.wrong(f"setting {name!r} is {str(value)[:SHOWN]!r}; write true or false: {meaning}")
        return default if value is None else value is True

    def name(self, name: str, most: int, platform: str) -> None:
        """The campaign's own name, of which the platform takes so many letters."""
        if len(name) > most:
            self.wrong(f"its name has {len(name)} letters, and {platform} takes {most}")

    def wrong(self, problem: str) -> None:
        """Note what is wrong."""
        self._problems.append(problem)

    def _take(self, name: str) -> Plain | None:
        self._asked[name] = None
        return self._given.get(name)

    def _unknown(self, name: str) -> str:
        near = difflib.get_close_matches(name, self._asked, n=1)
        advice = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(self._asked) or 'none'}"
        return f"setting {name[:SHOWN]!r} is not known; {advice}"

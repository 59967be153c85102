"""The story of runs while it happens: a line for each word, or JSON."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

from kiki.cli import show
from kiki.clock import to_iso
from kiki.flow.event_words import sentence

if TYPE_CHECKING:
    from kiki.flow.campaign_runner import CampaignRunner
    from kiki.flow.flow_client import FlowClient
    from kiki.flow.run_rows import Told


class Tale:
    """What was told of these runs so far."""

    def __init__(self, runner: CampaignRunner | FlowClient, names: list[str]) -> None:
        self._runner = runner
        self._after = dict.fromkeys(names, 0)
        self._refused: set[tuple[str, str]] = set()
        self._currency = {name: runner.plan(name).currency for name in names}

    def goes_on(self) -> bool:
        """Whether one of the runs has not ended."""
        states = {row.run: row.state for row in self._runner.runs()}
        return any(states.get(name) == "running" for name in self._after)

    def more(self) -> list[tuple[str, Told]]:
        """What was told since the last time, with its run."""
        found = []
        for name, after in self._after.items():
            for told in self._runner.events(name, after):
                found.append((name, told))
                self._after[name] = told.number
        return found

    def tell(self) -> None:
        """Say it on stderr."""
        for name, told in self.more():
            campaign = told.lane.removeprefix(f"{name}/")
            line = f"{campaign}: {sentence(told.event, told.detail, self._currency[name])}"
            # Money that is refused is asked for again and again until there is some; once is enough to read.
            if told.event != "flow.refused" or (name, line) not in self._refused:
                show.talk(line)
            if told.event == "flow.refused":
                self._refused.add((name, line))

    def print_json(self, seconds: float) -> None:
        """All of it on stdout, one object a line, until the runs have ended."""
        while True:
            last = not self.goes_on()
            for name, told in self.more():
                campaign = told.lane.removeprefix(f"{name}/")
                word = {"number": told.number, "at": to_iso(told.at), "run": name, "campaign": campaign}
                print(json.dumps({**word, "event": told.event, "detail": told.detail}), flush=True)
            if last:
                return
            time.sleep(seconds)

"""A word of a run's story as a sentence. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from kiki.flow.words import amount_in_words

_DOES: Final = {
    "create": "make the campaign",
    "set_budget": "set the daily budget",
    "set_bid": "set the bid",
    "resume": "let it spend",
    "pause": "pause it",
    "archive": "archive its twin",
}


def sentence(event: str, detail: Mapping[str, Any], currency: str) -> str:
    """What happened; an event that this version does not know is said by its name."""

    def money(name: str) -> str:
        return amount_in_words(int(detail.get(name, 0)), currency)

    day, code = detail.get("day", ""), detail.get("code", "")
    because = f": {code}" if code else ""
    match event:
        case "flow.lane_started":
            return f"begun, {detail.get('starts')} to {detail.get('ends')}"
        case "flow.lane_ended":
            return f"ended: {detail.get('how')}"
        case "flow.approval_asked":
            return f"waits for approval: a day costs {money('peak')}, above {money('above')}"
        case "flow.approved":
            return f"approved{_by(detail)}"
        case "flow.signal":
            return f"told to {detail.get('kind')}{_by(detail)}"
        case "flow.reserved":
            return f"{money('micros')} set aside for {day}"
        case "flow.refused":
            return f"no money for {day}{because}"
        case "flow.guard_silent":
            asked = f"{money('micros')} for {day} are asked for again, and " if day else ""
            return f"the guard does not answer: {asked}nothing new is spent meanwhile"
        case "flow.bid_chosen":
            return f"bids {money('micros')} of a value of {money('ltv')} ({detail.get('source')})"
        case "flow.called":
            return f"{_what(detail, currency)}: {detail.get('fate')}{because}"
        case "flow.read_back":
            return f"{_what(detail, currency)}: read back, {detail.get('fate')}"
        case "flow.settled":
            beyond = f", {money('beyond')} beyond what was set aside" if detail.get("beyond") else ""
            return f"{day} cost {money('spent')} of {money('held')}{beyond}"
        case "flow.credited":
            return f"{day} became cheaper by {amount_in_words(-int(detail.get('change', 0)), currency)}"
        case "flow.revised":
            return f"{day} became dearer by {money('change')}"
        case "flow.drift":
            return _drift(detail, currency)
        case "flow.not_paused":
            return f"could not be paused{because}"
        case "flow.not_started":
            return f"could not be started{because}"
        case "flow.budget_not_set":
            return f"the budget could not be set to {money('budget')}{because}"
        case "flow.twin_archived":
            return f"made twice there; the second one, {detail.get('twin')}, archived: {detail.get('fate')}"
        case "flow.failed":
            return f"failed{because} {detail.get('message', '')}".rstrip()
        case _:
            return event


def _what(detail: Mapping[str, Any], currency: str) -> str:
    does = _DOES.get(str(detail.get("does", "")), str(detail.get("step", "a call")))
    return f"{does}, {amount_in_words(int(detail['micros']), currency)}" if "micros" in detail else does


def _drift(detail: Mapping[str, Any], currency: str) -> str:
    if detail.get("found") == "active":
        return "DRIFT: the platform lets it spend, and we had it paused"
    if detail.get("found") == "twin":
        return "DRIFT: another campaign of its name is active there"
    if detail.get("found") == "budget":
        return f"DRIFT: the platform shows a budget of {amount_in_words(int(detail['budget']), currency)}"
    if "change" in detail:
        unheld = ", for which nothing was set aside" if detail.get("unheld") else ""
        return f"DRIFT: {detail.get('day')} cost {amount_in_words(int(detail['change']), currency)} more{unheld}"
    return f"DRIFT: the hold of {detail.get('day')} could not be ended: {detail.get('code')}"


def _by(detail: Mapping[str, Any]) -> str:
    return f" by {detail['actor']}" if detail.get("actor") else ""

from __future__ import annotations

from pathlib import Path

import jsonschema_rs
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import kiki.engage
from kiki.engage.playbook import DAY, Jump, QuietHours, Send, Split, Wait, WaitFor
from kiki.engage.playbook_schema import playbook_schema
from kiki.engage.playbook_text import parse_playbook
from kiki.engage.segment import All, Happened, InSegment, NumberIs
from kiki.errors import PlaybookError

LEGACY = Path(kiki.engage.__file__).parent / "playbooks" / "legacy.yaml"
GOOD = """
playbook: win-back
currency: EUR
zone: Europe/Vienna
holdout: 5%
margin: 40%
cooldown: 3d
caps:
  - {messages: 1, per: day}
  - {messages: 3, per: 7d, channel: sms}
channels:
  sms: {cost: 0.05, quiet_hours: "20:00-09:00"}
segments:
  lapsed: {all: [{days_since_purchase: {over: 60}}, {purchases: {at_least: 2}}]}
  keen: {event: clicked, within: 14d, at_least: 2}
  both: {all: [{in: lapsed}, {not: {in: keen}}]}
messages:
  mail: {channel: email, subject: Hello, text: "Dear {{ first_name }}"}
  text: {channel: sms, text: Hi}
offers:
  hello: {message: mail}
  ten: {message: text, cost: 4.00, discount: 10, gain: 5}
journeys:
  win-back:
    enter: {segment: both}
    again_after: 90d
    exit: {event: order}
    goal: {event: order, within: 30d}
    steps:
      - send: [hello, ten]
        name: first
      - wait: 3d
      - wait_for: order
        within: 7d
      - split:
          - {share: 50%, steps: [{send: hello}]}
          - {share: 50%, steps: []}
      - send: ten
"""


def problems(text: str) -> str:
    with pytest.raises(PlaybookError) as caught:
        parse_playbook(text)
    return "\n".join(caught.value.problems)


def mistakes(text: str) -> tuple[str, ...]:
    try:
        parse_playbook(text)
    except PlaybookError as error:
        return error.problems
    return ()


def test_a_whole_playbook():
    made = parse_playbook(GOOD)
    assert (made.name, made.currency, made.holdout, made.margin_rate) == ("win-back", "EUR", 50_000, 400_000)
    assert [(cap.messages, cap.calendar, cap.channel) for cap in made.caps] == [(1, "day", ""), (3, "", "sms")]
    assert made.quiet_on("sms") == QuietHours(20 * 60, 9 * 60)
    assert made.quiet_on("email") is None
    assert (made.cost_of("hello"), made.cost_of("ten")) == (0, 4_050_000)
    assert isinstance(made.segments["lapsed"], All)
    assert isinstance(made.segments["lapsed"].parts[0], NumberIs)
    assert made.segments["keen"] == Happened("clicked", 14 * DAY, 2)
    assert made.segments["both"].parts[0] == InSegment("lapsed")
    (journey,) = made.journeys
    assert journey.steps == (
        Send("first", ("hello", "ten")),
        Wait(3 * DAY),
        WaitFor("order", 7 * DAY),
        Split("split-1", (500_000, 500_000), (4, 6)),
        Send("send-1", ("hello",)),
        Jump(7),
        Jump(7),
        Send("send-2", ("ten",)),
    )
    assert made.version == parse_playbook(GOOD).version
    assert made.version != parse_playbook(GOOD.replace("90d", "91d")).version


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "days_since_purchase",
            "days_since_purchas",
            "line 14: a condition has the unknown key 'days_since_purchas'; did you mean 'days_since_purchase'?",
        ),
        ("{segment: both}", "{segment: bothh}", "segment 'bothh' is not known; did you mean 'both'?"),
        ("[hello, ten]", "[helo, ten]", "offer 'helo' is not known; did you mean 'hello'?"),
        ("{message: mail}", "{message: mall}", "message 'mall' is not known; did you mean 'mail'?"),
        ("Europe/Vienna", "Europe/Atlantis", "zone 'Europe/Atlantis' is not known"),
        ("holdout: 5%", "holdout: 105%", "'105%' is not a share"),
        ("holdout: 5%", "holdout: 95%", "nobody would be left"),
        ("cooldown: 3d", "cooldown: 3 days", "'3 days' is no span"),
        ("20:00-09:00", "25:00-09:00", "quiet_hours '25:00-09:00' are not hours"),
        ("20:00-09:00", "09:00-09:00", "begin when they end"),
        ("{in: lapsed}", "{in: both}", "segment 'both' is made of itself"),
        ("event: clicked, within: 14d,", "event: clicked,", "needs 'within'"),
        ("event: order, within: 30d", "event: opened, within: 30d", "an open is no goal"),
        ("share: 50%, steps: []", "share: 40%, steps: []", "the shares of a split add up to 90%"),
        ("        name: first", "        named: first", "unknown key 'named'; did you mean 'name'?"),
        ("      - wait: 3d", "      - {wait: 3d, send: hello}", "a step is one of send, wait, wait_for and split"),
        ("gain: 5", "gain: 3", "offer 'ten' is believed to gain less than it costs"),
        ("currency: EUR", "currency: euro", "currency 'euro' cannot be used"),
        ("subject: Hello, ", "", "message 'mail' has no 'subject'"),
        (
            "{{ first_name }}",
            "{{ frist_name }}",
            "line 18: message 'mail': text: there is no field 'frist_name'; did you mean 'first_name'?",
        ),
        (
            "subject: Hello,",
            'subject: "{% set x = 1 %}",',
            "line 18: message 'mail': subject, line 1: set is not possible",
        ),
        ("text: Hi}", 'text: "  "}', "line 19: message 'text': text is missing"),
        ("cost: 4.00", "cost: -4.00", "'-4.00' is not a positive amount"),
        ("playbook: win-back", "playbook: Win Back", "'playbook' 'Win Back' is not a name"),
        ("{over: 60}", "{over: 60, absent: true}", "is absent or compared, not both"),
        ("{over: 60}", "{}", "says nothing"),
        ("messages: 1, per: day", "messages: 0, per: fortnight", "neither a span such as 7d nor day, week or month"),
    ],
)
def test_every_mistake_says_what_is_accepted(old, new, said):
    assert old in GOOD
    found = problems(GOOD.replace(old, new, 1)).replace("playbook:", "line ")
    assert said in found


def test_all_mistakes_are_told_at_once():
    found = problems(
        GOOD.replace("Europe/Vienna", "x").replace("holdout: 5%", "holdout: x").replace("[hello, ten]", "[x]")
    )
    assert len(found.splitlines()) >= 3


@pytest.mark.parametrize(
    "text", ["", "[]", "a: b: c", "playbook: x", "- 1", "&a [*a]", "%YAML 1.2\n---\na: 1", "a: !!python/object:x {}"]
)
def test_what_is_no_playbook_is_refused(text):
    assert "playbook" in problems(text)


@given(st.text(max_size=300))
def test_any_text_is_a_playbook_or_a_list_of_mistakes(text):
    mistakes(text)


@given(st.data())
def test_any_change_of_a_good_playbook_is_read_or_refused_with_a_line(data):
    lines = GOOD.splitlines()
    place = data.draw(st.integers(0, len(lines) - 1))
    lines[place] = data.draw(
        st.one_of(st.just(""), st.text(max_size=40), st.just("  " + lines[place]), st.just(lines[place][2:]))
    )
    assert all(problem.split(":")[1].isdigit() for problem in mistakes("\n".join(lines)))


@pytest.mark.parametrize("text", [GOOD, LEGACY.read_text()])
def test_the_schema_takes_what_the_reader_takes(text):
    jsonschema_rs.validator_for(playbook_schema()).validate(yaml.safe_load(text))
    parse_playbook(text)


@pytest.mark.parametrize("new", ["{segmnt: both}", "{}", "[1]"])
def test_the_schema_refuses_what_the_reader_refuses(new):
    text = GOOD.replace("{segment: both}", new)
    assert not jsonschema_rs.validator_for(playbook_schema()).is_valid(yaml.safe_load(text))
    problems(text)

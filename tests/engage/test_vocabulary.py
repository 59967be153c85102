import msgspec
import pytest

from kiki.engage.channel import Content, Message
from kiki.engage.event import DeliveryState, Event, OptOut, OptOutReason, Order
from kiki.engage.profile import PERSONAL_FIELDS, Profile
from kiki.engage.webhook import WebhookCall


def test_a_profile_and_a_message_show_nobody():
    profile = Profile(customer="c-1", email="ann@example.com", phone="+15551234567", first_name="Ann", last_name="Lee")
    message = Message(action="a", channel="email", to="ann@example.com", content=Content(text="Dear Ann"))
    call = WebhookCall("POST", "https://x/?customer=ann", {}, b"ann@example.com")
    for shown in (repr(profile), str(profile), repr(message), str(message), repr(call)):
        assert "ann" not in shown.lower()
        assert "555" not in shown


def test_without_personal_fields_a_profile_reaches_nobody():
    profile = Profile(customer="c-1", email="e", phone="p", first_name="f", last_name="l", zone="Europe/Zurich")
    bare = profile.without_personal()
    assert all(getattr(bare, field) == "" for field in PERSONAL_FIELDS)
    assert (bare.customer, bare.zone) == ("c-1", "Europe/Zurich")


def test_delivery_states_have_a_rank():
    ranks = [state.rank for state in DeliveryState]
    assert ranks == sorted(ranks)


@pytest.mark.parametrize(
    "event",
    [
        Order(id="shop:order:1", customer="c-1", at=1, amount=2, products=("a",)),
        OptOut(id="x", at=1, reason=OptOutReason.STOPPED, address="+1555", channel="sms"),
    ],
)
def test_events_survive_their_json(event):
    assert msgspec.json.decode(msgspec.json.encode(event), type=Event) == event

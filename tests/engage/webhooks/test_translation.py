"""What each provider's events become, with ids that are the same each time they are told."""

from __future__ import annotations

import base64
import contextlib
import hmac
import json
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kiki.clock import SECOND
from kiki.engage.event import (
    Delivery,
    DeliveryState,
    OptIn,
    OptOut,
    OptOutReason,
    Order,
    PrivacyKind,
    PrivacyRequest,
    Refund,
    Touch,
    TouchKind,
)
from kiki.engage.profile import Profile
from kiki.engage.webhook import WebhookCall
from kiki.engage.webhooks.hubspot import HubSpotReader
from kiki.engage.webhooks.sendgrid import SendGridReader
from kiki.engage.webhooks.shopify import TOPICS, ShopifyReader
from kiki.engage.webhooks.twilio import TwilioReader
from kiki.errors import ConfigurationError, InvalidInput, Unauthenticated
from kiki.settings import Secret
from tests.engage.webhooks.signers import (
    HUBSPOT_SECRET,
    SENDGRID_PUBLIC,
    Form,
    hubspot_call,
    sendgrid_call,
    twilio_call,
    twilio_reader,
)

NOW = 1_795_000_000 * SECOND
SHOP = "tea-shop.myshopify.com"
SHOPIFY_SECRET = "shopify-client-secret"
CALLBACK = "https://kiki.example/v1/webhooks/twilio?action=act-1"


# SendGrid


def mail_event(**members):
    return {"event": "delivered", "timestamp": 1_795_000_000, "sg_event_id": "e1", "email": "ann@example.com"} | members


def read_mail(*events):
    call = sendgrid_call(json.dumps(events).encode(), NOW // SECOND)
    return SendGridReader(SENDGRID_PUBLIC).read(call, NOW)


OURS = {"kiki_action": "act-1", "sg_message_id": "m1.recvd"}


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (
            mail_event(**OURS),
            [Delivery(id="sendgrid:e1", action="act-1", at=NOW, state=DeliveryState.DELIVERED, provider_id="m1.recvd")],
        ),
        (mail_event(event="open", **OURS), [Touch(id="sendgrid:e1", at=NOW, kind=TouchKind.OPENED, action="act-1")]),
        (mail_event(event="open", sg_machine_open=True, **OURS), []),
        (mail_event(event="click", **OURS), [Touch(id="sendgrid:e1", at=NOW, kind=TouchKind.CLICKED, action="act-1")]),
        (
            mail_event(event="spamreport"),
            [
                OptOut(
                    id="sendgrid:e1:opt_out",
                    at=NOW,
                    reason=OptOutReason.COMPLAINED,
                    channel="email",
                    address="ann@example.com",
                )
            ],
        ),
        (
            mail_event(event="bounce", status="5.1.1", type="bounce", **OURS),
            [
                Delivery(
                    id="sendgrid:e1",
                    action="act-1",
                    at=NOW,
                    state=DeliveryState.FAILED,
                    provider_id="m1.recvd",
                    code="5.1.1",
                ),
                OptOut(
                    id="sendgrid:e1:opt_out",
                    at=NOW,
                    reason=OptOutReason.BOUNCED,
                    channel="email",
                    address="ann@example.com",
                    action="act-1",
                ),
            ],
        ),
        (mail_event(event="bounce", status="4.2.2"), []),  # a full mailbox is no reason to be silent for ever
        (mail_event(event="bounce", status="5.7.1", type="blocked"), []),
        (mail_event(event="delivered"), []),  # mail of somebody else on the same account
        (mail_event(event="something_new"), []),
    ],
)
def test_sendgrid_events(event, expected):
    assert expected == list(read_mail(event))


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("Bounced Address", OptOutReason.BOUNCED),
        ("Unsubscribed Address", OptOutReason.UNSUBSCRIBED),
        ("Spam Reporting Address", OptOutReason.COMPLAINED),
        ("Spam Content (if Spam Checker app enabled)", None),
    ],
)
def test_what_a_dropped_mail_says_about_its_address(reason, expected):
    [*found] = read_mail(mail_event(event="dropped", reason=reason))
    assert [expected] * (expected is not None) == [one.reason for one in found]


def test_a_repeated_event_has_the_same_id():
    assert read_mail(mail_event(**OURS)) == read_mail(mail_event(**OURS))


def test_a_key_that_is_none_is_a_mistake_of_the_configuration():
    for key in ("", "nonsense", base64.b64encode(b"nonsense").decode()):
        with pytest.raises(ConfigurationError, match="verification key"):
            SendGridReader(key)


# Twilio


def read_sms(form, url=CALLBACK):
    return list(twilio_reader().read(twilio_call(url, Form({name: [one] for name, one in form.items()})), NOW))


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ("queued", DeliveryState.ACCEPTED),
        ("sent", DeliveryState.SENT),
        ("delivered", DeliveryState.DELIVERED),
        ("undelivered", DeliveryState.FAILED),
    ],
)
def test_twilio_states(status, state):
    [told] = read_sms({"MessageSid": "SM1", "MessageStatus": status, "To": "+15551234567"})
    assert (f"twilio:SM1:{status}", "act-1", state) == (told.id, told.action, told.state)


def test_a_number_that_has_said_stop_is_suppressed_by_the_callback():
    _, told = read_sms({"MessageSid": "SM1", "MessageStatus": "failed", "ErrorCode": "21610", "To": "+15551234567"})
    assert (OptOutReason.STOPPED, "+15551234567", "sms") == (told.reason, told.address, told.channel)


@pytest.mark.parametrize("word", ["STOP", " stop ", "StopAll", "QUIT"])
def test_stop_by_sms(word):
    [told] = read_sms({"MessageSid": "SM2", "SmsStatus": "received", "From": "+15551234567", "Body": word})
    assert told == OptOut(
        id="twilio:SM2:stop", at=NOW, reason=OptOutReason.STOPPED, channel="sms", address="+15551234567"
    )


def test_start_lifts_it_and_talk_does_nothing():
    [told] = read_sms({"MessageSid": "SM3", "SmsStatus": "received", "From": "+15551234567", "Body": "Start"})
    assert told == OptIn(id="twilio:SM3:start", at=NOW, channel="sms", address="+15551234567")
    assert read_sms({"MessageSid": "SM4", "SmsStatus": "received", "From": "+1", "Body": "please stop calling"}) == []


def test_advanced_opt_out_knows_words_of_other_languages():
    form = {"MessageSid": "SM5", "SmsStatus": "received", "From": "+1555", "Body": "ARRET", "OptOutType": "STOP"}
    assert [OptOutReason.STOPPED] == [told.reason for told in read_sms(form)]


def test_the_plus_of_a_number_survives_its_form():
    """The original glued its form together: a plus arrived as a blank."""
    [told] = read_sms({"MessageSid": "SM6", "SmsStatus": "received", "From": "+4179 & co", "Body": "STOP"})
    assert "+4179 & co" == told.address


def test_a_shared_key_that_nobody_configured_is_named():
    call = twilio_call(CALLBACK, Form({"MessageSid": ["SM1"]}))
    headers = {**call.headers, "x-twilio-webhooks-signature-settings": "key=key-9,algorithm=HMAC_SHA256"}
    with pytest.raises(Unauthenticated, match="shared key that is not configured"):
        twilio_reader().read(call._replace(headers=headers), NOW)


def test_json_without_its_hash_is_not_proven():
    call = twilio_call(CALLBACK, Form({}))
    forged = call._replace(body=b'{"MessageSid": "SM1"}', headers={**call.headers, "content-type": "application/json"})
    with pytest.raises(Unauthenticated, match="bodySHA256"):
        TwilioReader(Secret("twilio-auth-token")).read(forged, NOW)


# HubSpot


def read_crm(*events):
    return list(HubSpotReader(Secret(HUBSPOT_SECRET)).read(hubspot_call(json.dumps(events).encode(), NOW), NOW))


def crm_event(**members):
    return {"eventId": 9, "objectId": 123, "occurredAt": NOW // 1000, "attemptNumber": 0} | members


def test_hubspot_events():
    assert [] == read_crm(crm_event(subscriptionType="contact.creation"))
    [told] = read_crm(crm_event(subscriptionType="contact.privacyDeletion"))
    assert told == PrivacyRequest(id="hubspot:privacy:123", at=NOW, kind=PrivacyKind.DELETION, customer="123")
    [told] = read_crm(
        crm_event(subscriptionType="contact.propertyChange", propertyName="hs_email_optout", propertyValue="true")
    )
    assert (OptOutReason.UNSUBSCRIBED, "123", "email") == (told.reason, told.customer, told.channel)


# Shopify


def shop_call(topic, body, secret=SHOPIFY_SECRET, **headers):
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    signature = base64.b64encode(hmac.new(secret.encode(), raw, sha256).digest()).decode()
    named = {"x-shopify-hmac-sha256": signature, "x-shopify-topic": topic, "x-shopify-shop-domain": SHOP}
    return WebhookCall("POST", "https://kiki.example/v1/webhooks/shopify", named | headers, raw)


def read_shop(topic, body, **more):
    reader = ShopifyReader(Secret(SHOPIFY_SECRET), Secret("the-older-secret"), shop=SHOP)
    return list(reader.read(shop_call(topic, body, **more), NOW))


ORDER = {
    "id": 450789469,
    "created_at": "2026-11-22T10:00:00+01:00",
    "total_price": "49.90",
    "currency": "CHF",
    "customer": {"id": 207119551},
    "discount_codes": [{"code": "BACK-7F", "amount": "5.00", "type": "fixed_amount"}],
    "line_items": [{"product_id": 632910392}, {"product_id": None}],
    "financial_status": "paid",
}


def test_rfc_4231_is_what_we_compute():
    """Shopify's kit for Python has no check of webhooks: the published vector of HMAC-SHA-256 stands in."""
    digest = bytes.fromhex("5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843")
    headers = {
        "x-shopify-hmac-sha256": base64.b64encode(digest).decode(),
        "x-shopify-topic": "app/uninstalled",
        "x-shopify-shop-domain": SHOP,
    }
    call = WebhookCall("POST", "https://k/", headers, b"what do ya want for nothing?")
    assert () == ShopifyReader(Secret("Jefe"), shop=SHOP).read(call, NOW)
    with pytest.raises(Unauthenticated):
        ShopifyReader(Secret("Jefe"), shop=SHOP).read(call._replace(body=call.body + b" "), NOW)


def test_an_order_is_told_with_the_shops_own_id():
    [told] = read_shop("orders/paid", ORDER)
    assert told == Order(
        id="shopify:order:450789469",
        customer="207119551",
        at=1_795_338_000 * SECOND,
        amount=49_900_000,
        currency="CHF",
        code="BACK-7F",
        products=("632910392",),
    )
    assert [told] == read_shop("orders/updated", ORDER)


def test_an_order_that_was_never_paid_is_taken_back_when_cancelled():
    cancelled = ORDER | {"cancelled_at": "2026-11-23T10:00:00Z"}
    _, told = read_shop("orders/cancelled", cancelled | {"financial_status": "voided"})
    assert (Refund, 49_900_000, "shopify:order:450789469") == (type(told), told.amount, told.order)
    # What was paid comes back as refunds, which have topics of their own.
    assert [Order] == [type(one) for one in read_shop("orders/cancelled", cancelled)]


def test_a_refund_counts_what_was_really_paid_back():
    transactions = [
        {"amount": "10.00", "kind": "refund", "status": "success", "currency": "CHF"},
        {"amount": "7.00", "kind": "refund", "status": "failure", "currency": "CHF"},
    ]
    body = {"id": 1, "order_id": 450789469, "created_at": "2026-11-23T10:00:00Z", "transactions": transactions}
    [told] = read_shop("refunds/create", body)
    assert (10_000_000, "shopify:order:450789469", "shopify:refund:1") == (told.amount, told.order, told.id)


def test_a_customer_is_a_profile_and_an_absent_purchase_stays_absent():
    body = {
        "id": 207119551,
        "updated_at": "2026-11-22T10:00:00Z",
        "email": "ann@example.com",
        "first_name": "Ann",
        "tags": "vip, tea ,",
        "orders_count": 0,
        "total_spent": "0.00",
        "email_marketing_consent": {"state": "not_subscribed"},
        "sms_marketing_consent": {"state": "unsubscribed"},
    }
    [told] = read_shop("customers/update", body)
    assert isinstance(told, Profile)
    assert (None, None, False, ("tea", "vip")) == (
        told.last_purchase,
        told.email_marketing,
        told.sms_marketing,
        told.tags,
    )


def test_consent_that_was_withdrawn_in_the_shop():
    consent = {"state": "unsubscribed", "consent_updated_at": "2026-11-22T10:00:00Z"}
    [told] = read_shop(
        "customers_email_marketing_consent/update", {"customer_id": 7, "email_marketing_consent": consent}
    )
    assert (OptOutReason.UNSUBSCRIBED, "7", "email") == (told.reason, told.customer, told.channel)


def test_the_three_privacy_topics_become_requests():
    customer = {"id": 7, "email": "ann@example.com", "phone": "+15551234567"}
    shop = {"shop_id": 5, "shop_domain": SHOP}
    asked = read_shop(
        "customers/data_request", shop | {"customer": customer, "orders_requested": [1], "data_request": {"id": 9}}
    )
    redact = read_shop("customers/redact", shop | {"customer": customer, "orders_to_redact": [1]})
    whole = read_shop("shop/redact", shop)
    kinds = [(one.kind, one.customer) for one in (*asked, *redact, *whole)]
    assert [(PrivacyKind.ACCESS, "7"), (PrivacyKind.DELETION, "7"), (PrivacyKind.SHOP_DELETION, "")] == kinds
    assert asked[0].id == "shopify:data_request:9"
    assert "ann@example.com" not in repr((asked, redact, whole)) + str(asked[0])


def test_a_body_recorded_under_one_topic_means_nothing_under_another():
    """Shopify signs the body alone, so the topic may be forged."""
    bodies = {
        "orders/paid": ORDER,
        "customers/update": {"id": 7, "updated_at": "2026-11-22T10:00:00Z", "email": "ann@example.com"},
        "customers/data_request": {"shop_domain": SHOP, "customer": {"id": 7}, "data_request": {"id": 9}},
    }
    for topic, body in bodies.items():
        for forged in ("customers/redact", "shop/redact", *(set(bodies) - {topic})):
            with pytest.raises(InvalidInput):
                read_shop(forged, body)


def test_the_older_secret_still_proves_and_another_shop_does_not():
    assert read_shop("orders/paid", ORDER, secret="the-older-secret")
    with pytest.raises(Unauthenticated):
        read_shop("orders/paid", ORDER, secret="nobody's")
    with pytest.raises(Unauthenticated, match="another shop"):
        read_shop("orders/paid", ORDER, **{"x-shopify-shop-domain": "other.myshopify.com"})


@pytest.mark.parametrize("moment", ["2026-11-17T10:00:00Z", "2036-01-01T00:00:00Z", "yesterday"])
def test_a_call_that_says_to_be_old_or_from_the_future_is_refused(moment):
    with pytest.raises(Unauthenticated):
        read_shop("orders/paid", ORDER, **{"x-shopify-triggered-at": moment})


def test_a_body_that_a_proxy_wrote_anew_is_refused():
    call = shop_call("orders/paid", ORDER)
    again = json.dumps(json.loads(call.body), separators=(",", ":")).encode()
    with pytest.raises(Unauthenticated, match="signature"):
        ShopifyReader(Secret(SHOPIFY_SECRET), shop=SHOP).read(call._replace(body=again), NOW)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from(TOPICS), json_values | st.fixed_dictionaries({"id": json_values, "customer": json_values}))
def test_no_signed_body_breaks_a_reader(topic, body):
    with contextlib.suppress(InvalidInput):
        read_shop(topic, body)
    for read in (read_mail, read_crm):
        with contextlib.suppress(InvalidInput):
            read(body)


def test_hubspots_proof_of_an_address_that_is_no_text_is_wrong():
    """Without a public URL the Host header is part of what was signed, and a header may hold any bytes."""
    call = hubspot_call(b"[]", NOW)._replace(url="http://\udcff/v1/webhooks/hubspot")
    with pytest.raises(Unauthenticated, match="signature"):
        HubSpotReader(Secret(HUBSPOT_SECRET)).read(call, NOW)

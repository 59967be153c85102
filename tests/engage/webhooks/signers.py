"""Calls as providers make them, signed by the providers' own kits, some of them spoilt on the way.

Each `…_case` gives a call, what the provider's kit says about it, and the reader to ask. Tests take a few hundred of them,
the benchmark ten thousand.
"""

from __future__ import annotations

import base64
import json
import time
from dataclasses import dataclass
from hashlib import sha256
from random import Random
from urllib.parse import quote, urlencode

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hubspot.utils.signature import Signature
from sendgrid.helpers.eventwebhook import EventWebhook
from twilio.request_validator import RequestValidator, get_signature_algorithm

from kiki.clock import SECOND
from kiki.engage.webhook import WebhookCall, WebhookReader
from kiki.engage.webhooks.hubspot import HubSpotReader, signed_uri
from kiki.engage.webhooks.sendgrid import SendGridReader
from kiki.engage.webhooks.twilio import TwilioReader
from kiki.errors import InvalidInput, Unauthenticated
from kiki.settings import Secret

LETTERS = "abc XYZ019+&=%?é漢-_~.,:;/!'()*$@\"\\\n"


@dataclass
class Case:
    call: WebhookCall
    kit_accepts: bool
    reader: WebhookReader
    now: int

    @property
    def we_accept(self) -> bool:
        try:
            self.reader.read(self.call, self.now)
        except Unauthenticated:
            return False
        except InvalidInput:
            return True  # proven, though it says nothing that we understand
        return True


def word(rng: Random, most: int = 12) -> str:
    return "".join(rng.choice(LETTERS) for _ in range(rng.randint(0, most)))


def document(rng: Random) -> str:
    return json.dumps([{word(rng): word(rng, 40)} for _ in range(rng.randint(0, 3))], ensure_ascii=rng.random() < 0.5)


def spoilt(rng: Random, text: str) -> str:
    """The text with one change; sometimes the same text."""
    if not text or rng.random() < 0.5:
        return text
    place = rng.randrange(len(text))
    return rng.choice([text[:place], text + "x", text[:place] + rng.choice(LETTERS) + text[place + 1 :]])


# SendGrid

SENDGRID_KEY = ec.derive_private_key(20_261_129, ec.SECP256R1())
SENDGRID_PUBLIC = base64.b64encode(
    SENDGRID_KEY.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
).decode()


def sendgrid_call(body: bytes, seconds: int, **headers: str) -> WebhookCall:
    signature = SENDGRID_KEY.sign(str(seconds).encode() + body, ec.ECDSA(hashes.SHA256()))
    return WebhookCall(
        "POST",
        "https://kiki.example/v1/webhooks/sendgrid",
        {
            "x-twilio-email-event-webhook-signature": base64.b64encode(signature).decode(),
            "x-twilio-email-event-webhook-timestamp": str(seconds),
            **headers,
        },
        body,
    )


def sendgrid_case(rng: Random, *, now: int, offset_seconds: int = 0) -> Case:
    seconds = now // SECOND + offset_seconds
    call = sendgrid_call(document(rng).encode(), seconds)
    body = spoilt(rng, call.body.decode())
    headers = dict(call.headers)
    if rng.random() < 0.2:
        headers["x-twilio-email-event-webhook-timestamp"] = str(seconds - rng.randint(1, 100))
    accepts = EventWebhook(SENDGRID_PUBLIC).verify_signature(
        body,
        headers["x-twilio-email-event-webhook-signature"],
        headers["x-twilio-email-event-webhook-timestamp"],
    )
    spoilt_call = call._replace(body=body.encode(), headers=headers)
    return Case(spoilt_call, accepts, SendGridReader(SENDGRID_PUBLIC), now)


# HubSpot

HUBSPOT_SECRET = "hubspot-client-secret"


def hubspot_call(body: bytes, micros: int, url: str = "https://kiki.example/v1/webhooks/hubspot") -> WebhookCall:
    timestamp = str(micros // 1000)
    signature = Signature.get_signature(
        HUBSPOT_SECRET, body.decode(), "v3", http_uri=signed_uri(url), http_method="POST", timestamp=timestamp
    )
    headers = {"x-hubspot-signature-v3": signature, "x-hubspot-request-timestamp": timestamp}
    return WebhookCall("POST", url, headers, body)


def hubspot_case(rng: Random, *, offset_seconds: int = 0) -> Case:
    # The kit reads the wall clock itself, so ours is given the same moment.
    now = time.time_ns() // 1000
    path = quote(word(rng), safe=rng.choice(["", "/", "/:@!$'()*,;"]))
    call = hubspot_call(
        document(rng).encode(), now + offset_seconds * SECOND, f"https://kiki.example/{path}?q={quote(word(rng))}"
    )
    body, method = spoilt(rng, call.body.decode()), rng.choice(["POST", "POST", "POST", "PUT"])
    url = call.url if rng.random() < 0.8 else call.url + "x"
    accepts = Signature.is_valid(
        call.headers["x-hubspot-signature-v3"],
        HUBSPOT_SECRET,
        body,
        http_uri=signed_uri(url),
        http_method=method,
        signature_version="v3",
        timestamp=call.headers["x-hubspot-request-timestamp"],
    )
    spoilt_call = WebhookCall(method, url, call.headers, body.encode())
    return Case(spoilt_call, accepts, HubSpotReader(Secret(HUBSPOT_SECRET)), now)


# Twilio

TWILIO_TOKEN = "twilio-auth-token"
TWILIO_SHARED = {"key-1": Secret("twilio-shared-secret")}


class Form(dict[str, list[str]]):
    """A form with several values for a name, as Django's QueryDict shows one."""

    def getlist(self, name: str) -> list[str]:
        return self[name]


def twilio_reader() -> TwilioReader:
    return TwilioReader(Secret(TWILIO_TOKEN), TWILIO_SHARED)


def twilio_call(url: str, form: Form) -> WebhookCall:
    body = urlencode([(name, value) for name, values in form.items() for value in values]).encode()
    signature = RequestValidator(TWILIO_TOKEN).compute_signature(url, form)
    headers = {"x-twilio-signature": signature, "content-type": "application/x-www-form-urlencoded; charset=UTF-8"}
    return WebhookCall("POST", url, headers, body)


def twilio_case(rng: Random) -> Case:
    host = rng.choice(["kiki.example", "kiki.example:443", "kiki.example:8443", "kiki.example:80"])
    path = f"{rng.choice(['http', 'https'])}://{host}/v1/webhooks/twilio?action={quote(word(rng, 6))}"
    headers: dict[str, str] = {}
    token = TWILIO_TOKEN
    if rng.random() < 0.3:
        headers["x-twilio-webhooks-signature-settings"] = "key=key-1,algorithm=HMAC_SHA256"
        token = TWILIO_SHARED["key-1"].reveal()
    algorithm = get_signature_algorithm(headers.get("x-twilio-webhooks-signature-settings"))
    validator = RequestValidator(token)
    signed_url = path if rng.random() < 0.7 else spoilt_port(path)
    if rng.random() < 0.3:
        return _twilio_json(rng, validator, algorithm, headers, path)
    form = Form({word(rng): [word(rng) for _ in range(rng.randint(1, 3))] for _ in range(rng.randint(1, 6))})
    headers["x-twilio-signature"] = validator.compute_signature(signed_url, form, algorithm)
    headers["content-type"] = "application/x-www-form-urlencoded"
    sent = Form(
        {name: [spoilt(rng, one) if rng.random() < 0.1 else one for one in each] for name, each in form.items()}
    )
    url = path if rng.random() < 0.9 else path + "x"
    body = urlencode([(name, one) for name, each in sent.items() for one in each]).encode()
    accepts = validator.validate(url, sent, headers["x-twilio-signature"], algorithm)
    return Case(WebhookCall("POST", url, headers, body), accepts, twilio_reader(), 0)


def _twilio_json(rng: Random, validator: RequestValidator, algorithm: str, headers: dict[str, str], path: str) -> Case:
    body = document(rng) + " "
    url = f"{path}&bodySHA256={sha256(body.encode()).hexdigest()}"
    headers["x-twilio-signature"] = validator.compute_signature(url, {}, algorithm)
    headers["content-type"] = "application/json"
    body = spoilt(rng, body) or "x"
    accepts = validator.validate(url, body, headers["x-twilio-signature"], algorithm)
    return Case(WebhookCall("POST", url, headers, body.encode()), accepts, twilio_reader(), 0)


def spoilt_port(url: str) -> str:
    """The URL with its port left out, or the default one written."""
    scheme, rest = url.split("://")
    host, path = rest.split("/", 1)
    if ":" in host:
        return f"{scheme}://{host.split(':')[0]}/{path}"
    return f"{scheme}://{host}:{443 if scheme == 'https' else 80}/{path}"

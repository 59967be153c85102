"""What Twilio tells: how a message fares, and STOP and START by SMS. Pure.

Twilio signs the public URL and, of a form, each field; of anything else the hash of the body, which the URL carries.
No time is signed: what is told twice has the same id (message and state), so a replay changes nothing.
Callbacks come in any order; `DeliveryState.rank` says which of two holds.
"""

from __future__ import annotations

import base64
import hmac
from collections.abc import Iterator, Mapping
from hashlib import sha1, sha256
from typing import Final
from urllib.parse import parse_qs, parse_qsl, urlsplit

from kiki.engage.event import Delivery, DeliveryState, OptIn, OptOut, OptOutReason
from kiki.engage.webhook import Received, WebhookCall
from kiki.engage.webhooks.proof import header
from kiki.errors import InvalidInput, Unauthenticated
from kiki.settings import Secret

SIGNATURE: Final = "X-Twilio-Signature"
SETTINGS: Final = "X-Twilio-Webhooks-Signature-Settings"
ACTION_PARAMETER: Final = "action"
"""The query parameter of our callback URL that names the message."""
FIELDS_MAX: Final = 200

OPTED_OUT: Final = "21610"
"""The number has sent STOP."""
NO_SUCH_NUMBER: Final = frozenset({"21211", "21614", "21635", "30005", "30006"})
"""No SMS will ever arrive there: no number, none of a mobile, unknown to its network, a landline."""

_STATES: Final = {
    "accepted": DeliveryState.ACCEPTED,
    "scheduled": DeliveryState.ACCEPTED,
    "queued": DeliveryState.ACCEPTED,
    "sending": DeliveryState.ACCEPTED,
    "sent": DeliveryState.SENT,
    "partially_delivered": DeliveryState.SENT,
    "delivered": DeliveryState.DELIVERED,
    "read": DeliveryState.DELIVERED,
    "undelivered": DeliveryState.FAILED,
    "failed": DeliveryState.FAILED,
    "canceled": DeliveryState.FAILED,
}
_STOP: Final = frozenset({"STOP", "STOPALL", "UNSUBSCRIBE", "CANCEL", "END", "QUIT"})
_START: Final = frozenset({"START", "YES", "UNSTOP"})
_HASHES: Final = {"HMAC_SHA1": sha1, "HMAC_SHA256": sha256}


class TwilioReader:
    """Proves calls with the account's auth token, or with a shared key where the call names one."""

    name: Final = "twilio"

    def __init__(self, auth_token: Secret, shared_keys: Mapping[str, Secret] | None = None) -> None:
        """`shared_keys` by their ids, as `X-Twilio-Webhooks-Signature-Settings` names them."""
        self._auth_token = auth_token
        self._shared_keys = dict(shared_keys or {})

    def read(self, call: WebhookCall, now: int) -> tuple[Received, ...]:
        """See `WebhookReader`."""
        fields = self._proven(call)
        sid = fields.get("MessageSid") or fields.get("SmsSid", "")
        status = (fields.get("MessageStatus") or fields.get("SmsStatus", "")).lower()
        if not sid:
            return ()
        if status == "received" or (not status and "Body" in fields):
            return _inbound(sid, fields, now)
        return _status(sid, status, fields, _action(call.url), now)

    def _proven(self, call: WebhookCall) -> dict[str, str]:
        """The fields of the form; empty when the body is none."""
        given = header(call, SIGNATURE).encode("utf-8", "surrogatepass")
        secret, algorithm = self._secret(call.headers.get(SETTINGS.lower(), ""))
        pairs: list[tuple[str, str]] = []
        if call.body and _is_form(call):
            pairs = _fields(call.body)
        elif call.body:
            _require_hash(call)
        # The distinct values of each name: a field that is sent twice with one value is signed once.
        tail = "".join(name + value for name, value in sorted(set(pairs)))
        key = secret.reveal().encode()
        matches = [
            hmac.compare_digest(base64.b64encode(hmac.new(key, (url + tail).encode(), algorithm).digest()), given)
            for url in _spellings(call.url)
        ]
        if not any(matches):
            raise Unauthenticated(
                "the signature is not that of this call and secret",
                hint="check the auth token and the public URL: Twilio signs the URL that it called",
            )
        return dict(pairs)

    def _secret(self, settings: str) -> tuple[Secret, str]:
        said = {name.strip(): value.strip() for name, _, value in (part.partition("=") for part in settings.split(","))}
        algorithm = (said.get("algorithm") or "HMAC_SHA1").upper()
        if algorithm not in _HASHES:
            raise Unauthenticated(f"{SETTINGS} names an algorithm that is not known: {' or '.join(_HASHES)}")
        key = said.get("key")
        if not key:
            return self._auth_token, _HASHES[algorithm]().name
        if key not in self._shared_keys:
            raise Unauthenticated(
                f"{SETTINGS} names a shared key that is not configured", hint="add it to TWILIO_SHARED_KEYS"
            )
        return self._shared_keys[key], _HASHES[algorithm]().name


def _is_form(call: WebhookCall) -> bool:
    kind = call.headers.get("content-type", "").partition(";")[0].strip().lower()
    return kind in {"", "application/x-www-form-urlencoded"}


def _fields(body: bytes) -> list[tuple[str, str]]:
    try:
        text = body.decode("ascii")
        return parse_qsl(text, keep_blank_values=True, strict_parsing=False, errors="strict", max_num_fields=FIELDS_MAX)
    except (UnicodeDecodeError, ValueError) as error:
        raise InvalidInput(f"not a form as Twilio sends it: {error}") from None


def _require_hash(call: WebhookCall) -> None:
    """A body that is no form is covered by its hash in the URL, and by nothing else."""
    given = parse_qs(urlsplit(call.url).query).get("bodySHA256", [""])[0]
    if not hmac.compare_digest(sha256(call.body).hexdigest().encode(), given.encode("utf-8", "surrogatepass")):
        raise Unauthenticated("bodySHA256 is not the hash of this body")


def _spellings(url: str) -> Iterator[str]:
    """The URL with and without its port: Twilio is not of one mind whether to sign a port."""
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        raise InvalidInput("the public URL has a port that is none") from None
    yield url
    if port is None:
        host = f"{parts.netloc}:{443 if parts.scheme == 'https' else 80}"
    else:
        host = parts.netloc.removesuffix(f":{port}")
    scheme, separator, rest = url.partition("://")
    yield f"{scheme}{separator}{host}{rest.removeprefix(parts.netloc)}"


def _action(url: str) -> str:
    return parse_qs(urlsplit(url).query).get(ACTION_PARAMETER, [""])[0]


def _status(sid: str, status: str, fields: Mapping[str, str], action: str, now: int) -> tuple[Received, ...]:
    state = _STATES.get(status)
    if state is None:
        return ()
    code = fields.get("ErrorCode", "")
    name = f"twilio:{sid}:{status}"
    found: list[Received] = []
    if action:
        found.append(Delivery(id=name, action=action, at=now, state=state, provider_id=sid, code=code))
    reason = opt_out_reason(code)
    address = fields.get("To", "")
    if reason is not None and (address or action):
        found.append(OptOut(id=f"{name}:opt_out", at=now, reason=reason, channel="sms", address=address, action=action))
    return tuple(found)


def opt_out_reason(code: str) -> OptOutReason | None:
    """What an error code of Twilio's says about the number for good; None: nothing."""
    if code == OPTED_OUT:
        return OptOutReason.STOPPED
    return OptOutReason.BOUNCED if code in NO_SUCH_NUMBER else None


def _inbound(sid: str, fields: Mapping[str, str], now: int) -> tuple[Received, ...]:
    # OptOutType comes with Advanced Opt-Out, which knows the words of more languages than ours.
    address, word = fields.get("From", ""), fields.get("OptOutType") or fields.get("Body", "")
    word = word.strip().upper()
    if address and word in _STOP:
        return (OptOut(id=f"twilio:{sid}:stop", at=now, reason=OptOutReason.STOPPED, channel="sms", address=address),)
    if address and word in _START:
        return (OptIn(id=f"twilio:{sid}:start", at=now, channel="sms", address=address),)
    return ()

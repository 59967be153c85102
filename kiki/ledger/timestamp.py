"""Timestamps of RFC 3161: a third party states that a signed checkpoint existed at a moment (the extra `timestamp`).

What is kept is the whole response as the service sent it, so `openssl ts -verify -data NOTE -in RESPONSE -CAfile ROOTS`
checks it without us.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import httpx
from cryptography import x509

from kiki.errors import AnchorUnavailable, MissingExtra, SettingsError, TimestampInvalid
from kiki.ledger.anchor_post import post

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_QUERY: Final = "application/timestamp-query"


def read_roots(path: Path | None) -> list[x509.Certificate]:
    """The certificates in a PEM file; without one, those that every HTTPS call here trusts. Raises `SettingsError`."""
    if path is None:
        return list(_trusted_everywhere())
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it holds no certificates in PEM form"
        raise SettingsError([f"{path} cannot be read as certificates of timestamp services: {reason}"]) from error


def _trusted_everywhere() -> Iterator[x509.Certificate]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for data in httpx.create_ssl_context().get_ca_certs(binary_form=True):
            # Some old roots break rules of encoding, which a later `cryptography` will not read any more.
            with suppress(ValueError, Warning):
                yield x509.load_der_x509_certificate(data)


class TimestampService:
    """One timestamp authority, whose certificate must lead to one of `roots`."""

    def __init__(self, url: str, roots: Sequence[x509.Certificate]) -> None:
        self._client = _client()
        self._url = url
        self._roots = list(roots)

    def stamp(self, note: bytes) -> bytes:
        """The response over the SHA-256 of a signed note, verified. Raises `AnchorUnavailable`, `TimestampInvalid`."""
        client = self._client
        request = (
            client.TimestampRequestBuilder().data(note).hash_algorithm(client.HashAlgorithm.SHA256).nonce(nonce=True)
        ).build()
        answer = post(self._url, request.as_bytes(), _QUERY)
        if answer.status != 200:
            raise AnchorUnavailable(f"the timestamp service answered {answer.status}")
        verify_timestamp(answer.body, note, self._roots, nonce=request.nonce)
        return answer.body


def verify_timestamp(
    response: bytes, note: bytes, roots: Sequence[x509.Certificate], *, nonce: int | None = None
) -> int:
    """When a signed note was stamped, in microseconds since the epoch; raises `TimestampInvalid`."""
    client = _client()
    parsed = _parsed(client, response)
    if not roots:
        raise TimestampInvalid("no certificate is trusted to lead to the timestamp service's")
    builder = client.VerifierBuilder(roots=list(roots), nonce=nonce)
    try:
        builder.build().verify_message(parsed, note)
    except (client.VerificationError, ValueError) as error:
        raise TimestampInvalid(
            f"the timestamp does not hold: {error}",
            hint="is the service's root certificate among those that are trusted?",
        ) from error
    stamped: datetime = parsed.tst_info.gen_time
    return (stamped - _EPOCH) // timedelta(microseconds=1)


def _parsed(client: ModuleType, response: bytes) -> Any:
    try:
        parsed = client.decode_timestamp_response(response)
        status = client.PKIStatus(parsed.status)
    except ValueError as error:
        raise TimestampInvalid("the answer is no response of a timestamp service (RFC 3161)") from error
    if status is not client.PKIStatus.GRANTED:
        raise TimestampInvalid(f"the timestamp service refused: {status.name.lower()}")
    return parsed


def _client() -> ModuleType:
    try:
        import rfc3161_client
    except ImportError:
        raise MissingExtra("timestamp", "a timestamp of RFC 3161") from None
    return rfc3161_client

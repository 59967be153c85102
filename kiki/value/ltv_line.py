"""What carries a question to SyncValue and an answer back: a gRPC channel, or a model in this process."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message

from kiki import tracing
from kiki.errors import (
    Forbidden,
    InvalidInput,
    KikiError,
    MissingExtra,
    NotFound,
    SettingsError,
    Unauthenticated,
    ValueUnreachable,
)
from kiki.settings import checked_token, ltv_address
from kiki.value.pb import value_pb2 as pb

MESSAGE_BYTES_MAX: Final = 64 * 1024 * 1024

_SERVICE: Final = "kiki.value.v1.ValueService"
_TRACED_AS: Final = {"rpc.system": "grpc", "peer.service": "syncvalue"}

_OPTIONS: Final = (
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    # A service that was restarted is found again soon.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    (
        "grpc.service_config",
        json.dumps(
            {
                "methodConfig": [
                    {
                        "name": [{"service": _SERVICE}],
                        "retryPolicy": {
                            "maxAttempts": 2,
                            "initialBackoff": "0.01s",
                            "maxBackoff": "0.02s",
                            "backoffMultiplier": 2,
                            "retryableStatusCodes": ["UNAVAILABLE"],
                        },
                    }
                ]
            }
        ),
    ),
)

Reply = TypeVar("Reply", bound=Message)


class Line(Protocol):
    """What carries a request to an answer; raises errors of kiki only."""

    def call(self, method: str, request: Message, reply: type[Reply], seconds: float) -> Reply:
        """The answer to one call of the service's; the whole of it takes `seconds` at most."""
        ...

    def close(self) -> None:
        """Close what is open."""
        ...


class AsyncLine(Protocol):
    """The same, for asyncio."""

    async def call(self, method: str, request: Message, reply: type[Reply], seconds: float) -> Reply:
        """The answer to one call of the service's; the whole of it takes `seconds` at most."""
        ...

    async def close(self) -> None:
        """Close what is open."""
        ...


class Local:
    """A model in this process."""

    def __init__(self, model: str | Path, customers: str | Path | None) -> None:
        try:
            from kiki.value.served_model import ServedModel
        except ModuleNotFoundError as error:
            raise MissingExtra("value", "a model in this process") from error
        self._served = ServedModel.load(Path(model), None if customers is None else Path(customers))

    def call(self, method: str, request: Message, reply: type[Reply], seconds: float) -> Reply:
        """The answer; nothing can be away, so `seconds` do not matter."""
        if isinstance(request, pb.PredictRequest):
            return reply.FromString(self._served.predict(request))
        if isinstance(request, pb.PredictBatchRequest):
            return reply.FromString(self._served.predict_batch(request))
        return reply.FromString(self._served.info().SerializeToString())

    def close(self) -> None:
        """Nothing is open."""


class AsyncLocal:
    """A model in this process, asked in a thread where it has to compute."""

    def __init__(self, model: str | Path, customers: str | Path | None) -> None:
        self._local = Local(model, customers)

    async def call(self, method: str, request: Message, reply: type[Reply], seconds: float) -> Reply:
        """The answer."""
        return await asyncio.to_thread(self._local.call, method, request, reply, seconds)

    async def close(self) -> None:
        """Nothing is open."""


class _Peer:
    """Who is called, and as whom."""

    def __init__(self, address: str | None, token: str | None, ca_file: str | Path | None) -> None:
        self._address = ltv_address(os.environ if address is None else {"LTV_GRPC_ADDR": address})
        self._credentials = _credentials(ca_file or os.environ.get("KIKI_VALUE_CA_FILE") or None)
        bearer = _default_token() if token is None else checked_token(token.strip(), "the token")
        self._metadata = (("authorization", f"Bearer {bearer}"),) if bearer else None

    def _channel(self, module: Any) -> Any:
        if self._credentials is None:
            return module.insecure_channel(self._address, options=_OPTIONS)
        return module.secure_channel(self._address, self._credentials, options=_OPTIONS)


class Remote(_Peer):
    """A service on the other end of a channel."""

    def __init__(self, address: str | None, *, token: str | None, ca_file: str | Path | None) -> None:
        super().__init__(address, token, ca_file)
        self._open = self._channel(grpc)

    def call(self, method: str, request: Message, reply: type[Reply], seconds: float) -> Reply:
        """The answer of the service."""
        ask = self._open.unary_unary(_path(method), _registered_method=True)
        try:
            with tracing.child(_path(method), tracing.Kind.CLIENT, _TRACED_AS):
                data = ask(request.SerializeToString(), timeout=seconds, metadata=tracing.metadata(self._metadata))
        except grpc.RpcError as error:
            raise _error_of(error) from None
        return _read(reply, data)

    def close(self) -> None:
        """Close the channel."""
        self._open.close()


class AsyncRemote(_Peer):
    """The same, for asyncio."""

    def __init__(self, address: str | None, *, token: str | None, ca_file: str | Path | None) -> None:
        super().__init__(address, token, ca_file)
        self._open: Any = None

    async def call(self, method: str, request: Message, reply: type[Reply], seconds: float) -> Reply:
        """The answer of the service."""
        if self._open is None:
            # A channel belongs to the event loop that it is made on.
            self._open = self._channel(grpc.aio)
        ask = self._open.unary_unary(_path(method))
        try:
            with tracing.child(_path(method), tracing.Kind.CLIENT, _TRACED_AS):
                data = await ask(
                    request.SerializeToString(), timeout=seconds, metadata=tracing.metadata(self._metadata)
                )
        except grpc.RpcError as error:
            raise _error_of(error) from None
        return _read(reply, data)

    async def close(self) -> None:
        """Close the channel."""
        if self._open is not None:
            await self._open.close()


def _path(method: str) -> str:
    return f"/{_SERVICE}/{method}"


def _read(reply: type[Reply], data: bytes) -> Reply:
    try:
        return reply.FromString(data)
    except DecodeError:
        raise ValueUnreachable("what answered is not SyncValue: its answer cannot be read") from None


def _error_of(error: Any) -> KikiError:
    """The error of kiki that the end of a call means."""
    code, details = error.code(), error.details() or "no details"
    for kind, codes in _ERRORS.items():
        if code in codes:
            return kind(details)
    return ValueUnreachable(f"SyncValue did not answer: {code.name}: {details}")


_ERRORS: Final[dict[type[KikiError], tuple[grpc.StatusCode, ...]]] = {
    InvalidInput: (grpc.StatusCode.INVALID_ARGUMENT,),
    NotFound: (grpc.StatusCode.NOT_FOUND,),
    Unauthenticated: (grpc.StatusCode.UNAUTHENTICATED,),
    Forbidden: (grpc.StatusCode.PERMISSION_DENIED,),
}


def _credentials(ca_file: str | Path | None) -> Any:
    if ca_file is None:
        return None
    try:
        return grpc.ssl_channel_credentials(Path(ca_file).read_bytes())
    except OSError as error:
        raise SettingsError([f"the certificates in {ca_file} cannot be read: {error.strerror}"]) from None


def _default_token() -> str | None:
    """The bearer token of `KIKI_VALUE_TOKEN`, else of the file `KIKI_VALUE_TOKEN_FILE`, else None."""
    if os.environ.get("KIKI_VALUE_TOKEN"):
        return checked_token(os.environ["KIKI_VALUE_TOKEN"].strip(), "KIKI_VALUE_TOKEN")
    path = os.environ.get("KIKI_VALUE_TOKEN_FILE")
    if not path:
        return None
    try:
        token = Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not text"
        raise SettingsError([f"the token file {path} cannot be read: {why}"]) from None
    return checked_token(token, f"the token file {path}")

"""The protocol of docs/requests.md, served: what a shield elsewhere asks of engage about one person, signed.

Without a secret there are no such routes to prove a call with, and every call is refused.
"""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from kiki.clock import to_iso
from kiki.engage.engage_data import EngageData
from kiki.errors import InvalidInput, NotFound, Unauthenticated
from kiki.settings import Secret
from kiki.shield.consent_words import parse_customer_id
from kiki.shield.dsr import Kind
from kiki.shield.signed_call import check
from kiki.shield.subject_data import Task
from kiki.web import Reply, Request, Route, json_reply, read_body

_NOBODY: Final = "0" * 32
_PIECE: Final = 1 << 20


class _Call(msgspec.Struct):
    request: Annotated[str, Meta(min_length=1, max_length=128)]
    type: Kind
    customer_id: str
    method: str = ""
    purposes: list[str] = []
    values: dict[str, str] = {}


class PrivacyRoutes:
    """Proves a call, then does one method of `SubjectData`."""

    def __init__(self, data: EngageData, secret: Secret | None) -> None:
        self._data = data
        self._secret = secret
        self._seen: dict[str, int] = {}
        self._methods: dict[str, Callable[[Task, _Call], Any]] = {
            "locate": self._locate,
            "restrict": self._restrict,
            "rectify": self._rectify,
            "erase": self._erase,
            "verify": self._verify,
        }

    def routes(self) -> Sequence[Route]:
        """One for each method."""
        return [Route("/privacy/{method}", self._answer, ("POST",), self_proving=True)]

    async def _answer(self, request: Request) -> Reply:
        method = request.params["method"]
        body = await read_body(request)
        if self._secret is None:
            raise Unauthenticated("no secret is set up for this", hint="set KIKI_ENGAGE_PRIVACY_SECRET")
        secret = self._secret.reveal().encode()
        check(secret, request.method, request.path_qs, request.headers, body, now=int(time.time()), seen=self._seen)
        try:
            call = msgspec.json.decode(body, type=_Call)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise InvalidInput(f"the call is not written as the protocol has it: {error}") from None
        task = Task(call.request, call.type, parse_customer_id(call.customer_id), _NOBODY, tuple(call.purposes))
        if method == "export":
            return Reply(await asyncio.to_thread(self._export, task), "application/x-ndjson")
        if method not in self._methods:
            raise NotFound(
                f"there is no method {method[:40]!r}", hint=f"there is {', '.join((*self._methods, 'export'))}"
            )
        return json_reply(await asyncio.to_thread(self._methods[method], task, call))

    def _locate(self, task: Task, _: _Call) -> Any:
        found = self._data.locate(task)
        return {"records": found.records, "classes": list(found.classes)}

    def _restrict(self, task: Task, _: _Call) -> Any:
        self._data.restrict(task)
        return {"records": self._data.locate(task).records}

    def _rectify(self, task: Task, call: _Call) -> Any:
        return {"records": self._data.rectify(task, call.values)}

    def _erase(self, task: Task, _: _Call) -> Any:
        erased = self._data.erase(task)
        kept = [
            {"reason": each.reason, "article": each.article, "records": each.records}
            | ({} if each.until is None else {"until": to_iso(each.until)})
            for each in erased.kept
            if each.readable  # hashes and figures that name nobody are no exception from erasure
        ]
        return {"records": erased.records, "kept": kept}

    def _verify(self, task: Task, _: _Call) -> Any:
        found = self._data.verify(task)
        return {"left": found.left, "checked": found.checked}

    def _export(self, task: Task) -> bytes:
        lines = []
        for document in self._data.export(task):
            content = b"".join(document.parts)
            for first in range(0, max(len(content), 1), _PIECE):
                piece = base64.b64encode(content[first : first + _PIECE]).decode()
                lines.append({"name": document.name, "base64": piece, "records": document.records if not first else 0})
        lines.append({"end": True})
        return b"".join(msgspec.json.encode(line) + b"\n" for line in lines)

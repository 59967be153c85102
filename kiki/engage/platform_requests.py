"""Makes requests of persons of what platforms demand in their name: at the shield."""

from __future__ import annotations

from kiki.shield.request_client import Requests

_PROOF = "the platform's signed demand"


class ClientRequests:
    """A shield behind HTTP. The platform has checked who asks: its signed call is the proof."""

    def __init__(self, requests: Requests) -> None:
        self._requests = requests

    def demand(self, customer: str, kind: str, key: str, by: str) -> str:
        """The id of the request, which is ready to be run; the same key is the same request."""
        made = self._requests.create(customer, kind, requested_by=by, key=key)
        if made.state in {"received", "identity_pending", "paused"}:
            made = self._requests.vouch(made.request_id, by, note=_PROOF)
        return made.request_id

"""A person asks to be forgotten: from the request to the signed proof, in a script without any server."""

import tempfile
from pathlib import Path

from kiki import BudgetGuard
from kiki.shield.request_desk import RequestDesk

folder = Path(tempfile.mkdtemp())

with BudgetGuard.open(folder / "shield.db", limit="100") as guard:
    guard.consents.grant("customer-7", "marketing", version="2026-11", ip_address="203.0.113.77")
    guard.spend("5", {"customer": "customer-7"}, purpose="marketing")

    desk = RequestDesk(guard.decider, packages=folder / "copies")
    request = desk.create("customer-7", "DELETION", requested_by="the person, by mail")
    print(f"{request.kind} received, {len(request.deadlines)} statutory moments to keep")

    # Asking again while it is open is the same request, never a second run.
    print("asked twice, one request:", desk.create("customer-7", "DELETION").id == request.id)

    desk.verify_identity(request.id, method="operator", actor="privacy@example.com")
    done = desk.run(request.id)
    print(f"state: {done.state}")
    for name, outcome in done.request.systems.items():
        print(f"  {name}: read back {outcome.checked}, kept in readable form {outcome.has_exception}")

    # The key is destroyed: what was sealed for this person opens no more, and nobody finds the reference again.
    print("known afterwards:", guard.consents.status("customer-7"))
    print("the proof is signed:", desk.proof(request.id).startswith("kiki-request-proof/1"))

"""What a person would read: an offer of a playbook for a customer, or for somebody made up. Pure."""

from __future__ import annotations

from typing import Any, Final

from kiki.engage.message_maker import MessageMaker
from kiki.engage.profile import Profile
from kiki.errors import NotFound

SOMEBODY: Final = Profile(
    customer="c-1", email="ann@example.com", phone="+15551234567", first_name="Ann", last_name="Lee", country="US"
)
LINK: Final = "https://example.com/unsubscribe"
"""Of nobody: a link that works would be one that somebody may follow."""


def preview(maker: MessageMaker, offer: str, person: Profile = SOMEBODY) -> dict[str, Any]:
    """Subject, text and HTML; raises `NotFound`, and `InvalidInput` when the template needs what is not known of them."""
    offers = maker.playbook.offers
    if offer not in offers:
        raise NotFound(f"there is no offer {offer[:40]!r}", hint=f"there is: {', '.join(offers)}")
    content = maker.content(person, offer, LINK)
    return {"subject": content.subject, "text": content.text, "html": content.html}

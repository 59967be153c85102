"""The messages of a playbook: its templates, checked once, and what of a customer may be said in them. Pure.

A customer never reads what we think they are worth: neither value nor risk is a field.
"""

from __future__ import annotations

from kiki.engage.action_log import Action
from kiki.engage.address import address_on
from kiki.engage.channel import Content, Message
from kiki.engage.playbook import FIELDS, Offer, Playbook
from kiki.engage.profile import Profile
from kiki.engage.template import MessageTemplate, Value
from kiki.errors import ConfigurationError, PlaybookError


class MessageMaker:
    """Makes what a person reads."""

    def __init__(self, playbook: Playbook) -> None:
        """Raises `PlaybookError` with every mistake in the templates, and every field that there is not."""
        self.playbook = playbook
        problems: list[str] = []
        self._templates: dict[str, MessageTemplate] = {}
        for name, text in playbook.messages.items():
            try:
                made = MessageTemplate(text=text.text, subject=text.subject, html=text.html, name=name)
            except ConfigurationError as error:
                problems += error.problems
                continue
            problems += made.unknown_fields(FIELDS)
            self._templates[name] = made
        if problems:
            raise PlaybookError(problems)

    def content(self, profile: Profile, name: str, unsubscribe_url: str = "") -> Content:
        """An offer for one person; raises `InvalidInput` when the template needs what is not known of them."""
        offer = self.playbook.offers[name]
        return self._templates[offer.message].render(_fields(profile, name, offer, unsubscribe_url))

    def message(self, profile: Profile, action: Action, unsubscribe_url: str) -> Message:
        """The whole message."""
        return Message(
            action=action.action,
            channel=action.channel,
            to=address_on(profile, action.channel),
            content=self.content(profile, action.offer, unsubscribe_url),
            customer=profile.customer,
            playbook=action.playbook,
            step=action.step,
            unsubscribe_url=unsubscribe_url,
        )


def _fields(profile: Profile, name: str, offer: Offer, unsubscribe_url: str) -> dict[str, Value]:
    discount = int(offer.discount) if offer.discount == int(offer.discount) else 0
    return {
        "customer": profile.customer,
        "first_name": profile.first_name,
        "last_name": profile.last_name,
        "email": profile.email,
        "phone": profile.phone,
        "country": profile.country,
        "locale": profile.locale,
        "segment": profile.segment,
        "offer": name,
        "discount": discount or f"{offer.discount:g}",
        "unsubscribe_url": unsubscribe_url,
    }

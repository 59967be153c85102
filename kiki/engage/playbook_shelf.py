"""The playbooks that a service runs, by name, each with the templates of its messages checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from kiki.engage.message_maker import MessageMaker
from kiki.engage.playbook import Playbook
from kiki.engage.playbook_text import parse_playbook
from kiki.errors import InvalidInput, NotFound


class PlaybookShelf:
    """Any thread may look; what is put there anew is there at once and whole."""

    def __init__(
        self, playbooks: Mapping[str, Playbook], read: Callable[[], Mapping[str, Playbook]] | None = None
    ) -> None:
        """`read` gives the playbooks as they are in their files now."""
        self._read = read
        self._makers = _makers(playbooks)

    def reload(self) -> None:
        """Read the files again; a mistake in one raises, and all stay as they were."""
        if self._read is not None:
            self._makers = _makers(self._read())

    def makers(self) -> list[MessageMaker]:
        """What makes the messages of each."""
        return list(self._makers.values())

    def playbooks(self) -> list[Playbook]:
        """All of them."""
        return [each.playbook for each in self._makers.values()]

    def maker(self, playbook: Playbook) -> MessageMaker:
        """The messages of a playbook that is here; raises `InvalidInput`."""
        if playbook.name not in self._makers:
            raise InvalidInput("only playbooks that the service has are run", hint="put it under KIKI_ENGAGE_PLAYBOOKS")
        return self._makers[playbook.name]

    def named(self, name: str | None) -> Playbook:
        """The playbook of that name, or the only one there is; raises `NotFound`."""
        makers = self._makers
        if name is None and len(makers) == 1:
            return next(iter(makers.values())).playbook
        if name is None or name not in makers:
            raise NotFound(
                f"there is no playbook {(name or '')[:40]!r}", hint=f"there is: {', '.join(makers) or 'none'}"
            )
        return makers[name].playbook

    def read(self, text: str) -> Playbook:
        """The playbook of that name, or the one that the text is, with its templates checked."""
        if text in self._makers or "\n" not in text:
            return self.named(text)
        return MessageMaker(parse_playbook(text)).playbook


def _makers(playbooks: Mapping[str, Playbook]) -> dict[str, MessageMaker]:
    return {name: MessageMaker(each) for name, each in playbooks.items()}

"""The outbox as pages for people: what went out, and each message as its reader would see it. Pure.

A message's HTML is shown in a frame that may do nothing: it runs no script, loads nothing and leads nowhere.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import Final

from kiki.clock import to_datetime
from kiki.engage.letter import Letter

_STYLE: Final = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color-scheme:light dark}"
    "table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.4rem .8rem .4rem 0;border-bottom:1px solid #8884;"
    "vertical-align:top}pre{white-space:pre-wrap;background:#8881;padding:1rem;border-radius:.5rem}"
    "iframe{width:100%;height:30rem;border:1px solid #8884;border-radius:.5rem;background:#fff}dt{font-weight:600}"
    "dd{margin:0 0 .4rem;overflow-wrap:anywhere}"
)
POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
"""The Content-Security-Policy of both pages."""


def list_page(letters: Iterable[Letter]) -> str:
    """Every message with its moment, newest first; links are relative: the list is at …/outbox, a message at …/outbox/<action>."""
    rows = "".join(
        f"<tr><td>{_minute(one.at)}</td><td>{escape(one.message.channel)}</td><td>{escape(one.message.to)}</td>"
        f'<td><a href="outbox/{escape(one.message.action)}">{escape(_title(one))}</a></td>'
        f"<td>{escape(' / '.join(filter(None, (one.message.playbook, one.message.step))))}</td></tr>"
        for one in letters
    )
    table = f"<table><thead><tr><th>when (UTC)</th><th>by</th><th>to</th><th>what</th><th>why</th></tr></thead>{rows}</table>"
    return _page("Outbox", table if rows else "<p>Nothing was sent yet.</p>")


def letter_page(letter: Letter) -> str:
    """One message: its headers, its HTML in a harmless frame, its text."""
    message = letter.message
    facts = {"when (UTC)": _minute(letter.at), "to": message.to, "action": message.action, **letter.headers}
    listed = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts.items())
    html = message.content.html
    frame = f'<h2>HTML</h2><iframe sandbox="" srcdoc="{escape(html)}"></iframe>' if html else ""
    text = f"<h2>Text</h2><pre>{escape(message.content.text)}</pre>"
    return _page(_title(letter), f'<p><a href="../outbox">Outbox</a></p><dl>{listed}</dl>{frame}{text}')


def _page(title: str, body: str) -> str:
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(POLICY)}">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body><h1>{escape(title)}</h1>{body}</body></html>\n"
    )


def _title(letter: Letter) -> str:
    content = letter.message.content
    first_line = content.text.strip().partition("\n")[0][:80]
    return content.subject or first_line or letter.message.action


def _minute(at: int) -> str:
    return to_datetime(at).strftime("%Y-%m-%d %H:%M")

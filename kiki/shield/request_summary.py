"""The page on top of a person's copy, for the person to read: what is in it, from where, and what may be done next. Pure.

What a system handed over as CSV is shown as a table while it is small; everything else is named with its file. Nothing in
it is markup of theirs, and the page loads nothing.
"""

from __future__ import annotations

import csv
import html
import io
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import Final, NamedTuple

from kiki.shield.subject_data import Task

SHOWN_BYTES: Final = 1 << 16
"""A larger CSV is not shown on the page."""
_SHOWN_ROWS: Final = 100
_TITLES: Final = {"ACCESS": "A copy of the data we hold about you", "PORTABILITY": "Your data, to take with you"}
_SAID: Final = {
    "consents": "What you agreed to, refused, and took back: each time with its moment.",
    "evidence": "What was decided with your name on it, and what was written down about you and your requests.",
    "keys": "The random reference under which the records above know you; it means nothing elsewhere.",
    "loyalty": "Your points: what you earned, what you used.",
}
_STYLE: Final = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 52rem; margin: 2rem auto; padding: 0 1rem; }
h2 { margin-top: 2.2rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: .4rem .6rem; border-bottom: 1px solid color-mix(in srgb, currentColor 25%, transparent); }
.wide table { font-size: .85em; }
td.n { text-align: right; font-variant-numeric: tabular-nums; }
code { font-size: .85em; overflow-wrap: anywhere; }
"""


class Handed(NamedTuple):
    """One file in a package."""

    system: str
    name: str
    size: int
    sha256: str
    records: int | None
    """None: the system did not say."""


def summary(task: Task, files: Sequence[Handed], shown: Mapping[str, bytes], made_at: datetime) -> str:
    """The page, in HTML; `shown` has the small CSV files by their names in the package."""
    title = _TITLES.get(task.kind, "Your data")
    systems = dict.fromkeys(file.system for file in files)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title><style>{_STYLE}</style></head><body>
<h1>{title}</h1>
<p>For <strong>{html.escape(task.customer)}</strong>, request <code>{task.request}</code>, made on
{made_at.astimezone(UTC):%d %B %Y, %H:%M} UTC. Moments are given in UTC.</p>
{"".join(part for system in systems for part in _section(system, files, shown))}
<h2>All files</h2>
<div class="wide"><table><thead><tr><th>From</th><th>File</th><th>Records</th><th>Bytes</th></tr></thead><tbody>
{"".join(_rows(files))}</tbody></table></div>
<p>Files ending in .json and .jsonl are for programs, those ending in .csv open in any spreadsheet. Below each name stands its
SHA-256. A system that is not named here was asked, too, and holds nothing about you, or nothing that is not in the files
above.</p>
<h2>What you may do</h2>
<p>You may ask for corrections (GDPR 16), for erasure (17), for restriction (18) and object to processing (21), and
complain to a supervisory authority (77). Under the law of California you may ask for deletion, for correction, and
opt out of sale and sharing.</p>
</body></html>
"""


def _section(system: str, files: Sequence[Handed], shown: Mapping[str, bytes]) -> Iterator[str]:
    yield f"<h2>{html.escape(system)}</h2>\n"
    if system in _SAID:
        yield f"<p>{_SAID[system]}</p>\n"
    for file in files:
        if file.system == system and file.name in shown:
            yield from _table(file.name, shown[file.name])
        elif file.system == system:
            yield f"<p>{_link(file.name)}</p>\n"


def _table(name: str, text: bytes) -> Iterator[str]:
    """The rows of a small CSV, without the columns in which nothing stands."""
    try:
        read = csv.reader(io.StringIO(text.decode("utf-8-sig"), newline=""), strict=True)
        head, *rows = islice(read, _SHOWN_ROWS + 1) if text else [[]]
        more = next(read, None) is not None
    except (UnicodeDecodeError, csv.Error):
        head, rows, more = [], [], False
    if not rows or any(len(row) > len(head) for row in rows):
        yield f"<p>{_link(name)}</p>\n"
        return
    used = [at for at in range(len(head)) if any(row[at] for row in rows if at < len(row))]
    yield '<div class="wide"><table><thead><tr>'
    yield from (f"<th>{html.escape(head[at].replace('_', ' '))}</th>" for at in used)
    yield "</tr></thead><tbody>\n"
    for row in rows:
        cells = "".join(f"<td>{html.escape(row[at]) if at < len(row) else ''}</td>" for at in used)
        yield f"<tr>{cells}</tr>\n"
    yield f"</tbody></table></div>\n<p>{'The first rows of ' if more else 'From '}{_link(name)}</p>\n"


def _rows(files: Sequence[Handed]) -> Iterator[str]:
    for file in files:
        records = "" if file.records is None else f"{file.records}"
        yield (
            f"<tr><td>{html.escape(file.system)}</td><td>{_link(file.name)}<br><code>{file.sha256}</code></td>"
            f'<td class="n">{records}</td><td class="n">{file.size}</td></tr>\n'
        )


def _link(name: str) -> str:
    return f'<a href="{html.escape(name)}">{html.escape(name)}</a>'

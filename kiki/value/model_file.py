"""A model as one JSON file: a format version, a SHA-256 over the content, no code. It appears whole or not at all.

    {"format": "kiki value model", "format_version": 1, "kiki_version": "…", "content_sha256": "…", "content": {…}}

The hash covers the content as JSON with sorted keys and without spaces, in UTF-8, so that a file which was only laid out anew still
loads and one with another number in it does not. It guards against accident and careless hands, not against somebody who
computes it anew. Numbers are written so that reading gives the same float64 again; NaN and infinity are refused.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple, NoReturn

from kiki import __version__
from kiki.errors import KikiError, ModelInvalid
from kiki.value.whole_file import write_whole

FORMAT: Final = "kiki value model"
FORMAT_VERSION: Final = 1

_LARGEST: Final = 64 * 1024 * 1024
"""A model has a few kilobytes. More than this is not read into memory to find out what it is."""


class ModelFile(NamedTuple):
    """What a model file holds."""

    content: dict[str, Any]
    """JSON values only."""
    sha256: str
    """Of the content, in hex."""
    kiki_version: str
    """The kiki that wrote it."""


def content_hash(content: Mapping[str, Any]) -> str:
    """SHA-256 in hex over the content; raises `ModelInvalid` for what JSON cannot hold."""
    try:
        text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ModelInvalid(f"the model cannot be written: {error}") from error
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def write_model_file(path: str | Path, content: Mapping[str, Any]) -> str:
    """Put the content into the file `path`, in one step; its hash. Raises `KikiError` when that cannot be done."""
    sha256 = content_hash(content)
    whole = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "kiki_version": __version__,
        "content_sha256": sha256,
        "content": content,
    }
    try:
        # As ASCII: an unpaired surrogate in a customer's cohort or a note has no UTF-8.
        write_whole(path, (json.dumps(whole, indent=1, allow_nan=False) + "\n").encode("ascii"))
    except OSError as error:
        raise KikiError(f"{path} cannot be written: {error.strerror}") from error
    return sha256


def read_model_file(path: str | Path) -> ModelFile:
    """The content of a model file. Raises `ModelInvalid`, saying what is wrong with it and what to do."""
    where = Path(path)
    whole = _parsed(where)
    version = whole.get("format_version")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise ModelInvalid(f"{where.name} has no format version that there is: {version!r}", hint=_FIT_AGAIN)
    if version > FORMAT_VERSION:
        raise ModelInvalid(
            f"{where.name} is of format {version}, written by {_writer(whole)}; "
            f"this is kiki {__version__}, which reads format {FORMAT_VERSION} and older",
            hint="update kiki, or fit the model again with this one",
        )
    content, stated = whole.get("content"), whole.get("content_sha256")
    if not isinstance(content, dict) or not isinstance(stated, str):
        raise ModelInvalid(f"{where.name} lacks its content or the content's hash", hint=_FIT_AGAIN)
    actual = content_hash(content)
    if actual != stated:
        raise ModelInvalid(
            f"{where.name} was edited after it was written: its content has SHA-256 {actual[:16]}…, it says {_short(stated)}…",
            hint=_FIT_AGAIN,
        )
    return ModelFile(content, actual, _short(whole.get("kiki_version")))


_FIT_AGAIN: Final = "take an untouched copy, or fit again: kiki ltv fit LOG -o FILE"


def _parsed(where: Path) -> dict[str, Any]:
    try:
        with where.open("rb") as file:
            data = file.read(_LARGEST + 1)
    except FileNotFoundError:
        raise ModelInvalid(f"there is no model file {where}", hint="kiki ltv fit LOG -o FILE writes one") from None
    except OSError as error:
        raise ModelInvalid(f"{where} cannot be read: {error.strerror}") from error
    if len(data) > _LARGEST:
        raise ModelInvalid(f"{where.name} is no model file: it is larger than {_LARGEST // 1024 // 1024} MB")
    try:
        whole = json.loads(data, parse_constant=_no_number, object_pairs_hook=_each_once)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        raise ModelInvalid(f"{where.name} is no whole JSON file: {error}", hint=_FIT_AGAIN) from error
    if not isinstance(whole, dict) or whole.get("format") != FORMAT:
        raise ModelInvalid(f"{where.name} is no model file of kiki's", hint="kiki ltv fit LOG -o FILE writes one")
    return whole


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object; a name given twice would be hashed as one and read as the other."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice in one object")
    return found


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number of JSON")


def _writer(whole: dict[str, Any]) -> str:
    version = whole.get("kiki_version")
    return f"kiki {_short(version)}" if isinstance(version, str) and version else "a kiki that does not say which"


def _short(text: object) -> str:
    return str(text)[:16]

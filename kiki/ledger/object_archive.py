"""An archive in a bucket of S3, Google Cloud Storage or Azure, through obstore (the extra `objectstore`).

Credentials, region and endpoint come from the environment, as the clients of each cloud read them. Every put carries the
condition that the name is free, and for S3 a SHA-256 that the server checks: a bucket with object lock takes nothing
without one. The lock itself is the bucket's: its default retention applies to every segment, and nothing here can set it
aside. A lock holds versions, not names; so the ledger keeps the version that each segment got.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from hashlib import sha256
from types import ModuleType
from typing import Any, BinaryIO, Final
from urllib.parse import urlsplit

import httpx

from kiki.errors import ArchiveUnavailable, KikiError, MissingExtra, SettingsError
from kiki.ledger.archive import READ_BYTES, Lock, Stored, absent, conflict, require_name, sha256_of

_CONNECT_SECONDS: Final = 5
_REQUEST_SECONDS: Final = 120
"""For one request with its body: a segment of some 30 MB over a slow line."""
_RETRIES: Final = 2
"""Within one call. The shipper tries again by itself, with longer waits."""
_SIGNED_FOR: Final = timedelta(minutes=1)
_HEAD_SECONDS: Final = 10.0

# What an error of the client may repeat: its text also holds URLs, request ids and, for some failures, key ids.
_STATUS: Final = re.compile(r"status code: (\d{3}(?: [A-Z][A-Za-z -]{0,40})?)")
_CODE: Final = re.compile(r"<Code>([A-Za-z0-9]{1,60})</Code>")
_TRANSPORT: Final = re.compile(r"HTTP error: ([a-z ]{1,60})")


class ObjectArchive:
    """Objects below a prefix of a bucket."""

    def __init__(self, url: str) -> None:
        self._obstore = _obstore()
        parts = urlsplit(url)
        self._scheme = parts.scheme
        if not parts.netloc or parts.query or parts.fragment or "@" in parts.netloc:
            raise SettingsError(
                [f"KIKI_ARCHIVE: expected {parts.scheme}://bucket/prefix and credentials in the environment"]
            )
        self.url = f"{parts.scheme}://{parts.netloc}{parts.path}".rstrip("/")
        try:
            self._store: Any = self._obstore.store.from_url(
                self.url,
                config={"checksum_algorithm": "SHA256"} if parts.scheme == "s3" else None,
                client_options={
                    "connect_timeout": timedelta(seconds=_CONNECT_SECONDS),
                    "timeout": timedelta(seconds=_REQUEST_SECONDS),
                    "allow_http": _may_be_plain(),
                },
                retry_config={
                    "max_retries": _RETRIES,
                    "retry_timeout": timedelta(seconds=_REQUEST_SECONDS),
                },
            )
        except (self._obstore.exceptions.BaseError, ValueError, OSError) as error:
            raise SettingsError([f"KIKI_ARCHIVE={self.url}: {_first_line(error)}"]) from None

    def put_if_absent(self, name: str, content: BinaryIO) -> Stored:
        """Store everything in `content`, unless there is something already: then it must be the same."""
        require_name(name)
        digest = sha256_of(content)
        try:
            with self._translated(f"put {name}"):
                # One request, so that the condition and the checksum cover the whole: it is in memory meanwhile.
                result = self._obstore.put(self._store, name, content, mode="create", use_multipart=False)
                return Stored(result["version"] or "", digest)
        except self._obstore.exceptions.AlreadyExistsError:
            return self._require_same(name, digest)

    def _require_same(self, name: str, digest: bytes) -> Stored:
        there = sha256()
        with self._translated(f"compare {name}"):
            try:
                result = self._obstore.get(self._store, name)
            except FileNotFoundError:
                # Somebody's put of the same name is not through yet, or it was deleted this moment.
                raise ArchiveUnavailable(
                    f"{self.url} said that it has {name}, and then that it has not: to be tried again"
                ) from None
            for piece in result.stream(min_chunk_size=READ_BYTES):
                there.update(piece)
            version = result.meta["version"] or ""
        if there.digest() != digest:
            raise conflict(name)
        return Stored(version, digest)

    def get(self, name: str, version: str = "") -> Iterator[bytes]:
        """The bytes under a name, of one version or the current one, in pieces; raises `NotFound`."""
        require_name(name)
        with self._translated(f"get {name}"):
            try:
                result = self._obstore.get(self._store, name, options={"version": version} if version else None)
            except FileNotFoundError:
                raise absent(name) from None
        return self._pieces(name, result)

    def _pieces(self, name: str, result: Any) -> Iterator[bytes]:
        with self._translated(f"get {name}"):
            for piece in result.stream(min_chunk_size=READ_BYTES):
                yield bytes(piece)

    def list(self, prefix: str = "") -> Iterator[str]:
        """The names that begin with `prefix`, in their order."""
        # The stores list by whole parts of a name, so the last part is compared here.
        folder = prefix.rpartition("/")[0]
        with self._translated("list"):
            for batch in self._obstore.list(self._store, folder or None):
                yield from (found["path"] for found in batch if found["path"].startswith(prefix))

    def delete(self, name: str) -> None:
        """Remove the current version of a name. With versions kept, older ones stay until their lock ends."""
        require_name(name)
        with self._translated(f"delete {name}"):
            try:
                self._obstore.delete(self._store, name)
            except FileNotFoundError:
                return

    def lock_status(self, name: str | None = None) -> Lock:
        """What the store's answer about one object says of its lock: a signed HEAD request."""
        name = next(self.list(), None) if name is None else require_name(name)
        if name is None:
            return Lock("unknown", f"{self.url} holds nothing yet: the lock shows on the first segment")
        if self._scheme == "gs":
            return Lock(
                "unknown",
                f"Google Cloud Storage does not say it with an object: look at `gcloud storage buckets describe "
                f"gs://{urlsplit(self.url).netloc}`, which should show a retention policy that is locked",
            )
        headers = self._head(name)
        return _s3_lock(name, headers) if self._scheme == "s3" else _azure_lock(name, headers)

    def _head(self, name: str) -> httpx.Headers:
        # Azure's signature grants rights, and that of reading covers HEAD; S3's is for one method.
        method = "GET" if self._scheme == "az" else "HEAD"
        with self._translated(f"sign a question about {name}"):
            url = self._obstore.sign(self._store, method, name, _SIGNED_FOR)
        try:
            answer = httpx.head(url, timeout=_HEAD_SECONDS)
        except httpx.HTTPError as error:
            # Without its text, which would repeat the signed address.
            raise ArchiveUnavailable(f"{self.url} could not be asked about {name}: {type(error).__name__}") from None
        if not answer.is_success:
            raise ArchiveUnavailable(f"{self.url} answered {answer.status_code} when asked about {name}")
        return answer.headers

    @contextmanager
    def _translated(self, what: str) -> Iterator[None]:
        try:
            yield
        except (KikiError, self._obstore.exceptions.AlreadyExistsError):
            raise
        except (self._obstore.exceptions.BaseError, OSError, ValueError, NotImplementedError) as error:
            # `from None`: the client's own text may repeat what identifies a key.
            raise ArchiveUnavailable(
                f"{self.url}: {what}: {_reason(error)}",
                hint="check the bucket's name, the network, and the rights of the credentials; it is tried again",
            ) from None


def _obstore() -> ModuleType:
    try:
        import obstore
        import obstore.store
    except ImportError:
        raise MissingExtra("objectstore", "an archive in a bucket") from None
    return obstore


def _may_be_plain() -> bool:
    """Whether the environment allows HTTP without TLS, as these clients ask it: for a store on one's own machine."""
    names = ("AWS_ALLOW_HTTP", "GOOGLE_ALLOW_HTTP", "AZURE_ALLOW_HTTP")
    return any(os.environ.get(name, "").lower() in {"1", "true", "yes", "on"} for name in names)


def _reason(error: BaseException) -> str:
    text = str(error)
    found = [match[1] for pattern in (_STATUS, _CODE, _TRANSPORT) if (match := pattern.search(text))]
    return ", ".join(found) or type(error).__name__


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0][:200]


def _s3_lock(name: str, headers: httpx.Headers) -> Lock:
    mode, until = headers.get("x-amz-object-lock-mode", ""), headers.get("x-amz-object-lock-retain-until-date", "")
    if mode == "COMPLIANCE":
        return Lock("locked", f"{name} is under object lock (COMPLIANCE)", until)
    if mode == "GOVERNANCE":
        return Lock(
            "bypassable",
            f"{name} is under object lock (GOVERNANCE): whoever has s3:BypassGovernanceRetention can delete it",
            until,
        )
    return Lock(
        "none",
        f"no object lock shows on {name}: the bucket has no default retention, or these credentials lack "
        "s3:GetObjectRetention",
    )


def _azure_lock(name: str, headers: httpx.Headers) -> Lock:
    mode = headers.get("x-ms-immutability-policy-mode", "").lower()
    until = headers.get("x-ms-immutability-policy-until-date", "")
    if mode == "locked":
        return Lock("locked", f"{name} is under a locked immutability policy", until)
    if mode == "unlocked":
        return Lock("bypassable", f"{name} is under an immutability policy that is not locked yet", until)
    return Lock(
        "unknown",
        f"{name} shows no immutability policy of its own; one of the whole container does not show on a blob: "
        "look at `az storage container immutability-policy show`",
    )

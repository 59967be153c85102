"""A C2SP tlog-witness in memory, written from the specification alone: it shares no code with kiki.

It keeps, for each log, the largest tree that it cosigned, and cosigns only one that grew from there. `mood` makes it
misbehave: see `IndependentWitness`.
"""

from __future__ import annotations

import asyncio
import base64
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256

from aiohttp import web
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

SEED = b"w" * 32
EMPTY = sha256(b"").digest()


def inner(left: bytes, right: bytes) -> bytes:
    return sha256(b"\x01" + left + right).digest()


def roots_of(old: int, new: int, proof: list[bytes], old_root: bytes) -> tuple[bytes, bytes]:
    """Both roots that a consistency proof gives, by the recursion of RFC 6962, section 2.1.2, read backwards."""
    rest = list(proof)

    def subproof(m: int, n: int, *, is_whole: bool) -> tuple[bytes, bytes]:
        if m == n:
            root = old_root if is_whole else rest.pop(0)
            return root, root
        k = 1
        while k * 2 < n:
            k *= 2
        if m <= k:
            old_left, new_left = subproof(m, k, is_whole=is_whole)
            return old_left, inner(new_left, rest.pop(0))
        old_right, new_right = subproof(m - k, n - k, is_whole=False)
        left = rest.pop(0)
        return inner(left, old_right), inner(left, new_right)

    result = subproof(old, new, is_whole=True)
    if rest:
        raise ValueError("hashes are left over")
    return result


class IndependentWitness:
    """`mood`: honest, or forger (a bad signature), stranger (another key's), silent (no lines), broken (500),
    fibber (409 for ever, each time another size), garbage (200 and no text), endless (more than anybody reads)."""

    def __init__(self, name: str = "witness.example/w1") -> None:
        self.name = name
        self.mood = "honest"
        self.now = 1_795_000_000
        self.trusted: dict[str, str] = {}
        self.largest: dict[str, tuple[int, bytes]] = {}
        self.requests: list[str] = []
        self.url = ""
        self._private = Ed25519PrivateKey.from_private_bytes(SEED)
        public = self._private.public_key().public_bytes_raw()
        self._id = sha256(name.encode() + b"\n\x04" + public).digest()[:4]
        self.key = f"{name}+{self._id.hex()}+{base64.b64encode(bytes([4]) + public).decode()}"

    def trust(self, verifier_key: str) -> None:
        self.trusted[verifier_key.split("+", maxsplit=1)[0]] = verifier_key

    async def add_checkpoint(self, request: web.Request) -> web.Response:
        body = (await request.read()).decode()
        self.requests.append(body)
        if self.mood == "broken":
            return web.Response(status=500, text="a stack trace with a secret")
        if self.mood == "fibber":
            return self._conflict(len(self.requests))
        if self.mood == "endless":
            return web.Response(body=b"x" * 10_000_000)
        head, _, note = body.partition("\n\n")
        first, *proof = head.split("\n")
        assert first.startswith("old ")
        text, _, signatures = note.partition("\n\n")
        text += "\n"
        origin, size, root = text.split("\n")[:3]
        return self._judge(
            text, origin, int(first[4:]), int(size), base64.b64decode(root, validate=True),
            [base64.b64decode(line, validate=True) for line in proof], signatures,
        )  # fmt: skip

    def _judge(self, text, origin, old, size, root, proof, signatures):
        if origin not in self.trusted:
            return web.Response(status=404)
        if not self._is_signed(text, origin, signatures):
            return web.Response(status=403)
        if old > size:
            return web.Response(status=400)
        known_size, known_root = self.largest.get(origin, (0, EMPTY))
        if old != known_size or (old == size and root != known_root):
            return self._conflict(known_size)
        if old in {0, size}:
            is_consistent = not proof
        else:
            try:
                is_consistent = roots_of(old, size, proof, known_root) == (known_root, root)
            except (ValueError, IndexError):
                is_consistent = False
        if not is_consistent:
            return web.Response(status=422)
        self.largest[origin] = (size, root)
        return web.Response(body=self._cosignature(text))

    def _is_signed(self, text, origin, signatures):
        name, key_id, encoded = self.trusted[origin].split("+", 2)
        public = Ed25519PublicKey.from_public_bytes(base64.b64decode(encoded)[1:])
        for line in signatures.splitlines():
            _, signer, data = line.split(" ")
            data = base64.b64decode(data)
            if signer == name and data[:4].hex() == key_id:
                try:
                    public.verify(data[4:], text.encode())
                except InvalidSignature:
                    return False
                return True
        return False

    def _conflict(self, size):
        return web.Response(status=409, body=f"{size}\n".encode(), headers={"Content-Type": "text/x.tlog.size"})

    def _cosignature(self, text):
        signature = self._private.sign(f"cosignature/v1\ntime {self.now}\n{text}".encode())
        if self.mood == "forger":
            signature = bytes([signature[0] ^ 1]) + signature[1:]
        key_id = b"\0\0\0\0" if self.mood == "stranger" else self._id
        encoded = base64.b64encode(key_id + self.now.to_bytes(8, "big") + signature).decode()
        line = f"\u2014 {self.name} {encoded}\n".encode()
        stranger = f"\u2014 other.example {base64.b64encode(bytes(80)).decode()}\n".encode()
        return {"silent": b"", "garbage": b"\xff\xfe<html>"}.get(self.mood, stranger + line)


@contextmanager
def running_witness() -> Iterator[IndependentWitness]:
    """A witness that listens, gone when the block ends."""
    witness = IndependentWitness()
    loop = asyncio.new_event_loop()

    async def start() -> web.AppRunner:
        application = web.Application()
        application.router.add_post("/prefix/add-checkpoint", witness.add_checkpoint)
        runner = web.AppRunner(application, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        witness.url = f"http://127.0.0.1:{runner.addresses[0][1]}/prefix/"
        return runner

    runner = loop.run_until_complete(start())
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield witness
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(60)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(60)
        loop.close()

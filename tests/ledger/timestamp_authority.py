"""A timestamp authority: OpenSSL's, behind HTTP, with certificates made for the occasion."""

from __future__ import annotations

import datetime as dt
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CONFIGURATION = """
[tsa]
default_tsa = one
[one]
serial = {directory}/serial
signer_cert = {directory}/tsa.pem
signer_key = {directory}/tsa.key
signer_digest = sha256
default_policy = 1.2.3.4.1
digests = sha256
accuracy = secs:1
ess_cert_id_alg = sha256
"""


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


class TimestampAuthority:
    """`mood`: honest, or another (a stamp over something else), replay (the first answer again), refusing, broken (500),
    garbage."""

    def __init__(self, directory: Path) -> None:
        if shutil.which("openssl") is None:
            pytest.fail("openssl is not on PATH (Debian: openssl)")
        self.directory = directory
        self.mood = "honest"
        self.queries: list[tuple[str, bytes]] = []
        self.url = ""
        self._first = b""
        self.root, root_key = self._certificate("root", None, None)
        self._certificate("tsa", self.root, root_key)
        (directory / "serial").write_text("01\n")
        (directory / "tsa.cnf").write_text(CONFIGURATION.format(directory=directory))

    def _certificate(self, name, issuer, issuer_key):
        key = ec.generate_private_key(ec.SECP256R1())
        now = dt.datetime.now(dt.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name(name))
            .issuer_name(_name(name) if issuer is None else issuer.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(days=1))
            .not_valid_after(now + dt.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        )
        if issuer is not None:
            usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.TIME_STAMPING])
            builder = builder.add_extension(usage, critical=True)
        certificate = builder.sign(key if issuer_key is None else issuer_key, hashes.SHA256())
        (self.directory / f"{name}.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        (self.directory / f"{name}.key").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return certificate, key

    @property
    def root_file(self) -> Path:
        return self.directory / "root.pem"

    def answer(self, media_type: str, query: bytes) -> tuple[int, bytes]:
        self.queries.append((media_type, query))
        if self.mood == "broken":
            return 500, b"a stack trace with a secret"
        if self.mood == "garbage":
            return 200, b"<html>come back later</html>"
        if self.mood == "replay" and self._first:
            return 200, self._first
        if self.mood == "refusing":
            query = b"\x30\x00"
        if self.mood == "another":
            query = self._openssl("-query", "-digest", "00" * 32, "-sha256")
        (self.directory / "query").write_bytes(query)
        reply = self._openssl("-reply", "-queryfile", "query", "-config", "tsa.cnf")
        self._first = self._first or reply
        return 200, reply

    def _openssl(self, *arguments: str) -> bytes:
        done = subprocess.run(["openssl", "ts", *arguments], cwd=self.directory, capture_output=True, check=True)
        return done.stdout

    def accepts(self, note: bytes, response: bytes) -> bool:
        """Whether OpenSSL, without any of our code, finds that the response is over this note."""
        (self.directory / "note").write_bytes(note)
        (self.directory / "response").write_bytes(response)
        arguments = ["openssl", "ts", "-verify", "-data", "note", "-in", "response", "-CAfile", "root.pem"]
        return subprocess.run(arguments, cwd=self.directory, capture_output=True, check=False).returncode == 0


@contextmanager
def running_authority(directory: Path) -> Iterator[TimestampAuthority]:
    """An authority that listens, gone when the block ends."""
    authority = TimestampAuthority(directory)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            query = self.rfile.read(int(self.headers["Content-Length"]))
            status, body = authority.answer(self.headers["Content-Type"], query)
            self.send_response(status)
            self.send_header("Content-Type", "application/timestamp-reply")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    authority.url = f"http://127.0.0.1:{server.server_port}/tsa"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield authority
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

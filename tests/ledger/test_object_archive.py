"""What is said to each cloud: the suite of `test_archive` runs on S3 alone, here are the words for all three.

The store here is ours and believes everything: it shows the conditions of each request as the clouds document them, not
that the clouds accept it. Segments are then shipped to the S3 of `object_store`, through faults.
"""

from __future__ import annotations

import io
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from kiki.errors import ArchiveConflict, MissingExtra
from kiki.ledger.archive import open_archive
from tests.ledger.object_store import running_object_store
from tests.ledger.shipping import Rig, verified


class Cloud:
    """Takes an object when its name is free, and remembers every request."""

    def __init__(self):
        self.objects: dict[str, bytes] = {}
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.taken_status = 409
        self.extra = {}


@pytest.fixture
def cloud():
    cloud = Cloud()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self):
            content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            path = self.path.partition("?")[0]
            cloud.requests.append((self.command, path, {name.lower(): value for name, value in self.headers.items()}))
            status, body = 200, b""
            if self.command == "PUT":
                status = cloud.taken_status if path in cloud.objects else 201
                cloud.objects.setdefault(path, content)
            elif path in cloud.objects:
                body = cloud.objects[path]
            else:
                status = 404
            self.send_response(status)
            given = {"ETag": '"x"', "Last-Modified": "Mon, 23 Nov 2026 03:29:24 GMT", "Content-Length": str(len(body))}
            for name, value in (given | cloud.extra).items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, *arguments):
            pass

    for method in ("GET", "HEAD", "PUT"):
        setattr(Handler, f"do_{method}", Handler.answer)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    cloud.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield cloud
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def azure(cloud, monkeypatch):
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "account")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "a2V5")
    monkeypatch.setenv("AZURE_STORAGE_ENDPOINT", f"{cloud.url}/account")
    monkeypatch.setenv("AZURE_ALLOW_HTTP", "true")
    cloud.extra = {"x-ms-version-id": "version 1"}
    return open_archive("az://container/prefix")


@pytest.fixture
def google(cloud, monkeypatch):
    key = {
        "gcs_base_url": cloud.url,
        "disable_oauth": True,
        "client_email": "",
        "private_key": "",
        "private_key_id": "",
    }
    monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT_KEY", json.dumps(key))
    monkeypatch.setenv("GOOGLE_SKIP_SIGNATURE", "true")
    monkeypatch.setenv("GOOGLE_ALLOW_HTTP", "true")
    cloud.extra = {"x-goog-generation": "version 1"}
    cloud.taken_status = 412
    return open_archive("gs://bucket/prefix")


def put_twice_and_differently(archive):
    for _ in range(2):
        assert "version 1" == archive.put_if_absent("c/a", io.BytesIO(b"sealed")).version
    with pytest.raises(ArchiveConflict):
        archive.put_if_absent("c/a", io.BytesIO(b"sealeD"))


def test_azure_is_told_that_the_name_must_be_free(cloud, azure):
    put_twice_and_differently(azure)
    assert {"/account/container/prefix/c/a": b"sealed"} == cloud.objects
    assert {"*"} == {headers["if-none-match"] for method, _, headers in cloud.requests if method == "PUT"}


def test_google_is_told_that_the_name_must_be_free(cloud, google):
    put_twice_and_differently(google)
    assert {"/bucket/prefix%2Fc%2Fa": b"sealed"} == cloud.objects
    assert {"0"} == {headers["x-goog-if-generation-match"] for method, _, headers in cloud.requests if method == "PUT"}


@pytest.mark.parametrize(("mode", "expected"), [("locked", "locked"), ("unlocked", "bypassable"), ("", "unknown")])
def test_azure_says_of_a_blob_how_it_is_locked(cloud, azure, mode, expected):
    azure.put_if_absent("c/a", io.BytesIO(b"sealed"))
    if mode:
        until = "Fri, 23 Nov 2033 00:00:00 GMT"
        cloud.extra |= {"x-ms-immutability-policy-mode": mode, "x-ms-immutability-policy-until-date": until}
    assert expected == azure.lock_status("c/a").state


def test_google_does_not_say_it_and_that_is_said(google):
    google.put_if_absent("c/a", io.BytesIO(b"sealed"))
    lock = google.lock_status("c/a")
    assert "unknown" == lock.state
    assert "gcloud storage buckets describe gs://bucket" in lock.detail


def test_without_the_extra_a_bucket_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(MissingExtra, match="extra 'objectstore'"):
        open_archive("s3://bucket/prefix")


def test_segments_reach_a_locked_bucket_once_each_whatever_the_network_does(tmp_path, monkeypatch):
    with running_object_store() as store:
        for name, value in store.environment.items():
            monkeypatch.setenv(name, value)
        store.make_bucket("evidence", "COMPLIANCE")
        rig = Rig(tmp_path)
        rig.archive = open_archive("s3://evidence/kiki")
        rig.restart()
        for fault in ("", "500", "late-500", "lost", "slow", "twice"):
            store.proxy.faults.append(fault)
            rig.write(100)
            rig.pass_time(60)
            rig.work()
        assert 6 == len(verified(rig.archive, rig.ledger.signer.verifier_key))
        segments = list(rig.owner.segments())
        assert all(segment.is_shipped and segment.version for segment in segments)
        for segment in segments:
            assert "locked" == rig.archive.lock_status(segment.name).state
            assert next(rig.archive.get(segment.name, segment.version)).startswith(b"kiki-bundle/1\n")

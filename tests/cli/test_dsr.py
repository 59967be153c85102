"""`kiki dsr`: over a ledger of its own, and over a service that has the ledger open."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from kiki.cli.main import app
from tests.servers import free_port
from tests.shield.subject_receiver import SECRET, SubjectReceiver, serving

NUMBER = re.compile(r"DSR-[0-9]+-[0-9a-f]{8}")


@pytest.fixture
def data(tmp_path: Path, monkeypatch) -> Path:
    """An empty data directory, and an environment that names nothing else."""
    for name in list(os.environ):
        if name.startswith("KIKI_") or name in {"SHIELD_URL", "DATABASE_URL"}:
            monkeypatch.delenv(name)
    monkeypatch.setenv("KIKI_DATA_DIR", str(tmp_path / "data"))
    return tmp_path / "data"


def run(*arguments: str):
    return CliRunner().invoke(app, list(arguments))


def made(*arguments: str) -> str:
    """The id of a request that was just made."""
    result = run("dsr", "create", *arguments)
    assert result.exit_code == 0, result.output
    found = NUMBER.search(result.stdout)
    assert found is not None
    return found[0]


def verified(*arguments: str) -> str:
    number = made(*arguments)
    assert run("dsr", "verify", number, "--note", "saw the passport").exit_code == 0
    return number


def test_from_receipt_to_the_copy(data: Path, tmp_path: Path):
    assert run("consent", "grant", "c-1", "marketing").exit_code == 0
    created = run("dsr", "create", "c-1", "access", "--details", "all of it", "--requested-by", "Jo")
    number = NUMBER.search(created.stdout)[0]
    assert created.stdout.startswith(f"{number}: ACCESS, received, due ")
    assert f"kiki dsr verify {number}" in created.stderr
    assert number == made("c-1", "ACCESS")
    early = run("dsr", "run", number)
    assert (1, True) == (early.exit_code, "the identity of the person has to be verified first" in early.stderr)
    shown = run("dsr", "show", number).stdout
    for text in ("all of it", "Jo", "GDPR 12(3): one month from receipt", "11 CCR 7021(b)", "days left"):
        assert text in shown
    assert run("dsr", "verify", number).exit_code == 0
    copy = tmp_path / "copy.zip"
    done = run("dsr", "run", number, "-o", str(copy))
    assert (0, f"{number}: completed\n") == (done.exit_code, done.stdout)
    assert "consents" in done.stderr
    assert 0o600 == copy.stat().st_mode & 0o777
    assert "consents/consents.json" in zipfile.ZipFile(copy).namelist()
    again = run("dsr", "run", number, "-o", str(copy))
    assert (1, "File exists") == (again.exit_code, re.search("File exists", again.stderr)[0])


def test_a_deletion_and_its_proof(data: Path, tmp_path: Path):
    number = verified("c-1", "DELETION")
    assert run("dsr", "run", number).stdout == f"{number}: completed\n"
    proof, key = tmp_path / "proof.txt", run("audit", "key").stdout.strip()
    assert run("dsr", "proof", number, "-o", str(proof)).exit_code == 0
    assert run("dsr", "proof", number).stdout == proof.read_text()
    held = run("dsr", "proof", "--check", str(proof), "--key", key)
    assert (0, f"holds: {number}, DELETION, completed") == (held.exit_code, held.stdout[: len(number) + 28])
    (tmp_path / "operator.vkey").write_text(f"{key}\n")
    assert run("dsr", "proof", "--check", str(proof), "--key", str(tmp_path / "operator.vkey")).stdout == held.stdout
    proof.write_text(proof.read_text().replace("DELETION", "ACCESS"))
    assert run("dsr", "proof", "--check", str(proof), "--key", "kiki/aaaa+00000000+AAAA").exit_code == 2
    broken = run("dsr", "proof", "--check", str(proof), "--key", key)
    assert (3, "does not hold: signature") == (broken.exit_code, broken.stdout[:24])
    assert not json.loads(run("dsr", "proof", "--check", str(proof), "--key", key, "--json").stdout)["holds"]
    assert "(erased)" in run("dsr", "list", "--all").stdout
    assert run("dsr", "show", number).exit_code == 0


def test_the_list_is_filtered(data: Path):
    access, deletion = made("c-1", "ACCESS"), made("c-2", "DELETION", "--regime", "ccpa", "--received", "40d")
    lines = run("dsr", "list").stdout.splitlines()
    assert [deletion, access] == [line[:23] for line in lines[1:]]
    assert " 5 d " in lines[1] or " 4 d " in lines[1]
    for options, expected in (
        (["--type", "access"], [access]),
        (["--customer", "c-2"], [deletion]),
        (["--due-within", "10"], [deletion]),
        (["--state", "received"], [deletion, access]),
        (["--state", "running"], []),
    ):
        found = json.loads(run("dsr", "list", *options, "--json").stdout)
        assert expected == [reply["request_id"] for reply in found], options
    assert run("dsr", "list", "--customer", "nobody").stdout == "no requests\n"
    assert run("dsr", "list", "--due-within", "999999999999").exit_code == 2


def test_what_is_late_is_said(data: Path):
    made("c-1", "ACCESS", "--received", "60d")
    assert re.search(r"[0-9]+ d late", run("dsr", "list").stdout)
    assert re.search(r"[0-9]+ days late", run("dsr", "show", made("c-1", "ACCESS")).stdout)


def test_clocks_assignment_and_closing(data: Path):
    number = made("c-1", "ACCESS")
    assert "paused" in run("dsr", "pause", number, "--note", "a passport, please").stdout
    assert "standing still" in run("dsr", "show", number).stdout
    assert "identity_pending" in run("dsr", "pause", number, "--end").stdout
    assert "assigned to anna" in run("dsr", "assign", number, "anna").stdout
    assert run("dsr", "acknowledge", number).exit_code == 0
    assert run("dsr", "extend", number, "--reason", "four archives").exit_code == 0
    assert run("dsr", "extend", number, "--reason", "again").exit_code == 1
    assert run("dsr", "close", number).exit_code == 2
    unexplained = run("dsr", "close", number, "--refuse", "GDPR 12(5)")
    assert (2, True) == (unexplained.exit_code, "--reason" in unexplained.stderr)
    closed = run("dsr", "close", number, "--refuse", "GDPR 12(5)", "--reason", "the tenth this week")
    assert f"{number}: ACCESS, refused, assigned to anna\n" == closed.stdout
    assert "cancelled" in run("dsr", "close", made("c-1", "ACCESS"), "--cancel").stdout


def test_opt_outs_objections_and_corrections(data: Path):
    number = made("c-1", "OPT_OUT")
    assert run("consent", "check", "c-1", "data_sharing").exit_code == 3
    assert run("dsr", "run", number).exit_code == 0
    made("c-1", "objection", "--purpose", "analytics")
    fixed = verified("c-1", "RECTIFICATION", "--set", "name=Zoë=x")
    assert {"name": "Zoë=x"} == json.loads(run("dsr", "show", fixed, "--json").stdout)["corrections"]
    assert run("dsr", "create", "c-1", "RECTIFICATION", "--set", "name").exit_code == 2


def test_legal_holds(data: Path):
    assert run("dsr", "hold", "--ledger", str(data)).exit_code == 1
    number = verified("c-1", "DELETION")
    assert "matter 7" in run("dsr", "hold", "matter 7", "--customer", "c-1").stdout
    assert ["matter 7"] == [each["reference"] for each in json.loads(run("dsr", "hold", "--json").stdout)]
    held = run("dsr", "run", number)
    assert (0, True) == (held.exit_code, "under legal hold: matter 7" in held.stdout)
    lifted = run("dsr", "hold", "matter 7", "--customer", "c-1", "--lift")
    assert f"lifted: matter 7\n  can be run now: {number}\n" == lifted.stdout
    assert run("dsr", "hold").stdout == "no legal holds\n"
    assert run("dsr", "hold", "--lift").exit_code == 2
    assert run("dsr", "hold", "matter 8", "--lift").stderr.endswith("hint: list them: kiki dsr hold\n")
    again = run("dsr", "run", number, "-o", str(data / "copy.zip"))
    assert (again.stdout, (data / "copy.zip").exists()) == (f"{number}: completed\n", False)
    assert "not written: " in again.stderr


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("create", "", "ACCESS"), 2),
        (("create", "c-1", "ERASURE"), 2),
        (("create", "c-1", "ACCESS", "--regime", "lgpd"), 2),
        (("create", "c-1", "ACCESS", "--purpose", "marketing"), 2),
        (("create", "c-1", "ACCESS", "--received", "soon"), 2),
        (("create", "c" * 1024, "ACCESS"), 2),
        (("show", "DSR-7"), 2),
        (("run", "-o", "x.zip"), 2),
        (("proof",), 2),
        (("proof", "--check", "/nowhere", "--key", "x"), 2),
        (("proof", "--check", "/nowhere"), 2),
        (("list", "--state", "lost"), 2),
        (("close", "DSR-1-00000000", "--cancel"), 1),
    ],
)
def test_what_cannot_be_is_refused_on_stderr(data: Path, arguments: tuple[str, ...], code: int):
    made("c-9", "ACCESS")
    result = run("dsr", *arguments)
    assert (code, "", True) == (result.exit_code, result.stdout, result.stderr.startswith("error: ")), result.stderr
    as_json = run("dsr", *arguments, "--json")
    assert (code, {"error"}) == (as_json.exit_code, set(json.loads(as_json.stderr)))


@pytest.mark.parametrize(("name", "value"), [("KIKI_HOLIDAYS", "XX"), ("RETENTION_DAYS", "x")])
def test_a_wrong_setting_is_an_error_and_no_usage(data: Path, monkeypatch, name: str, value: str):
    made("c-9", "ACCESS")
    monkeypatch.setenv(name, value)
    wrong = run("dsr", "create", "c-1", "ACCESS")
    assert (1, "", True) == (wrong.exit_code, wrong.stdout, f"{name}='{value}'" in wrong.stderr)


def test_looking_makes_no_ledger(data: Path):
    for arguments in (("list",), ("show", "DSR-1-00000000"), ("run",), ("hold",)):
        assert run("dsr", *arguments).exit_code == 1
    assert not data.exists()


def test_systems_of_ones_own_are_gone_through_and_what_fails_waits(data: Path, tmp_path: Path, monkeypatch):
    receiver = SubjectReceiver()
    receiver.records["c-1"] = ["order 1"]
    with serving(receiver) as url:
        file = tmp_path / "systems.yaml"
        file.write_text(f"systems:\n  - {{name: shop, url: '{url}', secret_env: SHOP_SECRET}}\n")
        monkeypatch.setenv("KIKI_SUBJECT_SYSTEMS_FILE", str(file))
        monkeypatch.setenv("SHOP_SECRET", SECRET)
        number = verified("c-1", "DELETION")
        receiver.mood["erase"] = 403
        waits = run("dsr", "run", number)
        assert (3, "shop: system_unavailable") == (waits.exit_code, waits.stdout.splitlines()[0])
        assert run("dsr", "run").stdout == "no request is due to run\n"
        receiver.mood.clear()
        assert run("dsr", "run", number).stdout == f"{number}: completed\n"
        assert [] == receiver.records["c-1"]
    file.write_text("systems:\n  - {name: shop}\n")
    wrong = run("dsr", "list", "--json")
    assert (1, "systems_invalid", 2) == (
        wrong.exit_code,
        json.loads(wrong.stderr)["error"]["code"],
        len(json.loads(wrong.stderr)["error"]["problems"]),
    )


def test_while_a_service_has_the_ledger_it_is_asked(data: Path, tmp_path: Path, monkeypatch):
    port = free_port()
    environ = os.environ | {"PORT": str(port), "KIKI_REDIS": "off"}
    service = subprocess.Popen(
        [sys.executable, "-m", "kiki", "serve", "shield"], env=environ, stderr=subprocess.DEVNULL
    )
    try:
        url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 60
        while True:
            assert time.monotonic() < deadline
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(f"{url}/readyz").status_code == 200:
                    break
            time.sleep(0.05)
        number = made("c-1", "ACCESS", "--url", url)
        monkeypatch.setenv("KIKI_SHIELD_URL", url)
        assert number in run("dsr", "list").stdout
        assert run("dsr", "verify", number).exit_code == 0
        copy = tmp_path / "copy.zip"
        done = run("dsr", "run", number, "-o", str(copy))
        assert (0, f"{number}: completed\n") == (done.exit_code, done.stdout), done.output
        assert zipfile.ZipFile(copy).testzip() is None
        run("dsr", "hold", "matter 7")
        assert "everybody" in run("dsr", "hold").stdout
        assert run("dsr", "hold", "matter 7", "--lift").exit_code == 0
        assert "DSR-" in run("dsr", "proof", number).stdout
        assert run("dsr", "run").stdout == "no request is due to run\n"
        monkeypatch.delenv("KIKI_SHIELD_URL")
        locked = run("dsr", "list", "--ledger", str(data))
        assert (1, True) == (locked.exit_code, "another process" in locked.stderr)
    finally:
        service.terminate()
        service.wait(60)

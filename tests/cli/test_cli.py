"""The command line: what each command asks, shows and returns, in this process and as a real one."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from kiki import __version__
from kiki.cli import budget_watch, show
from kiki.cli.main import app, main
from kiki.cli.options import parse_when
from kiki.errors import InvalidInput, LedgerUnavailable, ShieldUnreachable, SpendDenied
from kiki.shield.budget_guard import BudgetGuard
from kiki.shield.window import MeterStatus
from kiki.shield.wire import BudgetsReply
from kiki.shield.wire_answer import budgets_reply
from tests.cli.fake_shield import Guarded, Real

DOCS = Path(__file__).parents[2] / "docs" / "cli.md"
POLICY = "budgets:\n  - {name: small, scope: '*', limit: '50', window: 60s}\n"


@pytest.fixture(scope="module")
def real() -> Iterator[Real]:
    with Real() as server:
        yield server


@pytest.fixture
def service(real: Real, monkeypatch) -> Guarded:
    """A fresh guard behind the address that the commands find."""
    real.service, real.bad, real.keys = Guarded(), [], []
    monkeypatch.setenv("KIKI_SHIELD_URL", real.url)
    return real.service


def run(*arguments: str, **options):
    return CliRunner().invoke(app, list(arguments), **options)


def kiki(*arguments: str, **options) -> subprocess.CompletedProcess[str]:
    """The command as a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "kiki", *arguments], capture_output=True, text=True, timeout=200, check=False, **options
    )


# -- spending ----------------------------------------------------------------------------------------


def test_spending_until_it_is_refused(service: Guarded):
    """0 while it fits, then 3; a refusal is a result and goes to stdout."""
    for _ in range(5):
        result = run("spend", "--amount", "100", "--scope", "platform:meta")
        assert (result.exit_code, result.stdout[:17]) == (0, "spent: 100.00 USD")
    result = run("spend", "--amount", "100")
    assert (result.exit_code, result.stderr) == (3, "")
    assert result.stdout.startswith("refused: 100.00 does not fit budget 'default'")
    assert run("check", "--ltv", "600").exit_code == 3
    assert run("spend", "--amount", "7", "--record").stdout.startswith("recorded: 7.00 USD")


def test_json_of_a_spend_and_of_its_refusal_have_one_shape(service: Guarded):
    taken = json.loads(run("spend", "--amount", "450", "--key", "k", "--json").stdout)
    assert (taken["allowed"], taken["amount"], taken["currency"]) == (True, "450.00", "USD")
    assert json.loads(run("spend", "--amount", "450", "--key", "k", "--json").stdout) == taken
    result = run("spend", "--amount", "100", "--json")
    refused = json.loads(result.stdout)
    assert result.exit_code == 3
    assert (refused["allowed"], refused["reason"], refused["remaining"]) == (False, "budget_exhausted", "50.00")
    assert set(taken) < set(refused)


def test_checking(service: Guarded):
    assert (run("check").exit_code, run("check").stdout) == (0, "allowed\n")
    result = run("check", "--ltv", "5")
    assert (result.exit_code, result.stdout) == (3, "refused: the predicted value is below the minimum\n")
    result = run("check", "--amount", "501", "--json")
    assert (result.exit_code, json.loads(result.stdout)["reason"]) == (3, "above_limit")


def test_a_reservation_from_beginning_to_end(service: Guarded):
    """stdout is the id alone, so that a script can keep it."""
    result = run("reserve", "--amount", "80", "--seconds", "60")
    hold = result.stdout.strip()
    assert re.fullmatch(r"[0-9a-f]{32}", hold)
    assert result.stderr.startswith("reserved: 80.00 USD until ")
    assert run("commit", hold, "--amount", "64.20").stdout.startswith("committed: 64.20 of 80.00")
    again = run("release", hold)
    assert (again.exit_code, again.stderr[:6]) == (1, "error:")
    other = json.loads(run("reserve", "--amount", "1", "--json").stdout)
    assert (other["amount"], other["deadline"]) == ("1.00", None)
    assert run("release", other["id"]).stdout.startswith("released: 1.00")
    assert run("reserve", "--amount", "501").exit_code == 3
    assert json.loads(run("reserve", "--amount", "501", "--json").stdout)["reason"] == "above_limit"


# -- budgets -----------------------------------------------------------------------------------------


def test_the_budgets_table_and_json(service: Guarded):
    run("spend", "--amount", "100")
    run("reserve", "--amount", "50")
    table = run("budget", "status").stdout
    for text in ("default", "100.00", "50.00", "350.00", "500.00", "█", "▒", "░"):
        assert text in table
    (meter,) = json.loads(run("budget", "status", "--json").stdout)["budgets"]
    assert (meter["spent"], meter["held"], meter["remaining"]) == ("100.00", "50.00", "350.00")
    # Not a terminal: one print, and an end.
    assert "default" in run("budget", "status", "--watch").stdout
    assert json.loads(run("budget", "status", "--budget", "other", "--json").stdout)["budgets"] == []


def test_the_kill_switch(service: Guarded):
    assert run("budget", "halt", "platform:meta", "--note", "runaway").stdout.startswith("halted: platform:meta")
    assert "halted: platform:meta" in run("budget", "status").stdout
    assert run("spend", "--amount", "1", "--scope", "platform:meta").exit_code == 3
    assert json.loads(run("budget", "resume", "platform:meta", "--json").stdout)["halted"] is False
    assert run("spend", "--amount", "1", "--scope", "platform:meta").exit_code == 0


def test_simulating_asks_the_service_or_a_ledger(service: Guarded, tmp_path: Path):
    """The same question, the same figures."""
    policy = tmp_path / "policy.yaml"
    policy.write_text(POLICY)
    run("spend", "--amount", "100")
    online = json.loads(run("budget", "simulate", str(policy), "--json").stdout)
    assert (online["newly_refused"], online["newly_refused_amount"]) == (1, "100.00")
    with BudgetGuard.open(tmp_path / "shield.db", limit="500") as guard:
        guard.spend("100")
        offline = run("budget", "simulate", str(policy), "--since", "1h", "--data-dir", str(tmp_path), "--json")
    assert json.loads(offline.stdout) == online
    assert "newly refused" in run("budget", "simulate", str(policy)).stdout
    broken = tmp_path / "broken.yaml"
    broken.write_text("budgets: 5\n")
    for more in ([], ["--data-dir", str(tmp_path)]):
        result = run("budget", "simulate", str(broken), *more)
        assert (result.exit_code, result.stdout) == (1, "")
        assert "policy" in result.stderr


# -- the live view -----------------------------------------------------------------------------------


def meter(spent: int, held: int = 0, limit: int = 100, room_at: int | None = None) -> MeterStatus:
    return MeterStatus("default", "*", limit * 10**6, 60 * 10**6, spent * 10**6, held * 10**6, room_at)


def reply(*meters: MeterStatus, halts: tuple[str, ...] = ()) -> BudgetsReply:
    return budgets_reply(meters, halts, currency="USD", window="local", at=10**12)


def drawn(what) -> str:
    console = Console(file=io.StringIO(), width=160, highlight=False)
    console.print(what)
    return console.file.getvalue()


def test_the_rate_of_spending_is_what_polls_saw_rise():
    """Money that leaves the window does not count against what was spent."""
    rates = budget_watch.Rates(span=10)
    rates.see(0.0, [meter(0)])
    assert rates.of(meter(0)) is None
    rates.see(1.0, [meter(10)])
    rates.see(2.0, [meter(4)])
    rates.see(4.0, [meter(14)])
    assert rates.of(meter(14)) == 5 * 10**6
    for second in range(5, 30):
        rates.see(float(second), [meter(14)])
    assert rates.of(meter(14)) == 0


@pytest.mark.parametrize(
    ("spent", "held", "expected"),
    [
        (0, 0, "░" * 10),
        (1, 0, "█" + "░" * 9),
        (50, 20, "█████▒▒░░░"),
        (100, 0, "█" * 10),
        (150, 9, "█" * 10),
        (0, 1, "▒" + "░" * 9),
    ],
)
def test_a_bar_shows_what_is_not_nothing(spent: int, held: int, expected: str):
    assert budget_watch.bar(meter(spent, held), 10).plain == expected


@pytest.mark.parametrize("width", [72, 80, 160])
def test_a_narrow_terminal_gets_a_narrow_bar(width: int):
    """Nothing is cut off: the bar gives way."""
    watch = budget_watch.Watch("http://here")
    watch.poll(lambda: reply(meter(50, room_at=10**12 + 30 * 10**6)), 0.0)
    console = Console(file=io.StringIO(), width=width, highlight=False)
    console.print(watch.frame(0.0))
    picture = console.file.getvalue()
    assert "…" not in picture
    full, empty = picture.count("█"), picture.count("░")
    assert 0 <= full - empty <= 1
    assert 8 <= full + empty <= 28


def test_the_live_view_survives_a_service_that_goes_away():
    """The last picture stays, the trouble is written below it, and it goes on when the service is back."""
    watch = budget_watch.Watch("http://here")

    def gone() -> BudgetsReply:
        raise ShieldUnreachable("cannot be reached: nobody there")

    watch.poll(gone, 0.0)
    assert "nobody there" in drawn(watch.frame(0.0))
    watch.poll(lambda: reply(meter(10, room_at=10**12 + 30 * 10**6), halts=("platform:x",)), 1.0)
    assert "30.0 s" in drawn(watch.frame(1.0))
    watch.poll(gone, 2.0)
    picture = drawn(watch.frame(6.0))
    for text in ("10.00", "25.0 s", "nobody there", "last answer 5 s ago", "halted: platform:x"):
        assert text in picture
    watch.poll(lambda: reply(meter(20)), 7.0)
    assert "nobody there" not in drawn(watch.frame(7.0))


def test_watching_goes_on_until_ctrl_c(monkeypatch):
    looks = []

    def look() -> BudgetsReply:
        looks.append(1)
        if len(looks) == 3:
            raise KeyboardInterrupt
        return reply(meter(len(looks)))

    monkeypatch.setattr(budget_watch, "POLL_SECONDS", 0.01)
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    with pytest.raises(KeyboardInterrupt):
        budget_watch.watch(look, "http://here", console)
    assert len(looks) == 3
    assert "default" in console.file.getvalue()


# -- the audit ---------------------------------------------------------------------------------------


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Path]:
    """A data directory whose ledger is open and has five spends, one of them refused."""
    with BudgetGuard.open(tmp_path / "shield.db", limit="500") as guard:
        guard.spend_many(["100", ("100", {"platform": "meta"}), "100", "600"])
        guard.spend("0.01", key="k")
        yield tmp_path


def test_exporting_while_the_ledger_is_written(ledger: Path, monkeypatch):
    """CSV with the header of old, or one JSON object a line; filters; the directory from the environment."""
    result = run("audit", "export", "--data-dir", str(ledger))
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    assert [row["outcome"] for row in rows] == ["APPROVED"] * 3 + ["DENIED", "APPROVED"]
    monkeypatch.setenv("KIKI_DATA_DIR", str(ledger))
    denied = run("audit", "export", "--format", "jsonl", "--outcome", "denied").stdout.splitlines()
    assert [json.loads(line)["amount"] for line in denied] == ["600.00"]
    assert run("audit", "export", "--json", "--scope", "platform:meta").stdout.count("\n") == 1
    assert len(run("audit", "export", "--until", "1h").stdout.splitlines()) == 1
    assert len(run("audit", "export", "--since", "1h").stdout.splitlines()) == 6


def test_an_export_into_a_file_is_whole_or_not_there(ledger: Path):
    file = ledger / "out.csv"
    result = run("audit", "export", "--data-dir", str(ledger), "-o", str(file))
    assert (result.exit_code, result.stdout) == (0, "")
    assert len(file.read_text().splitlines()) == 6
    result = run("audit", "export", "--data-dir", str(ledger), "--outcome", "nonsense", "-o", str(ledger / "no.csv"))
    assert result.exit_code == 2
    assert [each.name for each in ledger.iterdir() if each.suffix in {".csv", ".part"}] == ["out.csv"]
    assert run("audit", "export", "--data-dir", str(ledger), "-o", str(ledger / "absent" / "x")).exit_code == 1


def test_the_tail_shows_the_last_ones(ledger: Path):
    lines = run("audit", "tail", "-n", "2", "--data-dir", str(ledger)).stdout.splitlines()
    assert ["DENIED" in line for line in lines] == [True, False]
    assert "600.00" in lines[0]
    (line,) = run("audit", "tail", "-n", "1", "--json", "--data-dir", str(ledger)).stdout.splitlines()
    assert json.loads(line)["amount"] == "0.01"


def test_the_tail_follows_until_ctrl_c(tmp_path: Path):
    with BudgetGuard.open(tmp_path / "shield.db", limit="500") as guard:
        guard.spend("1")
        command = [sys.executable, "-m", "kiki", "audit", "tail", "-f", "--data-dir", str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert "1.00" in process.stdout.readline()
            guard.spend("2")
            assert "2.00" in process.stdout.readline()
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 130
            assert process.stderr is not None
            assert process.stderr.read() == ""


def test_no_ledger_is_an_error_with_a_hint(tmp_path: Path):
    result = run("audit", "tail", "--data-dir", str(tmp_path / "nowhere"))
    assert (result.exit_code, result.stdout) == (1, "")
    assert re.fullmatch(r"error: there is no ledger at .*\nhint: .*\n", result.stderr)


# -- settings, serving -------------------------------------------------------------------------------


def test_settings_show_everything_but_secrets(monkeypatch):
    monkeypatch.setenv("REDIS_PASSWORD", "hunter2")
    monkeypatch.setenv("REDIS_ADDR", "redis://me:hunter2@there:6379")
    monkeypatch.setenv("KIKI_SHIELD_TOKEN", "hunter2")
    monkeypatch.setenv("MAX_BURST_BUDGET", "1000.0")
    for arguments in (["settings"], ["settings", "--json"]):
        result = run(*arguments)
        assert result.exit_code == 0, result.output
        assert "hunter2" not in result.output
    found = {each["name"]: each for each in json.loads(result.stdout)["settings"]}
    assert (found["MAX_BURST_BUDGET"]["value"], found["MAX_BURST_BUDGET"]["default"]) == ("1000.0", "500.0")
    assert found["REDIS_PASSWORD"]["value"] == found["KIKI_SHIELD_TOKEN"]["value"] == "***"
    assert not found["PORT"]["is_set"]


def test_settings_name_every_mistake(monkeypatch):
    monkeypatch.setenv("PORT", "many")
    monkeypatch.setenv("KIKI_SHEILD_URL", "x")
    monkeypatch.setenv("KIKI_TSA_URL", "https://me:hunter2@stamps")  # takes no password, and does not print one
    result = run("settings")
    assert result.exit_code == 1
    assert "hunter2" not in result.output
    assert "KIKI_TSA_URL" in result.stderr
    assert "PORT" in result.stderr
    assert "KIKI_SHIELD_URL?" in result.stderr
    assert len(json.loads(run("settings", "--json").stdout)["problems"]) == 3


def test_serving_hands_its_options_on_as_settings(monkeypatch):
    """They win over the environment, and nothing else is decided here."""
    import types

    seen: list[dict[str, str]] = []
    wiring = types.ModuleType("kiki.cli.wiring")
    wiring.run_shield = seen.append
    monkeypatch.setitem(sys.modules, "kiki.cli.wiring", wiring)
    monkeypatch.setenv("PORT", "1")
    result = run("serve", "shield", "--port", "9000", "--host", "::1", "--data-dir", "there")
    assert result.exit_code == 0, result.output
    assert {name: seen[0][name] for name in ("PORT", "KIKI_HOST", "KIKI_DATA_DIR")} == {
        "PORT": "9000",
        "KIKI_HOST": "::1",
        "KIKI_DATA_DIR": "there",
    }
    run("serve", "shield")
    assert seen[1]["PORT"] == "1"


# -- errors and exit codes ---------------------------------------------------------------------------


def test_errors_go_to_stderr_in_one_line_or_as_json(service: Guarded):
    result = run("commit", "f" * 32, "--amount", "1")
    assert (result.exit_code, result.stdout) == (1, "")
    assert re.fullmatch(r"error: .*\n", result.stderr)
    result = run("commit", "f" * 32, "--amount", "1", "--json")
    assert (result.exit_code, result.stdout) == (1, "")
    assert json.loads(result.stderr)["error"]["code"] == "hold_unknown"


@pytest.mark.parametrize(
    "arguments",
    [
        ["spend"],
        ["spend", "--amount", "-5"],
        ["spend", "--amount", "5", "--scope", "meta"],
        ["spend", "--amount", "5", "--nonsense"],
        ["nonsense"],
        ["commit", "x", "--amount", "1"],
        ["budget", "halt", "meta"],
        ["audit", "export", "--format", "xml"],
        ["audit", "tail", "-n", "-1"],
        ["budget", "simulate", "p.yaml", "--since", "yesterday"],
        ["serve", "shield", "--port", "99999"],
        [],
        ["budget"],
    ],
)
def test_what_cannot_be_meant_is_a_usage_error(arguments: list[str]):
    assert run(*arguments).exit_code == 2


def test_exit_codes_are_a_table():
    assert show.exit_code(SpendDenied("no", reason="halted")) == 3
    assert show.exit_code(InvalidInput("no")) == 2
    assert show.exit_code(LedgerUnavailable("no")) == 1


def test_nothing_that_a_terminal_would_obey_is_printed(capsys):
    """A name from a policy or a scope cannot colour, move or clear anything."""
    show.line("a\x1b[2Jb\u202ec")
    assert capsys.readouterr().out == "a\ufffd[2Jb\ufffdc\n"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--version"], 0),
        (["spend", "--amount", "1"], 0),
        (["spend", "--amount", "501"], 3),
        (["check", "--ltv", "5"], 3),
        (["release", "f" * 32], 1),
        (["spend", "--amount", "x"], 2),
        (["spend"], 2),
    ],
)
def test_exit_codes_of_real_processes(service: Guarded, arguments: list[str], code: int):
    assert kiki(*arguments).returncode == code


def test_an_absent_service_is_an_error_with_a_hint():
    result = kiki("check", "--url", "http://127.0.0.1:9")
    assert (result.returncode, result.stdout) == (1, "")
    assert re.fullmatch(r"error: SyncShield at .*\nhint: .*kiki serve shield\n", result.stderr)


def test_the_tail_of_a_quiet_ledger_ends_when_nobody_reads_it(tmp_path: Path):
    """`kiki audit tail -f | head -1` ends, although nothing is written any more."""
    with BudgetGuard.open(tmp_path / "shield.db", limit="500000") as guard:
        guard.spend_many(["1", "2", "3"])
    command = [sys.executable, "-m", "kiki", "audit", "tail", "-f", "--data-dir", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert "APPROVED" in process.stdout.readline()
        process.stdout.close()
        assert process.wait(60) == 141


def shell(line: str, data_dir: Path) -> subprocess.CompletedProcess[str]:
    command = f"exec {shlex.quote(sys.executable)} -m kiki audit export --data-dir {shlex.quote(str(data_dir))} {line}"
    return subprocess.run(command, shell=True, stderr=subprocess.PIPE, text=True, timeout=60, check=False)


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="there is no /dev/full")
@pytest.mark.parametrize(("spends", "options"), [(1, ""), (20_000, ""), (1, "--json")])
def test_an_output_that_is_full_is_said_in_one_line(tmp_path: Path, spends: int, options: str):
    with BudgetGuard.open(tmp_path / "shield.db", limit="500000") as guard:
        for begin in range(0, spends, 5000):
            guard.spend_many(["0.01"] * min(5000, spends - begin))
    told = shell(f"{options} >/dev/full", tmp_path)
    assert (1, 1) == (told.returncode, len(told.stderr.splitlines()))
    assert "the output cannot be written: No space left on device" in told.stderr


def test_a_stream_that_the_caller_closed_is_none_that_is_written_to(tmp_path: Path):
    with BudgetGuard.open(tmp_path / "shield.db", limit="500000") as guard:
        guard.spend("1")
    before = (tmp_path / "shield.db").read_bytes()
    told = shell("<&- >&-", tmp_path)
    assert (0, "") == (told.returncode, told.stderr)
    assert 1 == shell("--data-dir /nowhere <&- >&- 2>&-", tmp_path).returncode
    assert before == (tmp_path / "shield.db").read_bytes()


def test_a_closed_pipe_is_silent(tmp_path: Path):
    """`kiki audit export | head -1` ends quietly."""
    with BudgetGuard.open(tmp_path / "shield.db", limit="500000") as guard:
        for _ in range(5):
            guard.spend_many(["0.01"] * 5000)
    command = [sys.executable, "-m", "kiki", "audit", "export", "--data-dir", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("timestamp")
        process.stdout.close()
        assert process.wait(60) == 141
        assert process.stderr is not None
        assert process.stderr.read() == ""


@pytest.mark.parametrize("words", ["budget status", "check", "check --json"])
def test_a_closed_pipe_has_its_exit_code_under_tables_too(service: Guarded, words: str):
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "kiki", *words.split()]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, check=False, timeout=60)
    os.close(write)
    assert (141, "") == (done.returncode, done.stderr)


def test_the_token_comes_from_a_file(real: Real, service: Guarded, tmp_path: Path, monkeypatch):
    """A missing one is an error, and its content is never printed."""
    assert run("check", "--token-file", str(tmp_path / "absent")).exit_code == 1
    token = tmp_path / "token"
    token.write_text("two words")
    result = run("check", "--token-file", str(token))
    assert result.exit_code == 1
    assert "two words" not in result.output
    token.write_text("secret-one\n")
    seen: list[str] = []
    send = httpx.Client.send

    def spy(self, request, **options):
        seen.append(request.headers["Authorization"])
        return send(self, request, **options)

    monkeypatch.setattr(httpx.Client, "send", spy)
    assert run("check", "--token-file", str(token)).exit_code == 0
    assert seen == ["Bearer secret-one"]


# -- moments -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2h", datetime(2026, 11, 22, 8, tzinfo=UTC)),
        ("7d", datetime(2026, 11, 15, 10, tzinfo=UTC)),
        ("45s", datetime(2026, 11, 22, 9, 59, 15, tzinfo=UTC)),
        ("2w", datetime(2026, 11, 8, 10, tzinfo=UTC)),
        ("2026-01-02", datetime(2026, 1, 2, tzinfo=UTC)),
        ("2026-01-02T03:04:05Z", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
        ("2026-01-02T03:04:05.5+01:00", datetime(2026, 1, 2, 2, 4, 5, 500000, tzinfo=UTC)),
        (None, None),
    ],
)
def test_a_moment_is_relative_a_date_or_rfc_3339(text: str | None, expected: datetime | None):
    assert parse_when(text, datetime(2026, 11, 22, 10, tzinfo=UTC)) == expected


@pytest.mark.parametrize(
    "text", ["", "2", "h", "-2h", "2026-13-01", "2026-02-30", "2026-01-02T03:04:05", "999999w", "yesterday", "٢h"]
)
def test_what_is_no_moment_is_refused(text: str):
    with pytest.raises(InvalidInput):
        parse_when(text, datetime(2026, 11, 22, tzinfo=UTC) + timedelta(0))


# -- help, completion, documentation -----------------------------------------------------------------


def commands() -> dict[tuple[str, ...], object]:
    """Every command by its path."""
    found: dict[tuple[str, ...], object] = {}

    def walk(command, path: tuple[str, ...]) -> None:
        inner = getattr(command, "commands", None)
        if inner is None:
            found[path] = command
        else:
            for name, child in inner.items():
                walk(child, (*path, name))

    walk(typer.main.get_command(app), ())
    return found


@pytest.mark.parametrize("path", sorted(commands()), ids=" ".join)
def test_every_command_has_help(path: tuple[str, ...]):
    """What it does, and what each option and argument means."""
    result = run(*path, "--help")
    assert result.exit_code == 0
    command = commands()[path]
    assert command.help
    assert not command.help.splitlines()[0].endswith("...")
    for parameter in command.params:
        assert getattr(parameter, "help", None), (path, parameter.name)


@pytest.mark.parametrize("path", sorted(commands()), ids=" ".join)
def test_every_command_and_option_is_documented(path: tuple[str, ...]):
    """docs/cli.md has a section for each command, with each of its options in it."""
    text = DOCS.read_text()
    heading = f"### `kiki {' '.join(path)}`"
    assert heading in text
    section = re.split(r"\n##", text.partition(heading)[2])[0]
    for parameter in commands()[path].params:
        for name in parameter.opts:
            if name.startswith("--") and name not in {"--help", "--json", "--url", "--token-file"}:
                assert f"`{name}" in section, (path, name)


def test_nothing_is_documented_that_is_not_there():
    headings = re.findall(r"^### `kiki ([a-z -]+)`", DOCS.read_text(), re.MULTILINE)
    assert sorted(headings) == sorted(" ".join(path) for path in commands())


def test_the_documented_exit_codes_are_the_real_ones():
    found = {int(code) for code in re.findall(r"^\| (\d+) \|", DOCS.read_text(), re.MULTILINE)}
    assert found == {
        show.EXIT_YES,
        show.EXIT_ERROR,
        show.EXIT_USAGE,
        show.EXIT_REFUSED,
        show.EXIT_INTERRUPTED,
        show.EXIT_PIPE,
    }


def test_the_version():
    assert run("--version").stdout == f"kiki {__version__}\n"


def test_the_shell_completes_commands():
    environ = os.environ | {"_KIKI_COMPLETE": "complete_bash", "COMP_WORDS": "kiki bud", "COMP_CWORD": "1"}
    assert kiki(env=environ).stdout.split() == ["budget"]


def test_help_loads_nothing_heavy():
    """`kiki --help` answers before anybody notices."""
    code = (
        "import sys\nfrom kiki.cli.main import main\nsys.argv = ['kiki', '--help']\n"
        "try: main()\nexcept SystemExit: pass\n"
        "print(*{name.partition('.')[0] for name in sys.modules}, file=sys.stderr)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"httpx", "rich", "aiohttp", "apsw", "msgspec", "pydantic", "yaml", "redis", "uvloop", "prometheus_client"}
    assert set(result.stderr.split()) & heavy == set()


def test_ctrl_c_anywhere_is_130(monkeypatch):
    """Also where no command runs yet."""

    def interrupted(**_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("kiki.cli.main.app", interrupted)
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 130

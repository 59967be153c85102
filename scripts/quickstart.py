"""The guide's "Test budget enforcement", done for real and checked: `make quickstart` runs this.

Starts `kiki serve shield` in a directory of its own under .quickstart/, sends six spends of 100 against
the default budget of 500, asks /check?ltv=600, and shows where the audit record of all seven lies. Fails
unless it saw exactly five 200, then 403, 403. Standard library only; the service is stopped whatever happens.
"""

from __future__ import annotations

import contextlib
import csv
import ctypes
import http.client
import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent
RUNS = ROOT / ".quickstart"
PORT_WANTED = 8081
REQUESTS = [*["/spend?amount=100"] * 6, "/check?ltv=600"]
EXPECTED = [200, 200, 200, 200, 200, 403, 403]
READY_SECONDS = 30.0
AUDIT_SECONDS = 3.0
STOP_SECONDS = 10.0

# Whatever this shell was set up for, the quickstart is about the defaults.
SETTINGS_PREFIXES = ("KIKI_", "REDIS_", "DB_", "POSTGRES_", "LTV_", "OTEL_", "PG")
SETTINGS = frozenset(
    {
        *("PORT", "MAX_BURST_BUDGET", "WINDOW_SECONDS", "RETENTION_DAYS", "MIN_LTV", "MAX_LTV", "SHIELD_URL"),
        *("DATABASE_URL", "LOG_LEVEL", "OUTPUT_DIR", "CACHE_DIR", "PYTHONPATH", "PYTHONHOME"),
    }
)

COLOUR = sys.stdout.isatty() and "NO_COLOR" not in os.environ


class Failed(Exception):
    """The quickstart did not show what it promises."""


def painted(text: str, code: str) -> str:
    """The text in an ANSI colour when a person is looking at a terminal."""
    return f"\x1b[{code}m{text}\x1b[0m" if COLOUR else text


def bold(text: str) -> str:
    """The text as a heading."""
    return painted(text, "1")


def dim(text: str) -> str:
    """The text as a remark."""
    return painted(text, "2")


def say(text: str = "") -> None:
    """One line, at once, so that a person can follow."""
    print(text, flush=True)


def shown(path: Path) -> str:
    """The path as short as it can be typed from where the person stands."""
    with contextlib.suppress(ValueError):
        return str(path.relative_to(Path.cwd()))
    return str(path)


def is_taken(port: int) -> bool:
    """True when something serves this port already, on any address that localhost may mean."""
    for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.settimeout(1)
            if probe.connect_ex((host, port)) == 0:
                return True
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False


def free_port() -> int:
    """A port of the loopback that nobody uses at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def closed_port() -> Iterator[int]:
    """A port on which nothing answers and nobody else can begin to: bound here, never listening."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield int(holder.getsockname()[1])


def environment(data_dir: Path, port: int, redis_port: int) -> dict[str, str]:
    """Ours to begin with, without a setting of kiki in it, plus the three that this run needs."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in SETTINGS and not name.startswith(SETTINGS_PREFIXES)
    }
    return kept | {
        "PORT": str(port),
        "REDIS_ADDR": f"127.0.0.1:{redis_port}",
        "KIKI_DATA_DIR": str(data_dir),
        "PYTHONUNBUFFERED": "1",
    }


def die_with_parent() -> None:
    """Ask Linux to end the service too when this script is killed in a way that it cannot see."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # 1 is PR_SET_PDEATHSIG


@contextlib.contextmanager
def service(command: list[str], env: dict[str, str], run_dir: Path, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The running service, its output in `log`; gone when the block ends, however it ends."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            env=env,
            cwd=run_dir,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C reaches this script alone, which then stops the service in order
            preexec_fn=die_with_parent,  # noqa: PLW1509 - no other thread exists here
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(STOP_SECONDS / 2)
            if process.poll() is None:
                process.kill()
                process.wait()


def get(port: int, target: str, timeout: float = 10.0) -> tuple[int, str]:
    """The status and the body of one GET; no proxy is asked."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request("GET", target, headers={"Host": f"localhost:{port}"})
        response = connection.getresponse()
        return response.status, response.read().decode("utf-8", "replace").strip()
    finally:
        connection.close()


def wait_until_ready(process: subprocess.Popen[bytes], port: int) -> float:
    """The seconds until /readyz said 200."""
    began = time.monotonic()
    last = "no answer"
    while (waited := time.monotonic() - began) < READY_SECONDS:
        if process.poll() is not None:
            raise Failed(f"the service ended with exit code {process.returncode} before it was ready")
        try:
            status, body = get(port, "/readyz", timeout=2)
        except (OSError, http.client.HTTPException):
            pass
        else:
            if status == 200:
                return waited
            last = f"{status} {body}"
        time.sleep(0.05)
    raise Failed(f"the service was not ready after {READY_SECONDS:.0f} s; /readyz: {last}")


def ask_all(port: int) -> list[int]:
    """The statuses of the seven requests, each shown as it comes."""
    statuses = []
    for number, target in enumerate(REQUESTS, start=1):
        try:
            status, body = get(port, target)
        except (OSError, http.client.HTTPException) as error:
            raise Failed(f"request {number}, GET {target}: {error!r}") from error
        statuses.append(status)
        colour = "32" if status == 200 else "33" if status == 403 else "31"
        command = f'curl "http://localhost:{port}{target}"'
        say(f"  {number}  {command:<50} {painted(str(status), colour)}  {' '.join(body.split())[:160]}")
    return statuses


def decisions(audit: Path) -> list[dict[str, str]]:
    """The decision rows of the audit record as far as it is written."""
    with contextlib.suppress(FileNotFoundError), audit.open(newline="", encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if row.get("outcome") in {"APPROVED", "DENIED"}]
    return []


def wait_for_audit(audit: Path) -> list[dict[str, str]]:
    """The decision rows once there is one for each request, or what is there when the patience ends."""
    deadline = time.monotonic() + AUDIT_SECONDS
    while len(rows := decisions(audit)) < len(REQUESTS) and time.monotonic() < deadline:
        time.sleep(0.05)
    return rows


def show_audit(rows: list[dict[str, str]]) -> None:
    """Each row shortened to what a person looks for first."""
    for row in rows:
        outcome = row["outcome"]
        colour = "32" if outcome == "APPROVED" else "33"
        event_id = (row.get("event_id") or "")[:16]
        what = f"{row.get('action') or '-'} {row.get('resource') or ''}".strip()
        say(
            f"  {row.get('timestamp') or '':<27} {event_id:<16}  {what:<28.28} "
            f"{painted(f'{outcome:<8}', colour)}  {(row.get('reason') or '')[:90]}"
        )


def stop(process: subprocess.Popen[bytes]) -> None:
    """End the service as an operator would, with SIGTERM."""
    process.send_signal(signal.SIGTERM)
    try:
        code = process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        raise Failed(f"the service did not stop within {STOP_SECONDS:.0f} s of SIGTERM") from None
    if code != 0:
        raise Failed(f"the service stopped with exit code {code} after SIGTERM")


def judge(statuses: list[int], rows: list[dict[str, str]], audit: Path) -> None:
    """Nothing when all was as promised; raises what was not."""
    if statuses != EXPECTED:
        raise Failed(f"expected the statuses {EXPECTED}, saw {statuses}")
    if len(rows) != len(REQUESTS):
        raise Failed(f"expected {len(REQUESTS)} decisions in {shown(audit)}, saw {len(rows)}")
    outcomes = [row["outcome"] for row in rows]
    expected = ["APPROVED" if status == 200 else "DENIED" for status in EXPECTED]
    if outcomes != expected:
        raise Failed(f"the audit record says {outcomes}, and the answers were {statuses}")


def demonstrate(run_dir: Path, log: Path) -> None:
    """The whole of it, from the start of the service to its end."""
    kiki = Path(sys.executable).parent / "kiki"
    if not kiki.exists():
        raise Failed(f"there is no {kiki}: run `make quickstart`, which installs it")
    data_dir = run_dir / "data"
    audit = data_dir / "shield_audit_gdpr.csv"
    port = PORT_WANTED
    if is_taken(port):
        port = free_port()
        say(f"Port {PORT_WANTED} is taken by another program, so this run uses {port}.")
    with closed_port() as redis_port:
        command = [str(kiki), "serve", "shield"]
        env = environment(data_dir, port, redis_port)
        say(bold("1. Start SyncShield") + dim("  a budget of 500 in any 60 seconds, the default"))
        say(f"  PORT={port} REDIS_ADDR={env['REDIS_ADDR']} KIKI_DATA_DIR={shown(data_dir)} kiki serve shield")
        with service(command, env, run_dir, log) as process:
            waited = wait_until_ready(process, port)
            say(dim(f"  ready after {waited:.1f} s; no Redis here on purpose, so it keeps its window in this process"))
            say()
            say(bold("2. Test budget enforcement"))
            statuses = ask_all(port)
            say()
            say(bold("3. The audit record of all seven"))
            rows = wait_for_audit(audit)
            show_audit(rows)
            say(f"  in  {shown(audit)}")
            reader = f"KIKI_DATA_DIR={shlex.quote(shown(data_dir))} {shlex.quote(shown(kiki))} audit export"
            say(f"  or  {reader}")
            judge(statuses, rows, audit)
            stop(process)
    say()
    say(painted("Five spends admitted, the sixth refused, the check refused, all seven on record.", "32;1"))
    say(dim(f"  the service is stopped; its log: {shown(log)}"))


def ended(signum: int, frame: object) -> NoReturn:
    """SIGTERM and SIGHUP leave through the same door as Ctrl-C, past every `finally`."""
    raise KeyboardInterrupt


def main() -> int:
    """0 when everything was seen, 1 when not, 130 when interrupted."""
    signal.signal(signal.SIGTERM, ended)
    signal.signal(signal.SIGHUP, ended)
    RUNS.mkdir(exist_ok=True)
    run_dir = Path(tempfile.mkdtemp(prefix=time.strftime("%Y%m%d-%H%M%S-"), dir=RUNS))
    log = run_dir / "service.log"
    try:
        demonstrate(run_dir, log)
    except Failed as failure:
        say()
        say(painted(f"The quickstart failed: {failure}", "31;1"))
        if log.exists():
            say(f"The service's log, {shown(log)}:")
            lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
            for line in lines[-60:] or ["(empty)"]:
                say(f"  | {line}")
        return 1
    except KeyboardInterrupt:
        say("interrupted; the service is stopped")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""SyncValue for tests: a small shop's log and model, the service in this process, and the service as a process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cache
from pathlib import Path

import grpc
import numpy as np

import kiki
from kiki.settings import ValueSettings
from kiki.value.fitted_model import FittedModel
from kiki.value.order_log import read_orders
from kiki.value.purchases import Purchases, summarise
from kiki.value.served_model import ServedModel
from kiki.value.service import ValueService
from kiki.value.training import fit
from kiki.web import listening, parse_tokens

FIRST_DAY = date(2025, 1, 1)
LAST_DAY = date(2025, 12, 31)
TOKENS = """
tokens:
  - {name: reader, token: reader-0123456789abcdef, roles: [read]}
  - {name: spender, token: spender-0123456789abcdef, roles: [spend]}
"""
ROOT = Path(kiki.__file__).resolve().parents[1]
# Nothing waits so long unless something is wrong: a busy machine may be ten times slower than an idle one.
START_SECONDS = END_SECONDS = 120.0


@cache
def log_text(customers: int = 300, seed: int = 1) -> str:
    """A year of orders: everybody buys at a rate of his own until he stops."""
    chance = np.random.default_rng(seed)
    lines = ["customer_id,date,amount"]
    for number in range(customers):
        rate, mean = chance.gamma(0.8, 1 / 30), chance.gamma(6, 6)
        day = float(chance.integers(0, 250))
        last = min(day + chance.exponential(200), 364)
        while day <= last:
            lines.append(f"c{number},{FIRST_DAY + timedelta(days=int(day))},{chance.gamma(4, mean / 4):.2f}")
            day += chance.exponential(1 / rate)
    lines.append(f"late,{LAST_DAY},20.00")
    return "\n".join(lines) + "\n"


def write_log(directory: Path, *, customers: int = 300, seed: int = 1) -> Path:
    path = directory / f"orders-{seed}.csv"
    path.write_text(log_text(customers, seed))
    return path


@cache
def _fitted(name: str, seed: int, discount_rate: float | None) -> tuple[FittedModel, Purchases]:
    from io import StringIO

    import pandas as pd

    frame = pd.read_csv(StringIO(log_text(seed=seed)))
    model = fit(frame, model=name, horizon=26, discount_rate=discount_rate)
    return model, summarise(read_orders(frame), None, model.unit)


def fitted(name: str = "mbg-nbd", *, seed: int = 1, discount_rate: float | None = None) -> FittedModel:
    return _fitted(name, seed, discount_rate)[0]


def purchases() -> Purchases:
    return _fitted("mbg-nbd", 1, None)[1]


def served_model(**options) -> ServedModel:
    discount_rate = options.pop("discount_rate", None)
    return ServedModel(fitted(discount_rate=discount_rate), purchases(), **options)


@dataclass
class Running:
    service: ValueService
    channel: grpc.aio.Channel
    url: str

    async def ask(self, path: str, request, reply, *, timeout: float = END_SECONDS, token: str | None = None):
        """One call by its path; a request that is bytes goes as it is."""
        metadata = None if token is None else (("authorization", f"Bearer {token}"),)
        data = request if isinstance(request, bytes) else request.SerializeToString()
        answer = self.channel.unary_unary(path)(data, timeout=timeout, metadata=metadata)
        return reply.FromString(await answer)

    async def refused(self, path: str, request, **options) -> tuple[grpc.StatusCode, str]:
        """Code and words of a call that must fail."""
        try:
            await self.ask(path, request, type("Any", (), {"FromString": bytes}), **options)
        except grpc.aio.AioRpcError as error:
            return error.code(), error.details()
        raise AssertionError("the call was answered")


@asynccontextmanager
async def running(directory: Path, *, tokens: str | None = None, **environ: str) -> AsyncIterator[Running]:
    """The service on free ports in this process, with the small shop's model and customers."""
    model = directory / "model.json"
    if not model.exists():
        fitted().save(model)
    base = {
        "KIKI_VALUE_PORT": "0",
        "KIKI_VALUE_HTTP_PORT": "0",
        "KIKI_VALUE_MODEL": str(model),
        "KIKI_VALUE_CUSTOMERS": str(write_log(directory)),
        "KIKI_VALUE_RELOAD_SECONDS": "0.05",
        "KIKI_DRAIN_SECONDS": "2",
    }
    settings = ValueSettings.parse({name: text for name, text in (base | environ).items() if text})
    found = None if tokens is None else parse_tokens(tokens, "tokens.yaml")
    service = ValueService(settings, found)
    async with listening(service.service(), settings.listen, found) as http:
        channel = grpc.aio.insecure_channel(f"127.0.0.1:{service.port}")
        try:
            yield Running(service, channel, http.url)
        finally:
            await channel.close()


class Process:
    """`kiki serve value` as a process of its own."""

    def __init__(self, directory: Path, **environ: str) -> None:
        self.directory = directory
        self.log_path = directory / "log"
        self.environ = {
            "PYTHONPATH": str(ROOT),
            "KIKI_VALUE_PORT": "0",
            "KIKI_VALUE_HTTP_PORT": "0",
            "KIKI_VALUE_MODEL": str(directory / "model.json"),
            "KIKI_VALUE_RELOAD_SECONDS": "0.1",
        } | environ
        self.process: subprocess.Popen[bytes] | None = None
        self.port = self.http_port = 0

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def lines(self) -> list[dict]:
        """The log as JSON; a line that is none fails the test, unless it is the last one and still being written."""
        *whole, torn = self.log_path.read_text().split("\n")
        return [json.loads(line) for line in [*whole, *([torn] if torn and self.process.poll() is not None else [])]]

    def launch(self) -> None:
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "kiki", "serve", "value"],
                cwd=self.directory,
                env=os.environ | self.environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def start(self, *, port: int = 0) -> None:
        """Start it and return when it listens; `port` as it had before."""
        self.environ["KIKI_VALUE_PORT"] = str(port)
        self.launch()
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            said = {line["event"]: line for line in self.lines()}
            if "listening" in said:
                self.port, self.http_port = said["listening for gRPC"]["port"], said["listening"]["port"]
                return
            time.sleep(0.02)
        raise AssertionError(f"the service did not start:\n{self.log_path.read_text()}")

    def until(self, event: str, count: int = 1, seconds: float = END_SECONDS) -> dict:
        """Wait for the event to be logged so many times; its last line."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            found = [line for line in self.lines() if line["event"] == event]
            if len(found) >= count:
                return found[-1]
            time.sleep(0.02)
        raise AssertionError(f"{event!r} was not logged:\n{self.log_path.read_text()}")

    def wait(self, seconds: float = END_SECONDS) -> int:
        return self.process.wait(seconds)

    def close(self) -> None:
        """End it whatever it does."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()


@contextmanager
def process_in(directory: Path, *, customers: bool = True, **environ: str) -> Iterator[Process]:
    """A started service, ended with the block."""
    if not (directory / "model.json").exists():
        fitted().save(directory / "model.json")
    if customers:
        environ = {"KIKI_VALUE_CUSTOMERS": str(write_log(directory))} | environ
    process = Process(directory, **environ)
    try:
        process.start()
        yield process
    finally:
        process.close()

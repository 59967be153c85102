"""Replicas without names of their own: each leases a chain, and whoever comes next goes on with what a gone one left."""

from __future__ import annotations

import base64
import time
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path

import psycopg
import pytest

from kiki.ledger.chain_lease import free_chain
from kiki.ledger.postgres import SCHEMA, PostgresStore, lock_key
from kiki.ledger.source import first_name
from tests.acceptance.serving import END_SECONDS, Shield, shield_in

KEY = base64.b64encode(bytes(range(32))).decode()


@pytest.fixture
def environ(postgres: str) -> dict[str, str]:
    return {
        "DATABASE_URL": postgres,
        "KIKI_MASTER_KEY": KEY,
        "KIKI_REDIS": "off",
        "KIKI_REPLICA": "syncshield-*",
    }


def names(url: str) -> list[str]:
    with psycopg.connect(url) as connection:
        return [name for (name,) in connection.execute("SELECT name FROM kiki.chain ORDER BY name")]


def until_in_view(shield: Shield, text: str) -> None:
    end = time.monotonic() + END_SECONDS
    view = shield.data / "shield_audit_gdpr.csv"
    while not (view.exists() and text in view.read_text()):
        assert time.monotonic() < end
        time.sleep(0.1)


def test_a_new_pod_goes_on_with_the_chain_of_one_that_went(tmp_path: Path, environ, postgres: str):
    """Else a chain's last entries would be archived by nobody, and kept for ever."""
    with shield_in(tmp_path / "a", **environ) as first, shield_in(tmp_path / "b", **environ) as second:
        assert first.status("/spend?amount=11") == 200
        assert second.status("/spend?amount=12") == 200
        first.close()
        with shield_in(tmp_path / "c", **environ) as third:
            assert names(postgres) == ["syncshield-0", "syncshield-1"]
            until_in_view(third, "amount=11.00")
            assert third.status("/spend?amount=13") == 200
            until_in_view(third, "amount=13.00")


def test_whose_chain_was_taken_while_the_database_was_away_ends_to_be_started_again(tmp_path: Path, environ, postgres):
    with shield_in(tmp_path / "a", **environ) as shield, psycopg.connect(postgres, autocommit=True) as other:
        key = lock_key(SCHEMA, "chain/syncshield-0")
        end = time.monotonic() + END_SECONDS
        while not other.execute("SELECT pg_try_advisory_lock(%s)", [key]).fetchone()[0]:
            assert time.monotonic() < end
            other.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE usename = current_user AND datname = current_database() AND pid <> pg_backend_pid()"
            )
        while shield.log().count("another process owns our chain") == 0:
            assert time.monotonic() < end, shield.log()
            with suppress(OSError, HTTPException):  # it may have ended since we looked
                shield.status("/spend?amount=1")
        assert shield.wait() == 0
        with shield_in(tmp_path / "b", **environ) as again:
            assert again.status("/spend?amount=1") == 200
            assert names(postgres) == ["syncshield-0", "syncshield-1"]


def test_the_first_free_number_is_offered(postgres: str):
    assert free_chain(postgres, "pod-*") == ("pod-0", 0)
    first = PostgresStore(postgres, "pod-0")
    second = PostgresStore(postgres, "pod-1")
    try:
        assert free_chain(postgres, "pod-*") == ("pod-2", 2)
        first.close()
        assert free_chain(postgres, "pod-*") == ("pod-0", 0)
        assert free_chain(postgres, "pod-*", 1) == ("pod-2", 2)
    finally:
        first.close()
        second.close()


def test_a_command_that_wants_one_chain_takes_the_first():
    assert (first_name("pod-*"), first_name("pod-7")) == ("pod-0", "pod-7")

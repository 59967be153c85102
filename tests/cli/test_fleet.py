"""The ports of `kiki up` where it may take any."""

from __future__ import annotations

from pathlib import Path

from kiki.cli import fleet

ANY = dict.fromkeys(fleet.Ports(1, 2, 3, 4, 5, 6).all(), "0")


def test_a_port_that_is_taken_for_a_service_is_none_that_an_outgoing_connection_is_given_meanwhile():
    outgoing = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    for _ in range(20):
        assert all(1024 < port < outgoing for port in fleet.Ports.read(ANY).all().values())


def test_where_the_system_says_nothing_it_is_below_what_all_systems_use(monkeypatch, tmp_path):
    for said in ("", "x y", "1024\t65000"):
        (tmp_path / "range").write_text(said)
        monkeypatch.setattr(fleet, "_OUTGOING", tmp_path / "range")
        assert all(1024 < port < 32_768 for port in fleet.Ports.read(ANY).all().values())
    monkeypatch.setattr(fleet, "_OUTGOING", tmp_path / "none")
    assert all(1024 < port < 32_768 for port in fleet.Ports.read(ANY).all().values())

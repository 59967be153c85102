"""What `kiki doctor` says about SyncEngage's part in requests of persons."""

from __future__ import annotations

import pytest

from kiki.cli.doctor_engage import engage


@pytest.mark.parametrize(("secret", "state"), [(None, "warn"), ("s" * 32, "ok")])
def test_whether_an_erasure_at_the_shield_reaches_the_customers_is_said(tmp_path, secret, state):
    environ = {"KIKI_DATA_DIR": str(tmp_path), "KIKI_ENGAGE_PLAYBOOKS": str(tmp_path)}
    if secret:
        environ["KIKI_ENGAGE_PRIVACY_SECRET"] = secret
    [check] = [each for each in engage(environ) if each.name == "persons"]
    assert state == check.state


def test_who_does_not_run_it_is_told_nothing(tmp_path):
    assert [] == list(engage({"KIKI_DATA_DIR": str(tmp_path)}))

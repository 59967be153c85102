"""A guard is put together only from stores that belong together."""

import pytest

from kiki.errors import InvalidInput, LedgerCorrupt
from kiki.shield.budget_guard import BudgetGuard
from kiki.shield.consent_store import ConsentStore
from kiki.shield.opening import open_decider


def test_a_ledger_that_was_lost_does_not_begin_anew(tmp_path):
    """The key store knows which ledger it serves: without it nothing may look as if nothing had been spent."""
    path = tmp_path / "shield.db"
    open_decider(path, None).close()
    open_decider(path, None).close()
    path.rename(tmp_path / "elsewhere.db")
    for _ in range(2):
        with pytest.raises(LedgerCorrupt, match="lost, emptied or replaced"):
            open_decider(path, None)
    path.unlink()
    (tmp_path / "elsewhere.db").rename(path)
    open_decider(path, None).close()


@pytest.mark.parametrize("path", ["", ".", "/", "a\0b", "a\0b/shield.db"])
def test_a_path_that_names_no_file_is_refused_as_input(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidInput, match="names no file"):
        BudgetGuard.open(path, limit="1")
    with pytest.raises(InvalidInput, match="names no file"):
        ConsentStore.open(path)
    assert [] == list(tmp_path.iterdir())


def test_a_file_that_was_cut_off_keeps_the_log_beside_it(tmp_path):
    """SQLite would throw the log of an empty file away, and with it every entry that is not in the file yet."""
    path = tmp_path / "shield.db"
    log = tmp_path / "shield.db-wal"
    decider = open_decider(path, None)
    kept = log.read_bytes()
    decider.close()
    path.write_bytes(b"")
    log.write_bytes(kept)
    with pytest.raises(LedgerCorrupt, match="was cut off"):
        open_decider(path, None)
    assert log.read_bytes() == kept
    assert not path.stat().st_size

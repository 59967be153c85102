"""What `kiki doctor` says about SyncEngage: whether customers can be read, and providers be believed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from kiki.shield.checkup import Check

USED: Final = ("SYNCENGAGE_CRM_PROVIDER", "SENDGRID_API_KEY", "TWILIO_ACCOUNT_SID", "KIKI_ENGAGE_PLAYBOOKS")
"""Who sets none of these does not run SyncEngage here."""


def engage(environ: Mapping[str, str]) -> Iterator[Check]:
    """Its settings, whether requests of persons reach it, the access to its source of customers, and the secrets that prove webhooks."""
    if not any(environ.get(name) for name in USED):
        return
    from kiki.cli.engage_wiring import source_of, webhook_readers
    from kiki.errors import ConfigurationError, KikiError, SettingsError
    from kiki.settings import EngageSettings
    from kiki.shield.checkup import Check, State

    try:
        settings = EngageSettings.parse(environ)
    except SettingsError as error:
        for problem in error.problems:
            yield Check("engage settings", State.FAIL, problem, "kiki settings lists them all")
        return
    if settings.privacy_secret is None:
        said = "requests of persons do not reach its customers: an erasure at the shield leaves them here"
        advice = "set KIKI_ENGAGE_PRIVACY_SECRET and name engage in KIKI_SUBJECT_SYSTEMS_FILE: docs/engage.md, Persons"
        yield Check("persons", State.WARN, said, advice)
    else:
        yield Check("persons", State.OK, "requests of persons are taken, where the shield's systems file names engage")
    try:
        source = source_of(settings)
        if source is not None:
            problems = source.check()
            source.close()
            for problem in problems:
                yield Check("customers", State.FAIL, problem, "docs/engage-connectors.md says what each source needs")
            if not problems:
                yield Check("customers", State.OK, f"{source.name} can be read and written")
    except KikiError as error:
        yield Check("customers", State.FAIL, str(error), error.hint or "")
    try:
        readers = [reader.name for reader in webhook_readers(settings)]
    except ConfigurationError as error:
        yield Check("webhooks", State.FAIL, error.problems[0], "")
        return
    if readers and not settings.public_url:
        said = f"calls of {', '.join(readers)} are proven over the address that they call, and none is set"
        yield Check("webhooks", State.WARN, said, "set KIKI_ENGAGE_PUBLIC_URL to what the providers call")
    elif readers:
        yield Check("webhooks", State.OK, f"calls of {', '.join(readers)} can be proven")

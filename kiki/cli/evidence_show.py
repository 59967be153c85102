"""What `kiki audit verify` found, for people and for machines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import typer

from kiki.cli import show

if TYPE_CHECKING:
    from kiki.ledger.chain_verifier import VerifiedChain
    from kiki.shield.audit_report import AuditReport

_SHOWN: Final = 20


def verdict(chains: tuple[VerifiedChain, ...], report: AuditReport, *, as_json: bool, key: str, trusted: bool) -> None:
    """Tell it, and end with 3 unless all of it holds; `trusted` is whether `key` came from elsewhere than the evidence."""
    from kiki.clock import to_iso
    from kiki.money import format_micros

    if as_json:
        show.as_json(
            {
                **report.as_dict(),
                "trusted": trusted,
                "key": key,
                "trees": [
                    {
                        "chain": chain.chain,
                        "first": chain.first,
                        "size": chain.size,
                        "root": chain.root.hex(),
                        "signed_at": None if chain.at is None else to_iso(chain.at),
                        "checkpoints": chain.checkpoints,
                        "unsigned": chain.unsigned,
                        "witnesses": {each.name: each.size for each in chain.cosigners},
                    }
                    for chain in chains
                ],
            }
        )
    else:
        for chain in chains:
            signed = "no checkpoint" if chain.at is None else f"signed {to_iso(chain.at)}"
            witnessed = "".join(f", witness {each.name} saw {each.size}" for each in chain.cosigners) or ", no witness"
            entries = f"entries {chain.first} to {chain.last}" if chain.first <= chain.last else "no entries"
            show.line(f"chain {chain.chain}: {entries}, {chain.checkpoints} checkpoints, {signed}{witnessed}")
        show.line(
            f"{report.decisions} decisions in {report.windows} windows of budgets, {report.consents} of them resting on "
            f"consent; {report.finding_count} findings"
        )
        for found in report.findings[:_SHOWN]:
            show.line(f"  {found.kind}: {found.told()}")
        for doubt in report.doubts[:_SHOWN]:
            show.line(f"  {doubt.kind}: {doubt.told()}")
        hidden = report.finding_count + report.doubt_count - min(len(report.findings), _SHOWN)
        if hidden - min(len(report.doubts), _SHOWN) > 0:
            show.line("  … and more: --json tells them all")
        if report.recorded:
            show.line(
                f"outside of the promise: {format_micros(report.recorded_micros)} in {report.recorded} records of money "
                f"spent elsewhere, {report.recorded_over} times over a limit"
            )
        for what, count in report.not_covered.items():
            show.line(f"not covered: {count} {what}")
        if report.counted_apart:
            show.line(
                f"counted on their own: chains {', '.join(report.counted_apart)}; each had the whole of every budget"
            )
        for chain in chains:
            if chain.unsigned:
                show.line(f"not signed yet: the last {chain.unsigned} entries of chain {chain.chain}")
        show.line("holds" if report.holds else "does not hold")
        trust(key, trusted=trusted)
    if not report.holds:
        raise typer.Exit(show.EXIT_REFUSED)


def trust(key: str, *, trusted: bool) -> None:
    """Say what a check without a key from elsewhere does not prove."""
    if not trusted:
        show.talk(
            f"no key was given: this proves that the file is whole, not who made it. It says that it was signed with {key}"
        )

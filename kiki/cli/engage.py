"""`kiki engage`: customers, playbooks, and what they earned."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from kiki.cli import show
from kiki.cli.consent_ledger import LedgerPath
from kiki.cli.engage_access import EngageDir, PlaybookFile, ServiceUrl, name_alone, open_engage, read_file
from kiki.cli.engage_learn import learn
from kiki.cli.options import Json, TokenFile, Url
from kiki.errors import InvalidInput
from kiki.money import MICROS

app = typer.Typer(help="Customers, playbooks, and what they earned.", no_args_is_help=True, rich_markup_mode=None)
app.command()(learn)

Source = Annotated[
    str | None,
    typer.Option(
        "--source",
        metavar="NAME",
        help="shopify, hubspot, salesforce, postgres or csv, instead of SYNCENGAGE_CRM_PROVIDER.",
    ),
]
_LINES = 20


@app.command()
def sync(
    source: Source = None,
    customers: Annotated[
        Path | None,
        typer.Option("--customers", metavar="FILE", help="Of csv and postgres: instead of KIKI_ENGAGE_CUSTOMERS."),
    ] = None,
    orders: Annotated[
        Path | None,
        typer.Option("--orders", metavar="FILE", help="Of csv and postgres: instead of KIKI_ENGAGE_ORDERS."),
    ] = None,
    write_back: Annotated[
        Path | None,
        typer.Option(
            "--write-back",
            metavar="PLAYBOOK",
            help="Then write its segments, value and churn into fields of the source (kiki_segments, …), where they changed.",
        ),
    ] = None,
    tag: Annotated[
        Path | None,
        typer.Option(
            "--tag",
            metavar="PLAYBOOK",
            help="Then tag people at the source by its segments (kiki-NAME): added once, never taken away.",
        ),
    ] = None,
    data_dir: EngageDir = None,
    service: ServiceUrl = None,
    url: Url = None,
    token_file: TokenFile = None,
    ledger: LedgerPath = None,
    as_json: Json = False,
) -> None:
    """Take in customers and orders that are new at their source.

    It may be killed anywhere: the next time it goes on after the last page that was kept.
    """
    options = (("KIKI_ENGAGE_CUSTOMERS", customers), ("KIKI_ENGAGE_ORDERS", orders))
    given = {name: str(path) for name, path in options if path is not None}
    with open_engage(data_dir, service, url=url, token_file=token_file, ledger=ledger, given=given) as engage:
        found = engage.sync(source)
        if write_back is not None:
            found["written_back"] = engage.write_back(source, write_back)
        if tag is not None:
            found["tagged"] = engage.add_tags(source, tag)
    for problem in found["problems"]:
        show.talk(f"left out: {problem}")
    if as_json:
        show.as_json(found)
        return
    show.line(
        f"{found['source']}: {found['profiles']} customers and {found['events']} events on {found['pages']} pages, "
        f"{found['repeated']} known already, {found['erased']} of people who were erased, {found['gone']} gone"
    )
    for name, what in (("written_back", "written back"), ("tagged", "tagged")):
        if name in found:
            show.line(f"{what}: {', '.join(f'{count} {fate}' for fate, count in found[name].items())}")


@app.command()
def check(
    playbook: Annotated[Path | None, typer.Argument(metavar="PLAYBOOK", help="The playbook, a YAML file.")] = None,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON Schema of playbooks, for editors.")] = False,
    as_json: Json = False,
) -> None:
    """Read a playbook and tell every mistake in it with its line. Exit code 1 when there is one."""
    if schema:
        from kiki.engage.playbook_schema import playbook_schema

        show.as_json(playbook_schema())
        return
    if playbook is None:
        raise InvalidInput("name a playbook, or ask for --schema")
    found = read_file(playbook)
    told = {
        "playbook": found.name,
        "version": found.version,
        "journeys": len(found.journeys),
        "offers": len(found.offers),
        "holdout": found.holdout / 1_000_000,
    }
    if as_json:
        show.as_json(told)
    else:
        show.line(f"{found.name} ({found.version}): {told['journeys']} journeys, {told['offers']} offers; no mistake")


@app.command()
def plan(
    playbook: PlaybookFile,
    lines: Annotated[int, typer.Option("--lines", min=0, metavar="N", help="How many people to show.")] = _LINES,
    data_dir: EngageDir = None,
    service: ServiceUrl = None,
    url: Url = None,
    token_file: TokenFile = None,
    ledger: LedgerPath = None,
    as_json: Json = False,
) -> None:
    """Show who would get what now, and why the others would not. Nothing is written, nobody is written to."""
    with open_engage(data_dir, service, url=url, token_file=token_file, ledger=ledger) as engage:
        found = engage.plan(playbook)
    if as_json:
        show.as_json(found)
        return
    show.line(f"{found['playbook']} ({found['version']}): {found['customers']} customers")
    for verdict, count in sorted(found["verdicts"].items(), key=lambda one: -one[1]):
        show.line(f"  {count:>8}  {verdict}")
    if found["fallbacks"]:
        show.talk(f"{found['fallbacks']} values are the formula spend x 1.2 + score x 10: SyncValue did not tell them")
    if found["room"] is not None:
        show.line(f"the budget has {_money(found['room'])} left")
    for line in found["lines"][:lines]:
        step = f"{line['journey']}/{line['step']}".rstrip("/")
        what = line["verdict"]
        if line["offer"]:
            # A millionth is how the first offer named is put before the others where nothing is known of any.
            adds = f", expected to add {line['gain'] / MICROS:.2f}" if line["gain"] > 1 else ""
            what = f"{line['offer']} by {line['channel']}, costs {_money(line['cost'])}{adds}"
        show.line(f"{line['customer']}  {step}  {what}")
    if len(found["lines"]) > lines:
        show.talk(f"... and {len(found['lines']) - lines} more; --json prints all", dim=True)


@app.command()
def run(
    playbook: PlaybookFile,
    data_dir: EngageDir = None,
    service: ServiceUrl = None,
    url: Url = None,
    token_file: TokenFile = None,
    ledger: LedgerPath = None,
    as_json: Json = False,
) -> None:
    """Do what is to be done now: let people in, decide, send. It may be killed anywhere and run again: nobody gets it twice."""
    with open_engage(data_dir, service, url=url, token_file=token_file, ledger=ledger) as engage:
        found = engage.run(playbook)
    if as_json:
        show.as_json(found)
        return
    show.line(f"{found['playbook']}: {found['entered']} entered, {found['held_out']} of them held out")
    for what in ("verdicts", "messages"):
        told = ", ".join(f"{count} {name}" for name, count in sorted(found[what].items()))
        show.line(f"{what}: {told or 'none'}")


@app.command()
def explain(
    customer: Annotated[str, typer.Argument(metavar="CUSTOMER", help="The customer's id.")],
    playbook: Annotated[
        list[Path] | None, typer.Option("--playbook", metavar="FILE", help="Tell its gates, too. Repeatable.")
    ] = None,
    data_dir: EngageDir = None,
    service: ServiceUrl = None,
    url: Url = None,
    token_file: TokenFile = None,
    ledger: LedgerPath = None,
    as_json: Json = False,
) -> None:
    """Tell why a customer gets what they get: consent, gates, journeys, and every message."""
    with open_engage(data_dir, service, url=url, token_file=token_file, ledger=ledger) as engage:
        found = engage.explain(customer, playbook or [])
    if as_json:
        show.as_json(found)
        return
    show.line(found["customer_id"])
    for each in found["playbooks"]:
        show.line(
            f"  {each['playbook']}: in {', '.join(each['segments']) or 'no segment'}; consent {_yes(each['consent'])}"
        )
        show.line(f"    held out: {_yes(each['held_out'])}")
        for channel, gate in each["stopped_by"].items():
            show.line(f"    {channel}: {'open' if gate is None else f'stopped, {gate}'}")
    for each in found["verdicts"]:
        show.line(f"  {each['since']}  {each['playbook']}: {each['verdict'].rstrip('/')}")
    for each in found["journeys"]:
        show.line(f"  {each['entered_at']}  {each['playbook']}/{each['journey']}: {each['state']}")
    for each in found["messages"]:
        reason = f" ({each['reason']})" if each["reason"] else ""
        show.line(
            f"  {each['decided_at']}  {each['step']}: {each['offer']} by {each['channel']}, {each['state']}{reason}"
        )


@app.command()
def report(
    playbook: PlaybookFile,
    export: Annotated[
        Path | None,
        typer.Option(
            "--export",
            metavar="FILE",
            help="Write every assignment with its outcome too, as CSV or Parquet; names nobody.",
        ),
    ] = None,
    together: Annotated[
        bool, typer.Option("--together", help="All playbooks together, beyond the people whom none of them reaches.")
    ] = False,
    data_dir: EngageDir = None,
    service: ServiceUrl = None,
    url: Url = None,
    token_file: TokenFile = None,
    ledger: LedgerPath = None,
    as_json: Json = False,
) -> None:
    """Tell what a playbook earned beyond its control group. The interval holds however often you look."""
    if export is not None and export.suffix.lower() not in {".csv", ".parquet"}:
        raise InvalidInput(f"--export writes .csv or .parquet, and {export.name[:60]!r} ends with neither")
    with open_engage(data_dir, service, url=url, token_file=token_file, ledger=ledger) as engage:
        found = engage.report(playbook, together=together)
        if export is not None:
            show.talk(f"{engage.export(playbook, export)} assignments in {export}")
    if as_json:
        show.as_json(found)
        return
    show.line(f"{found['playbook']} ({found['version']}), {found['at']}")
    for each in found["journeys"]:
        _journey(each, found["currency"])


def _journey(each: dict[str, Any], currency: str) -> None:
    show.line(
        f"{each['journey']}: {each['assigned']} people, {each['held_out']} held out; {each['open_windows']} windows of "
        f"{each['goal_days']:g} days are open"
    )
    effect = each["effect"]
    if effect is None:
        show.line("  too little is known yet: no interval")
    else:
        shown = "" if effect["is_shown"] else "; not shown: zero is possible"
        show.line(
            f"  margin a person: {each['treated_mean']:.2f} {currency} with messages, after their cost; "
            f"{each['held_out_mean']:.2f} held out"
        )
        show.line(
            f"  earned by them: {effect['per_person']:+.2f} {currency} a person, between {effect['low']:+.2f} and "
            f"{effect['high']:+.2f} (95 %, however often you look){shown}"
        )
        if effect["total"] is not None:
            show.line(f"  {effect['total']:+.2f} {currency} in all")
    if each["balance_p"] < 0.001:
        show.line("  THE SIDES ARE NOT AS LARGE AS THEY WERE DRAWN: something loses people, no result counts")
    if each["offers"]:
        offers = ", ".join(f"{count} {offer}" for offer, count in sorted(each["offers"].items()))
        show.line(f"  offers: {offers}")
    told = ", ".join(f"{count} {state}" for state, count in sorted(each["messages"].items()))
    show.line(f"  messages: {told or 'none'}; to the control group: {each['violations']}")


@app.command()
def power(
    rate: Annotated[
        float, typer.Option("--rate", min=0.000001, max=1, metavar="SHARE", help="How many of the held out buy: 0.05.")
    ],
    mean: Annotated[float, typer.Option("--mean", min=0.000001, metavar="MONEY", help="The mean margin of who buys.")],
    deviation: Annotated[float, typer.Option("--deviation", min=0, metavar="MONEY", help="Its standard deviation.")],
    effect: Annotated[float, typer.Option("--effect", metavar="MONEY", help="Margin a person that is to be shown.")],
    holdout: Annotated[float, typer.Option("--holdout", min=0.001, max=0.9, metavar="SHARE", help="Held out.")] = 0.1,
    wanted: Annotated[
        float, typer.Option("--power", min=0.05, max=0.999, metavar="SHARE", help="With what chance.")
    ] = 0.8,
    a_day: Annotated[
        float | None, typer.Option("--a-day", min=0.001, metavar="N", help="How many people enter a day.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Tell before a test how many people it takes to show an effect, looking every day or once."""
    from kiki.engage.power import money_deviation
    from kiki.engage.power import power as needed

    spread = money_deviation(rate, mean, deviation)
    found = needed(effect, spread, held_out_share=holdout, power=wanted, a_day=a_day)
    if as_json:
        show.as_json(found._asdict())
        return
    show.line(f"{found.always} people, {found.held_out} of them held out, looking as often as you like")
    show.line(f"{found.fixed} people when you look once, at the end")
    if found.days is not None:
        show.line(f"{found.days} days")


@app.command()
def preview(
    playbook: PlaybookFile,
    offer: Annotated[str, typer.Argument(metavar="OFFER", help="An offer of the playbook.")],
    customer: Annotated[
        str | None, typer.Option("--customer", metavar="ID", help="For this customer; else for somebody made up.")
    ] = None,
    data_dir: EngageDir = None,
    service: ServiceUrl = None,
    as_json: Json = False,
) -> None:
    """Show what a person would read. Exit code 2 when the template needs what is not known of them."""
    from kiki.engage.message_maker import MessageMaker
    from kiki.engage.preview import preview as shown

    if customer is None and name_alone(playbook) is None:
        found = shown(MessageMaker(read_file(playbook)), offer)
    else:
        with open_engage(data_dir, service) as engage:
            found = engage.preview(playbook, offer, customer)
    if as_json:
        show.as_json(found)
        return
    if found["subject"]:
        show.line(f"Subject: {found['subject']}\n")
    show.line(found["text"])
    if found["html"]:
        show.talk("there is an HTML part: --json prints it", dim=True)


def _money(micros: int) -> str:
    from kiki.money import format_micros

    return format_micros(micros)


def _yes(value: bool) -> str:
    return "yes" if value else "no"

"""`python -m tests.engage.crm.reading_process KIND URL DATABASE MOST`: reads a source to its end, page by page.

Records and cursor are kept in one transaction, as every keeper of a source's pages has to do it. A record that comes
twice is counted twice, so that nobody who looks at the database later is spared it. After `MOST` records it goes on no more and waits to be killed; 0: it comes to its end.
"""

from __future__ import annotations

import sqlite3
import sys
import threading

from kiki.engage.crm.hubspot import HubSpotSource
from kiki.engage.crm.salesforce import SalesforceSource
from kiki.engage.crm.shopify import ShopifySource
from kiki.engage.source import Source
from kiki.outbound.oauth import FixedToken
from kiki.settings import Secret
from tests.engage.fakes import hubspot, salesforce, shopify


def opened(kind: str, url: str) -> Source:
    if kind == "hubspot":
        return HubSpotSource(Secret(hubspot.TOKEN), base_url=url, per_minute=1_000_000)
    if kind == "salesforce":
        return SalesforceSource(url, FixedToken(Secret(salesforce.TOKEN)), bulk=False)
    if kind == "salesforce-bulk":
        return SalesforceSource(url, FixedToken(Secret(salesforce.TOKEN)))
    return ShopifySource("tea", Secret(shopify.TOKEN), base_url=url, bulk=kind == "shopify-bulk")


def main(kind: str, url: str, path: str, most: str) -> None:
    kept, count = sqlite3.connect(path, isolation_level=None, timeout=60), 0
    kept.execute("CREATE TABLE IF NOT EXISTS cursors (one INTEGER PRIMARY KEY, cursor TEXT)")
    kept.execute("CREATE TABLE IF NOT EXISTS records (customer TEXT)")
    row = kept.execute("SELECT cursor FROM cursors").fetchone()
    for page in opened(kind, url).changes(row[0] if row else ""):
        kept.execute("BEGIN IMMEDIATE")
        kept.executemany("INSERT INTO records VALUES (?)", [(record.customer,) for record in page.records])
        kept.execute(
            "INSERT INTO cursors VALUES (1, ?) ON CONFLICT (one) DO UPDATE SET cursor = excluded.cursor", [page.cursor]
        )
        kept.execute("COMMIT")
        count += len(page.records)
        if 0 < int(most) <= count:
            threading.Event().wait()


if __name__ == "__main__":
    main(*sys.argv[1:])

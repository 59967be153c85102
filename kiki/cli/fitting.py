"""A table that is readable in a narrow window: where its columns do not fit, each row is a list of its cells."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from rich.console import Console, ConsoleOptions, RenderableType
from rich.measure import Measurement
from rich.table import Column, Table
from rich.text import Text

_ENDLESS: Final = 10_000
_FOLDED: Final = 12
"""So wide a name must at least be, in pieces, to be read."""


class FittingTable:
    """Nothing of a name or an amount is ever cut off."""

    def __init__(self, table: Table) -> None:
        self.table = table

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        _, right, _, left = self.table.padding
        columns = self.table.columns
        needed = sum(_width(column, console, options) for column in columns) + (left + right) * (len(columns) - 1)
        if needed <= options.max_width:
            yield self.table
            return
        for number, cells in enumerate(zip(*(column.cells for column in columns), strict=True)):
            if number:
                yield Text()
            row = Table.grid(padding=(0, 1))
            row.add_column(no_wrap=True, style="dim")
            row.add_column(overflow="fold")
            for column, cell in zip(columns, cells, strict=True):
                row.add_row(column.header, cell)
            yield row


def _width(column: Column, console: Console, options: ConsoleOptions) -> int:
    """How wide a column must be so that nothing is cut off; one that wraps may be narrower, and one that folds is never wide."""
    endless = options.update(max_width=_ENDLESS)
    found = [Measurement.get(console, endless, each) for each in (column.header, *column.cells)]
    width = max(each.maximum if column.no_wrap else each.minimum for each in found)
    return max(column.min_width or 0, min(width, _FOLDED) if column.overflow == "fold" else width)

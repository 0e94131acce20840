"""What a student hands in: headings, sentences and tables, printed as they come and kept as data."""

from collections.abc import Mapping, Sequence
from typing import Any

from serf_haproxy.lab import screen


class Paper:
    """The results of one task.

    Attributes:
        tables: The rows of each table by its name, each row a mapping by column.
    """

    def __init__(self, is_quiet: bool) -> None:
        self.tables: dict[str, list[dict[str, Any]]] = {}
        self.text: list[str] = []
        self._is_quiet = is_quiet

    def head(self, title: str) -> None:
        """Begin a part."""
        self._add("", screen.bold(f"━━ {title}"))

    def say(self, *lines: str) -> None:
        """Add sentences, or other lines."""
        self._add(*(f"  {line}" for line in lines))

    def add_table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Add a table; its columns are the keys of the first row."""
        self.tables[name] = [dict(row) for row in rows]
        columns = list(rows[0])
        lines = [columns, *([str(row[column]) for column in columns] for row in rows)]
        widths = [max(len(line[index]) for line in lines) for index in range(len(columns))]
        self._add(
            "",
            *(
                "  " + "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
                for line in lines
            ),
            "",
        )

    def _add(self, *lines: str) -> None:
        self.text += lines
        if not self._is_quiet:
            screen.say(*lines)

"""The result of reproducing a paper's table: its rows, its numbers, and the table as text."""

import csv
import dataclasses
import io
import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any

from ncsn_tf import files


@dataclasses.dataclass(frozen=True)
class Table:
    """A reproduced table.

    Attributes:
      numbers: the measurements, JSON-able: numbers, strings, None, lists and dicts of these.
      rows: one dictionary of plain values per cell or row, all with the same keys.
      text: the table and what is read from it, in Markdown.
      caption: one or two sentences that describe the table.
    """

    numbers: dict[str, Any]
    rows: list[dict[str, Any]]
    text: str
    caption: str

    def save(self, directory: str | os.PathLike, name: str) -> tuple[pathlib.Path, pathlib.Path]:
        """Writes NAME.md, NAME.json and NAME.csv into a directory, created if necessary; returns the first two paths.

        Raises:
          ValueError: if a number is not finite or not a plain value, which JSON cannot hold.
        """
        directory = files.local_path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        content = {"caption": self.caption, **self.numbers}
        numbers = json.dumps(content, indent=2, allow_nan=False) + "\n"
        text = io.StringIO()
        writer = csv.DictWriter(text, list(self.rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        paths = [directory / f"{name}.{ending}" for ending in ("md", "json", "csv")]
        for path, content in zip(paths, (f"{self.caption}\n\n{self.text}\n", numbers, text.getvalue()), strict=True):
            files.write_text(path, content)
        return paths[0], paths[1]


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown; the first column is aligned to the left, the others to the right."""
    rule = ["---", *["---:"] * (len(header) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in (header, rule, *rows))

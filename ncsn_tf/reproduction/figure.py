"""The result of reproducing a paper's figure: a picture, and the numbers that it shows."""

import dataclasses
import json
import os
import pathlib
from typing import Any

from ncsn_tf import files, pictures


@dataclasses.dataclass(frozen=True)
class Figure:
    """A reproduced figure.

    Attributes:
      numbers: the measurements, JSON-able: numbers, strings, lists and dicts of these.
      picture: the drawing.
      caption: one or two sentences that describe the picture.
    """

    numbers: dict[str, Any]
    picture: "pictures.Figure"
    caption: str

    def save(self, directory: str | os.PathLike, name: str) -> tuple[pathlib.Path, pathlib.Path]:
        """Writes NAME.png and NAME.json into a directory, which is created if necessary; returns both paths.

        Raises:
          ValueError: if a number is not finite or not a plain value, which JSON cannot hold.
        """
        directory = files.local_path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        picture, numbers = directory / f"{name}.png", directory / f"{name}.json"
        text = json.dumps({"caption": self.caption, **self.numbers}, indent=2, allow_nan=False) + "\n"
        pictures.save_figure(picture, self.picture)
        files.write_text(numbers, text)
        return picture, numbers

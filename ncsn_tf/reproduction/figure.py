"""What reproducing a figure of a paper gives: a picture, and the numbers that it stands for."""

import dataclasses
import json
import pathlib
from typing import Any

from matplotlib.figure import Figure as Picture

from ncsn_tf import files


@dataclasses.dataclass(frozen=True)
class Figure:
    """A reproduced figure.

    Attributes:
      numbers: what was measured, JSON-able: numbers, strings, lists and dicts of these.
      picture: the drawing.
      caption: one or two sentences that say what is to be seen.
    """

    numbers: dict[str, Any]
    picture: Picture
    caption: str

    def save(self, directory: pathlib.Path, name: str) -> tuple[pathlib.Path, pathlib.Path]:
        """Writes NAME.png and NAME.json into a directory, which is made if need be; returns both paths.

        Raises:
          ValueError: if a number is not finite or not a plain value, which JSON cannot hold.
        """
        directory.mkdir(parents=True, exist_ok=True)
        picture, numbers = directory / f"{name}.png", directory / f"{name}.json"
        text = json.dumps({"caption": self.caption, **self.numbers}, indent=2, allow_nan=False) + "\n"
        self.picture.savefig(picture, dpi=120, bbox_inches="tight", format="png")
        files.write_text(numbers, text)
        return picture, numbers

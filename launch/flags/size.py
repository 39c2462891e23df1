"""A flag whose value is a size of images: one side, or height and width."""

import re

from absl import flags

flags.disclaim_key_flags()  # a flag belongs to the module that calls `define`

_SIZE = re.compile(r"[(\[]?\s*(\d+)\s*(?:[,x]\s*(\d+)\s*)?[)\]]?")


def define(name: str, help_text: str, *, required: bool = False) -> flags.FlagHolder:
    """Defines a flag that takes "SIDE" or "HEIGHT,WIDTH", in pixels; its value is as `parse` returns it, or None."""
    return flags.DEFINE(
        _Parser(),
        name,
        None,
        f"{help_text} SIDE, or HEIGHT,WIDTH, in pixels.",
        serializer=flags.ArgumentSerializer(),
        required=required,
    )


def parse(text: str) -> int | tuple[int, int]:
    """Returns one side, or (height, width); raises ValueError for anything but one or two positive numbers."""
    found = _SIZE.fullmatch(text.strip())
    sides = [int(side) for side in found.groups() if side] if found else []
    if not sides or min(sides) < 1:
        raise ValueError(f"expected one side or HEIGHT,WIDTH, in pixels, such as 32 or 24,32; received {text!r}")
    return sides[0] if len(sides) == 1 else (sides[0], sides[1])


class _Parser(flags.ArgumentParser):
    syntactic_help = "a side, or height and width"

    def parse(self, argument: str) -> int | tuple[int, int]:
        return parse(argument)

    def flag_type(self) -> str:
        return "size"

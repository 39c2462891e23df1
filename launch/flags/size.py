"""A flag whose value is a size of images: one side, or height and width."""

from absl import flags

from ncsn_tf.config import values

flags.disclaim_key_flags()  # a flag belongs to the module that calls `define`


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
    """Returns one side, or (height, width), as `config.data.image_size` reads them; raises ValueError for others."""
    size = values.from_text("a size", int | tuple[int, int], text)
    if min(size if isinstance(size, tuple) else (size,)) < 1:
        raise ValueError(f"A size must be positive, in pixels. Received: {text!r}.")
    return size


class _Parser(flags.ArgumentParser):
    syntactic_help = "a side, or height and width"

    def parse(self, argument: str) -> int | tuple[int, int]:
        return parse(argument)

    def flag_type(self) -> str:
        return "size"

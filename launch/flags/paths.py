"""Flags whose value is a path of this machine: absolute, with `~` expanded, wherever the command is run."""

from collections.abc import Sequence

from absl import flags

from ncsn_tf import files
from ncsn_tf.data import names

flags.disclaim_key_flags()  # a flag belongs to the module that calls `define`


def define(
    name: str,
    default: str | None,
    help_text: str,
    *,
    words: Sequence[str] = (),
    required: bool = False,
    remote: bool = False,
) -> flags.FlagHolder:
    """Defines a flag of a path.

    Args:
      name: the flag's name.
      default: its default, a path or one of `words`.
      help_text: its help.
      words: values that are no paths and stay as they are; `./WORD` is the path of that name.
      required: whether it must be given.
      remote: whether an address such as gs://BUCKET/FOLDER is accepted, and stays as it is.
    """
    parser = _Parser(tuple(words), remote)
    return flags.DEFINE(parser, name, default, help_text, serializer=flags.ArgumentSerializer(), required=required)


def define_several(name: str, help_text: str, *, required: bool = False) -> flags.FlagHolder:
    """Defines a flag of paths that may be given several times."""
    parser, serializer = _Parser((), remote=False), flags.ArgumentSerializer()
    return flags.DEFINE_multi(parser, serializer, name, None, help_text, required=required)


def define_dataset(name: str, help_text: str, *, required: bool = False) -> flags.FlagHolder:
    """Defines a flag of a dataset's name, whose value is absolute if the name is that of files; see `names.located`."""
    parser = _DatasetParser()
    return flags.DEFINE(parser, name, None, help_text, serializer=flags.ArgumentSerializer(), required=required)


class _Parser(flags.ArgumentParser):
    syntactic_help = "a path"

    def __init__(self, words: Sequence[str], remote: bool):
        self._words = frozenset(words)
        self._remote = remote

    def parse(self, argument: str) -> str:
        if argument in self._words or (self._remote and files.is_address(argument)):
            return argument
        return str(files.local_path(argument))

    def flag_type(self) -> str:
        return "path"


class _DatasetParser(flags.ArgumentParser):
    syntactic_help = "a dataset's name, or a path"

    def parse(self, argument: str) -> str:
        if not argument:
            raise ValueError("A dataset's name is empty. Give 'digits', a TFDS dataset, or a path.")
        return names.located(argument)

    def flag_type(self) -> str:
        return "dataset"

"""Tells the network of a checkpoint by the names of its tensors."""

from typing import Any

from ncsn_tf.interop import containers
from ncsn_tf.interop.torch_files import CheckpointFormatError, describe

NCSN, NCSNV2, SCORE_SDE = "NCSN", "NCSNv2", "a U-Net of score_sde"
"""The families that are read, of ermongroup/ncsn, ermongroup/ncsnv2, and the U-Nets of yang-song/score_sde_pytorch."""

_READERS = {NCSN: "ncsn", NCSNV2: "ncsnv2", SCORE_SDE: "score_sde"}
# Names of tensors that only this network has, whatever is written before them.
_SIGNS = {
    "normalizer.embed.weight": NCSN,
    "res1.0.normalize1.embed.weight": NCSN,
    "normalizer.alpha": NCSNV2,
    "res1.0.normalize1.alpha": NCSNV2,
    "all_modules.0.weight": SCORE_SDE,
    "all_modules.0.W": SCORE_SDE,
}
_DEEPER = "NCSNdeeper of ermongroup/ncsnv2, the conditional network for 128 pixels"
_SPECTRAL = "an NCSN with spectral normalisation"
_BATCH_NORM = "a RefineNet with batch normalisation"
# The same for networks that are not read.
_OTHER_SIGNS = {
    "res5.0.normalize1.embed.weight": _DEEPER,
    "res1.0.conv1.weight_orig": _SPECTRAL,
    "res1.0.normalize1.running_mean": _BATCH_NORM,
    "res1.0.normalize1.bn.running_mean": _BATCH_NORM,
    "time_embedding.linear_1.weight": "a U-Net of diffusers",
    "time_embed.0.weight": "a U-Net of guided-diffusion",
}
_VARIANTS = (_DEEPER, _SPECTRAL, _BATCH_NORM)
"""Networks that have the names of one that is read, and others beside."""


def identify(content: Any, where: str) -> str:
    """The family of the network in a file's content.

    Args:
      content: dicts and lists of tensors and plain values, in any nesting.
      where: the file, for messages.

    Raises:
      CheckpointFormatError: unless the file holds networks of one family that is read; the message says what it holds.
    """
    found = _found(content)
    readable = [name for name in found if name in _READERS]
    others = [name for name in found if name in _VARIANTS or not readable]
    if others:
        raise CheckpointFormatError(
            f"{where} looks like {others[0]}, which is not read. Expected a checkpoint of {', '.join(_READERS)}."
        )
    if len(readable) != 1:
        families = f"networks of {' and '.join(readable)}" if readable else f"no network of {', '.join(_READERS)}"
        remedy = "Save the one that you want to a file of its own. " if readable else ""
        raise CheckpointFormatError(f"{where} holds {families}. {remedy}It holds: {describe(content)}.")
    return readable[0]


def check(content: Any, family: str, where: str) -> None:
    """Raises CheckpointFormatError if a file's content is a network of another family, but not if it is unknown."""
    found = _found(content)
    variants = [name for name in found if name in _VARIANTS]
    others = variants or [name for name in found if family not in found]
    if others:
        reader = f"ncsn_tf.interop.{_READERS[others[0]]} reads" if others[0] in _READERS else "Nothing here reads"
        raise CheckpointFormatError(
            f"{where} is not a checkpoint of {family}: it looks like {others[0]}. {reader} that network."
        )


def _found(content: Any) -> list[str]:
    """The networks whose signs are in the content, those that are read first."""
    signs = {**_SIGNS, **_OTHER_SIGNS}
    held = containers.names(content, signs)
    return list(dict.fromkeys(network for sign, network in signs.items() if sign in held))

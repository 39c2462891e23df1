"""Checkpoints of every family, told apart by their tensors, as score models."""

import dataclasses
import os
import warnings
from collections.abc import Mapping
from typing import Any

from ncsn_tf import score, times
from ncsn_tf.interop import checkpoints, configuration, families, ncsn, ncsnv2, score_sde
from ncsn_tf.interop.checkpoints import Checkpoint
from ncsn_tf.interop.unet_options import ImageSize
from ncsn_tf.score import ScoreModel
from ncsn_tf.sde import SDE, VE, VP, SubVP

_SDES = {"ve": VE, "vp": VP, "subvp": SubVP}
_OUTPUTS = {"score": score.score, "score_over_sigma": score.score_over_sigma, "noise": score.noise}
NCSN_LEVELS = {"sigma_max": 1.0, "sigma_min": 0.01}
"""The noise levels with which NCSN was published (Song & Ermon 2019, section 5)."""


def load(
    path: str | os.PathLike,
    config: Any = None,
    weights: str | None = None,
    image_size: ImageSize | None = None,
) -> ScoreModel:
    """The score model of a checkpoint of the authors' PyTorch programs.

    The family is told by the tensors: NCSN (ermongroup/ncsn), NCSNv2 (ermongroup/ncsnv2), or NCSN++, DDPM++ and DDPM
    (yang-song/score_sde_pytorch). What a checkpoint does not tell is taken from `config`, else from the published
    models of its family; a warning says what.

    Args:
      path: a `.pth` file, as the authors' program writes it, or any dicts and lists that hold the weights.
      config: the configuration that it was trained with: its section `model` or all of it, as a dict, an
        `ml_collections.ConfigDict` or the path of a JSON file; or None.
      weights: "raw" or "average"; by default the averaged weights if the file has any, else the raw ones.
      image_size: the size of the images in pixels, a side or (height, width), if `config` does not give it. Only U-Nets
        need it.

    Returns:
      A `ScoreModel`: `score(x, t)` is the gradient of log p_t at x, for x perturbed in the data range of its `sde`:
      [0, 1] for the VE SDE, [-1, 1] for the VP and sub-VP SDE.

    Raises:
      CheckpointFormatError: a ValueError, if the file cannot be read as tensors, or holds no weights of a known network
        or several, or if tensors are missing, superfluous or misshapen; the message says what there is.
      ValueError: if the configuration contradicts the tensors, cannot be read, or has what this library has no
        counterpart of, or if something is not told in which the published models differ.
      FileNotFoundError: if there is no such file.
      ImportError: if torch is not installed.
    """
    checkpoint = read_checkpoint(path, config, weights, image_size)
    if "sde" not in checkpoint.sections and checkpoint.family == families.NCSN:
        checkpoint = dataclasses.replace(
            checkpoint,
            sections={**checkpoint.sections, "sde": {"name": "ve", **NCSN_LEVELS}},
            assumed=tuple(f"model.{key}={value:g}" for key, value in NCSN_LEVELS.items()),
        )
    if checkpoint.assumed:
        warnings.warn(
            f"Assumed of {os.fspath(path)!s}, as in the published models of {checkpoint.family}: "
            f"{', '.join(checkpoint.assumed)}. Give config to say otherwise.",
            stacklevel=2,
        )
    return score_model(checkpoint)


def score_model(checkpoint: Checkpoint) -> ScoreModel:
    """The score model of a checkpoint.

    Raises:
      ValueError: if the checkpoint does not tell its noise levels.
    """
    told = checkpoint.sections
    missing = [name for name in ("sde", "times") if name not in told]
    if missing:
        raise ValueError(
            f"This {checkpoint.family} holds no noise levels. Give config with model.sigma_max, model.sigma_min and "
            "model.num_scales."
        )
    keys = {key: value for key, value in told["sde"].items() if key != "name"}
    process: SDE = _SDES[told["sde"]["name"]](**keys)
    output, condition = _OUTPUTS[told["output"]["name"]], _condition(told, keys)
    return ScoreModel(checkpoint.network, process, output, condition)


def _condition(told: Mapping[str, checkpoints.Section], rates: Mapping[str, float]) -> score.Condition:
    match told["condition"]["name"]:
        case "nearest_level":
            return score.nearest_level(times.uniform(told["times"]["num_levels"]))
        case "ddpm_step":
            return score.ddpm_step(times.ddpm(told["times"]["num_levels"], **rates))
        case name:
            return {"sigma": score.sigma, "scaled_time": score.scaled_time, "none": score.unconditional}[name]


def read_checkpoint(
    path: str | os.PathLike,
    config: Any = None,
    weights: str | None = None,
    image_size: ImageSize | None = None,
) -> Checkpoint:
    """Reads a checkpoint of any family, and says what was taken and assumed; arguments and errors as for `load`."""
    told = configuration.read(config)
    told.size(image_size)  # raises an error if it is none
    where, content = checkpoints.read(path)
    family = families.identify(content, where)
    if family == families.SCORE_SDE:
        return score_sde.from_content(where, content, told, weights, image_size)
    reader = {families.NCSN: ncsn, families.NCSNV2: ncsnv2}[family]
    return reader.from_content(where, content, told, weights)

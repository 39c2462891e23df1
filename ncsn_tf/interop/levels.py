"""The noise levels of a checkpoint: those that the file holds, compared with those of a configuration."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ncsn_tf.interop.checkpoints import SIGMAS
from ncsn_tf.interop.configuration import Configuration
from ncsn_tf.interop.torch_files import CheckpointFormatError

_FILE = "the noise levels of the file"
_KEYS = ("model.sigma_max|sigma_begin", "model.sigma_min|sigma_end")
_NUMBER = "model.num_scales|num_classes"


def sections(
    sigmas: np.ndarray | None, config: Configuration, num_levels: int | None = None
) -> dict[str, Mapping[str, Any]]:
    """The sections `sde` and `times` of our configuration, as far as the file and the authors' configuration tell.

    Args:
      sigmas: [L], the file's noise levels, or None.
      config: the authors' configuration.
      num_levels: the number of levels that the tensors of the network tell, or None.

    Raises:
      CheckpointFormatError: as `ends` does.
      ValueError: if the configuration contradicts the file, or its images or levels are not of this library.
    """
    for key in ("data.rescaled", "data.logit_transform", "data.centered"):
        if config.switch(key):
            raise config.refuse(key, True, "data of the VE SDE are in [0, 1].")
    if config.word("model.sigma_dist", ("geometric", "uniform")) == "uniform":
        raise config.refuse("model.sigma_dist", "uniform", "noise levels are geometric.")
    process = config.word("training.sde", ("vesde", "vpsde", "subvpsde"))
    if process not in (None, "vesde"):
        raise config.refuse("training.sde", process, "this network is trained at levels of the VE SDE.")
    if config.switch("training.continuous"):
        raise config.refuse("training.continuous", True, "this network is trained at noise levels.")
    given = [config.number(key) for key in _KEYS]
    if sigmas is not None:
        found = list(ends(sigmas, num_levels))
        for key, theirs, ours in zip(_KEYS, given, found, strict=True):
            config.agree(key, theirs, ours, _FILE)
        given, num_levels = found, sigmas.size
    config.agree(_NUMBER, config.whole(_NUMBER), num_levels, _FILE)
    number = config.whole(_NUMBER) if num_levels is None else num_levels
    _check(config, given, number)
    told: dict[str, Mapping[str, Any]] = {}
    if None not in given:
        told["sde"] = {"name": "ve", "sigma_max": given[0], "sigma_min": given[1]}
    if number is not None:
        told["times"] = {"name": "levels", "num_levels": number}
    return told


def _check(config: Configuration, ends: Sequence[float | None], number: int | None) -> None:
    """Raises ValueError unless the noise levels are all told or none, and possible."""
    if (ends[0] is None) != (ends[1] is None):
        lacking, told = _KEYS if ends[0] is None else _KEYS[::-1]
        raise config.wrong(told, ends[1] if ends[0] is None else ends[0], f"give {lacking.partition('|')[0]} too.")
    if ends[0] is not None and ends[1] is not None and not 0.0 < ends[1] < ends[0]:
        raise config.wrong(_KEYS[0], ends[0], f"the levels fall from it to a smaller, positive one, here {ends[1]:g}.")
    if number is not None and number < 2:
        raise config.wrong(_NUMBER, number, "there must be 2 or more noise levels.")


def ends(sigmas: np.ndarray, num_levels: int | None = None) -> tuple[float, float]:
    """The largest and the smallest of a file's geometric noise levels.

    Args:
      sigmas: [L], from the largest to the smallest, in half precision or better.
      num_levels: the number that is expected; None for any.

    Returns:
      (sigma_max, sigma_min), rounded to the six digits that single precision holds.

    Raises:
      CheckpointFormatError: unless they are positive, as many as expected, and a decreasing geometric sequence, as the
        levels of the VE SDE are.
    """
    counted = sigmas.ndim == 1 and sigmas.size >= 2 and num_levels in (None, sigmas.size)
    if not (counted and (np.isfinite(sigmas) & (sigmas > 0.0)).all()):
        expected = "two or more" if num_levels is None else num_levels
        raise CheckpointFormatError(
            f"{SIGMAS} does not fit. Expected {expected} positive numbers, one per noise level. "
            f"Received: shape {sigmas.shape}, first {np.array2string(sigmas.reshape(-1)[:3], precision=4)}."
        )
    first, last = (float(f"{sigma:.6g}") for sigma in sigmas[[0, -1]])
    if not (first > last and np.allclose(sigmas, np.geomspace(first, last, len(sigmas)), rtol=5e-3, atol=0.0)):
        raise CheckpointFormatError(
            f"The {sigmas.size} noise levels of the file, from {first:.3g} to {last:.3g}, are not a decreasing "
            "geometric sequence, so no SDE of this library has them. Give a checkpoint with geometric ones."
        )
    return first, last

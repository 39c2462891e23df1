"""Checks of a configuration's values: of one key, and of keys that must fit each other.

A setting that cannot work raises ValueError; one that only looks wrong is described in a line of text.
"""

import math
from typing import Any

import numpy as np

_LARGEST_INTEGER = 2**31 - 1
"""The largest number that the int32 counters of a graph hold."""
_FLOAT32 = np.finfo(np.float32)


# One key


def positive(section: str, **values: float | None) -> None:
    """Raises ValueError unless each value is None, or positive and finite also as float32."""
    for name, value in values.items():
        if value is not None and not float(_FLOAT32.tiny) <= value <= float(_FLOAT32.max):
            raise ValueError(f"config.{section}.{name} must be positive and finite, as a float32. Received: {value}.")


def at_least(section: str, smallest: float, largest: float = _LARGEST_INTEGER, **values: float) -> None:
    """Raises ValueError unless each value is in [smallest, largest]."""
    for name, value in values.items():
        if not value >= smallest:
            raise ValueError(f"config.{section}.{name} must be at least {smallest}. Received: {value}.")
        if value > largest:
            raise ValueError(f"config.{section}.{name} must be at most {largest}. Received: {value}.")


def fraction(section: str, **values: float) -> None:
    """Raises ValueError unless each value is in [0, 1), also as float32."""
    for name, value in values.items():
        if not 0.0 <= value < 1.0 or np.float32(value) == 1.0:
            raise ValueError(f"config.{section}.{name} must be in [0, 1), as a float32. Received: {value}.")


def one_of(section: str, known: tuple[str, ...], **values: str) -> None:
    """Raises ValueError unless each value is known."""
    for name, value in values.items():
        if value not in known:
            raise ValueError(f"config.{section}.{name} must be one of {sorted(known)}. Received: {value!r}.")


def sides(section: str, **values: Any) -> None:
    """Raises ValueError unless each value is None, a side in pixels, or (height, width)."""
    for name, value in values.items():
        pair = value if isinstance(value, list | tuple) else (value, value)
        if value is None:
            continue
        if len(pair) != 2 or not all(isinstance(side, int) and not isinstance(side, bool) for side in pair):
            raise ValueError(
                f"config.{section}.{name} must be None, a side, or (height, width), in whole pixels. "
                f"Received: {value!r}."
            )
        for side in pair:
            at_least(section, 1, **{name: side})


# Several keys


def levels(sigmas: np.ndarray, sigma_power: float) -> None:
    """Checks noise levels, float32 [L], and the loss weights sigma^sigma_power at them.

    Raises:
      ValueError: unless the levels are positive and decrease strictly, and their squares, the ratios of these, and the
        weights are in the range of float32.
    """
    if not sigmas[-1] > 0.0:
        raise ValueError(
            f"The last noise level must be positive. Received: sigma={sigmas[-1]:.3g}, the SDE's noise at t=0. Give "
            "another times.name: uniform, or ddpm_levels with sde.name=vp."
        )
    if not (np.diff(sigmas) < 0.0).all():
        raise ValueError(
            f"Neighbouring noise levels are equal in float32: sigma from {sigmas[0]:.9g} to {sigmas[-1]:.9g}, "
            f"times.num_levels={len(sigmas)}. Give fewer levels, or others for sde.sigma_max and sde.sigma_min."
        )
    ends = sigmas[[0, -1]].astype(np.float64)
    squares = (*ends**2, (ends[0] / ends[1]) ** 2)
    if not all(float(_FLOAT32.tiny) < value < float(_FLOAT32.max) for value in squares):
        raise ValueError(
            "The squares of the noise levels, and the ratio of the squares, must be in the range of float32. Received: "
            f"sde.sigma_max={ends[0]:.4g}, sde.sigma_min={ends[1]:.4g}."
        )
    with np.errstate(invalid="ignore"):
        powers = sigma_power * np.log10(ends)
    low, high = math.log10(_FLOAT32.tiny), math.log10(_FLOAT32.max)
    if not ((powers > low) & (powers < high)).all():
        raise ValueError(
            f"The loss weights sigma^sigma_power, 1e{powers[0]:.0f} at the first level and 1e{powers[1]:.0f} at the "
            f"last, must be in the range of float32. Received: objective.sigma_power={sigma_power}; NCSN's is 2."
        )


def schedule_caveats(optimizer: Any, steps: int) -> list[str]:
    """One line per oddity of the learning rate of a run of `steps` steps; `optimizer` is a `schema.Optimizer`."""
    found, warmup, decay = [], optimizer.warmup_steps, optimizer.decay_steps
    if warmup > steps:
        found.append(
            f"optim.warmup_steps={warmup} exceeds training.steps={steps}: the full learning rate is never reached"
        )
    if decay is not None and warmup >= decay:
        found.append(
            f"optim.warmup_steps={warmup} is not below optim.decay_steps={decay}: the warm-up ends when the learning "
            "rate has decayed"
        )
    if decay is not None and decay < steps and optimizer.decay != "exponential" and not optimizer.final_fraction:
        found.append(
            f"optim.decay_steps={decay} is below training.steps={steps} and optim.final_fraction is 0: after step "
            f"{decay} the learning rate is 0, and nothing is learnt"
        )
    if optimizer.decay is None and optimizer.final_fraction:
        found.append(f"optim.final_fraction={optimizer.final_fraction} has no effect without optim.decay")
    return found


def data_caveats(data: Any) -> list[str]:
    """One line if images would be enlarged, which adds no detail; `data` is a `schema.Data`."""
    pair = data.image_size if isinstance(data.image_size, list | tuple) else (data.image_size,)
    if data.center_crop is None or data.image_size is None or data.center_crop >= max(pair):
        return []
    return [f"data.center_crop={data.center_crop} is below data.image_size={data.image_size}: images are enlarged"]


def class_caveats(network: Any) -> list[str]:
    """One line if a network with classes never learns without them; `network` is the section."""
    if getattr(network, "num_classes", None) is None or network.label_dropout > 0.0:
        return []
    return ["network.label_dropout=0: the score without a class is not trained, and samples without labels follow it"]

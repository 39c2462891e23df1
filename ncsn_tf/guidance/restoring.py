"""Measurements and methods of restoration by name, as texts such as "downsample:4" and "pigdm,scale=2" give them."""

import dataclasses
import math
import typing
from collections.abc import Callable
from typing import Any

import numpy as np

from ncsn_tf.config import values
from ncsn_tf.guidance import masks, measurements
from ncsn_tf.guidance.dps import DPS
from ncsn_tf.guidance.measurements import Measurement
from ncsn_tf.guidance.pigdm import PiGDM
from ncsn_tf.guidance.replacement import Replacement
from ncsn_tf.samplers.driver import Guidance
from ncsn_tf.sde import SDE

METHODS: dict[str, type[Replacement] | type[PiGDM] | type[DPS]] = {
    "replacement": Replacement,
    "pigdm": PiGDM,
    "dps": DPS,
}
"""The methods that restore images from linear measurements: method(sde, measurement, noise, **options)."""

_NOT_OPTIONS = ("sde", "measurement", "noise", "draw", "guides_the_end")
_NOT_IN_TIME = ("annealed_langevin", "langevin", "predictor_corrector")

Shape = tuple[int, int, int]


def _mask(shape: Shape, value: str, seed: int) -> Measurement:
    known = masks.make(value, shape, 1, run_seed=seed)[0]
    return measurements.mask(known, shape[-1], f"mask:{value}")


def _box(shape: Shape, side: int) -> Measurement:
    if side < 1 or side % 2 == 0 or side > 2 * max(shape[:2]):
        raise ValueError(
            f"A box has an odd side, in pixels, at most twice that of the images, {shape[:2]}. Received: box:{side}."
        )
    return measurements.blur(shape, np.full(side, 1.0 / side), f"box:{side}")


def _blur(shape: Shape, deviation: float) -> Measurement:
    if deviation > max(shape[:2]):
        raise ValueError(f"A blur is at most as wide as the images, {shape[:2]}. Received: blur:{deviation:g}.")
    return measurements.blur(shape, measurements.gaussian_kernel(deviation), f"blur:{deviation:g}")


def _fourier(shape: Shape, share: float, seed: int) -> Measurement:
    kept = measurements.frequencies(shape, share, seed)
    return measurements.fourier(shape, kept, f"fourier:{share:g}")


MEASUREMENTS: dict[str, tuple[type | None, Callable[[Shape, Any, int], Measurement]]] = {
    "mask": (str, _mask),
    "grey": (None, lambda shape, value, seed: measurements.grey(shape)),
    "downsample": (int, lambda shape, value, seed: measurements.downsample(shape, value)),
    "blur": (float, lambda shape, value, seed: _blur(shape, value)),
    "box": (int, lambda shape, value, seed: _box(shape, value)),
    "fourier": (float, _fourier),
}
"""The measurements: the type of the value after the colon, and measurement(shape, value, run_seed)."""


def measurement(text: str, shape: Shape, run_seed: int = 0) -> Measurement:
    """The measurement of a text, "NAME" or "NAME:VALUE".

    Args:
      text: `mask:` and a name of `names.MASKS`; `grey`; `downsample:` and the side of a block; `blur:` and the standard
        deviation of a Gaussian, or `box:` and the side of a box, in pixels; `fourier:` and the share of frequencies.
      shape: (H, W, C) of the images.
      run_seed: determines random masks and frequencies, the same for all images.

    Raises:
      ValueError: for an unknown name, a value that is missing or out of range, or images that cannot be measured so.
    """
    name, colon, given = text.partition(":")
    if name not in MEASUREMENTS:
        raise ValueError(
            f"A measurement is one of {', '.join(MEASUREMENTS)}, with a value as in downsample:4. Received: {text!r}."
        )
    kind, make = MEASUREMENTS[name]
    if (kind is None) == bool(colon):
        needs = "takes no value" if kind is None else "needs a value, as in blur:1.5 or mask:left"
        raise ValueError(f"The measurement {name} {needs}. Received: {text!r}.")
    return make(shape, values.from_text(f"The value of {name}", kind, given) if kind else None, run_seed)


def options(text: str) -> tuple[str, dict[str, Any]]:
    """The name and options of a method that "NAME" or "NAME,KEY=VALUE,..." means.

    Raises:
      ValueError: for an unknown name or key, or a text that does not mean a value of the key's type.
    """
    name, *given = (part.strip() for part in text.split(","))
    found = {}
    for part in given:
        key, _, value = part.partition("=")
        kinds = _kinds(name)
        _check_key(name, key, kinds)
        if key in found:
            raise ValueError(f"The option {key} of {name} is given twice: {text!r}.")
        found[key] = values.from_text(f"{name}'s {key}", kinds[key], value)
    _kinds(name)
    return name, found


def make(name: str, sde: SDE, measured: Measurement, noise: float = 0.0, **given: Any) -> Guidance:
    """The guidance of a method; its given tensors are the measurements, (y [B, *measured_shape],).

    Args:
      name: a method of `METHODS`.
      sde: the SDE.
      measured: the measurement.
      noise: the standard deviation of its noise, in units of the SDE's data range.
      **given: the method's own options, as its class describes them.

    Raises:
      ValueError: for an unknown name or option, or a number out of range.
    """
    for key in given:
        _check_key(name, key, _kinds(name))
    _kinds(name)
    check_noise(noise)
    return METHODS[name](sde, measured, noise, **given)


def projects(name: str) -> bool:
    """Whether a method changes samples after each step, for which a sampler must have fixed steps.

    Raises:
      ValueError: for an unknown name.
    """
    _kinds(name)
    return METHODS[name].project is not Guidance.project


def check_sampler(name: str, sampler: str) -> None:
    """Raises ValueError for a sampler, by its name in configurations, along which a method makes no sense."""
    if METHODS[name] is DPS and sampler in _NOT_IN_TIME:
        raise ValueError(
            f"{name} moves samples in proportion to steps of time, and {sampler} has steps at one time: give another "
            "--sampler, such as ancestral, or another --method."
        )


def ends_exact(guidance: Guidance) -> bool:
    """Whether a walk may end with the measured coefficients set to those of the measurement: it has no noise."""
    return isinstance(guidance, Replacement) and guidance.noise == 0.0 and guidance.weight == 1.0


def check_noise(noise: float) -> None:
    """Raises ValueError unless a noise is at least 0 and finite."""
    if not 0.0 <= noise < math.inf:
        raise ValueError(f"The noise of a measurement must be at least 0 and finite. Received: noise={noise:g}.")


def _kinds(name: str) -> dict[str, Any]:
    """The types of a method's options."""
    if name not in METHODS:
        raise ValueError(f"Expected `method` to be one of {', '.join(METHODS)}. Received: {name!r}.")
    hints = typing.get_type_hints(METHODS[name])
    return {
        field.name: hints[field.name] for field in dataclasses.fields(METHODS[name]) if field.name not in _NOT_OPTIONS
    }


def _check_key(name: str, key: str, kinds: dict[str, Any]) -> None:
    if key not in kinds:
        raise ValueError(f"The options of the method {name} are: {', '.join(kinds)}. Received: {key}.")

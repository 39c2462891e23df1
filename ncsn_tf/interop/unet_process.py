"""The process that a U-Net of score_sde was trained on: its SDE, its times, and what the network is told of them."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from ncsn_tf.interop.configuration import Reader
from ncsn_tf.interop.unet_tensors import Architecture

_SDES = {"vesde": "ve", "vpsde": "vp", "subvpsde": "subvp"}
_FILE = "the noise levels of the file"


@dataclasses.dataclass(frozen=True)
class Process:
    """A process.

    Attributes:
      sde: "ve", "vp" or "subvp".
      continuous: whether the network is told a time, not the number of a level.
      scale_by_sigma: whether the program's network divides its output by sigma.
      conditional: whether the network is told the time.
      num_levels: the number of levels; None if it does not matter, in continuous time.
      parameters: the keys of the SDE; None if the largest noise level of a VE SDE is unknown.
    """

    sde: str
    continuous: bool
    scale_by_sigma: bool
    conditional: bool
    num_levels: int | None
    parameters: Mapping[str, float] | None

    def output_sigmas(self, embedding: str) -> str | tuple[float, float, int] | None:
        """The argument of `UNet` of this name; without a condition, the score model divides by sigma instead."""
        if not (self.scale_by_sigma and self.conditional):
            return None
        if embedding == "fourier":
            return "condition"
        assert self.parameters is not None and self.num_levels is not None
        return self.parameters["sigma_max"], self.parameters["sigma_min"], self.num_levels

    def sections(self) -> dict[str, dict[str, Any]]:
        """The sections `sde`, `times`, `output` and `condition` of our configuration."""
        variance_exploding, levels = self.sde == "ve", {"num_levels": self.num_levels}
        if self.continuous:
            times, condition = {"name": "uniform"}, "sigma" if variance_exploding else "scaled_time"
        elif variance_exploding:
            times, condition = {"name": "levels", **levels}, "nearest_level"
        else:
            times, condition = {"name": "ddpm_levels", **levels}, "ddpm_step"
        output = "score" if variance_exploding else "noise"
        if self.scale_by_sigma and not self.conditional:
            output = "score_over_sigma"
        found = {
            "times": times,
            "output": {"name": output},
            "condition": {"name": condition if self.conditional else "none"},
        }
        return found if self.parameters is None else {"sde": {"name": self.sde, **self.parameters}, **found}


def read(reader: Reader, tensors: Architecture, name: str, sigmas: tuple[float, float, int] | None) -> Process:
    """Reads the process from the configuration; what it does not say is as in the published models.

    Args:
      reader: takes values from the configuration and from what was published.
      tensors: the architecture.
      name: the program's name of the network, "ddpm" or "ncsnpp".
      sigmas: (sigma_max, sigma_min, number) of the file's noise levels; None if it holds none.

    Raises:
      ValueError: if the configuration contradicts the file, or has what this library has no counterpart of, or
        something is not told in which published models differ.
    """
    config, fourier = reader.config, tensors.embedding == "fourier"
    sde = _sde(reader, fourier)
    continuous = config.switch("training.continuous")
    if fourier or sde == "subvp":
        if fourier:  # the program insists
            config.agree("training.continuous", continuous, True, "the Fourier features of the tensors")
        continuous = True
    else:
        continuous = reader.take("training.continuous", continuous, sde == "vp" and name == "ncsnpp")
    scaled = reader.take("model.scale_by_sigma", config.switch("model.scale_by_sigma"), sde == "ve")
    if scaled and (sde != "ve" or (continuous and not fourier)):
        raise config.refuse("model.scale_by_sigma", scaled, "it needs the VE SDE, with levels or Fourier features.")
    centred = reader.take("data.centered", config.switch("data.centered"), sde != "ve")
    if centred is not (sde != "ve"):
        wanted = "[0, 1] (false) for the VE SDE" if sde == "ve" else "[-1, 1] (true) for the VP and sub-VP SDE"
        raise config.refuse("data.centered", centred, f"data are in {wanted}.")
    if sigmas is not None:
        for key, value in zip(("sigma_max", "sigma_min"), sigmas[:2], strict=True):
            config.agree(f"model.{key}", config.number(f"model.{key}"), value, _FILE)
        config.agree("model.num_scales", config.whole("model.num_scales"), sigmas[2], _FILE)
    number = sigmas[2] if sigmas is not None else config.whole("model.num_scales")
    if not continuous:
        number = reader.take("model.num_scales", number, 1000)
    parameters = _noise_levels(reader, sigmas) if sde == "ve" else _rates(reader)
    if parameters is None and scaled and tensors.conditional and not fourier:
        reader.take("model.sigma_max", None, None)  # raises an error: the network divides by it
    return Process(sde, continuous, scaled, tensors.conditional, number, parameters)


def _sde(reader: Reader, fourier: bool) -> str:
    config = reader.config
    scaled, centred = config.switch("model.scale_by_sigma"), config.switch("data.centered")
    published = {"NCSN++": "vesde" if fourier else None, "DDPM++": "vpsde", "DDPM": "vpsde"}[reader.family]
    if scaled is not None or centred is not None:  # in every published model, these two follow from the SDE
        published = "vesde" if scaled or centred is False else "vpsde"
    return _SDES[reader.take("training.sde", config.word("training.sde", tuple(_SDES)), published)]


def _noise_levels(reader: Reader, sigmas: tuple[float, float, int] | None) -> dict[str, float] | None:
    if sigmas is not None:
        return {"sigma_max": sigmas[0], "sigma_min": sigmas[1]}
    largest, smallest = (reader.config.number(f"model.{key}") for key in ("sigma_max", "sigma_min"))
    if largest is None:
        return None
    return {"sigma_max": largest, "sigma_min": reader.take("model.sigma_min", smallest, 0.01)}


def _rates(reader: Reader) -> dict[str, float]:
    config = reader.config
    return {
        "beta_min": reader.take("model.beta_min", config.number("model.beta_min"), 0.1),
        "beta_max": reader.take("model.beta_max", config.number("model.beta_max"), 20.0),
    }

"""The keys of the `objective` section, one frozen dataclass per objective."""

import dataclasses

from ncsn_tf.config import checks

WEIGHTINGS = ("sigma_power", "likelihood", "output")


@dataclasses.dataclass(frozen=True)
class _Weighted:
    """The keys that all objectives share.

    Attributes:
      weighting: the weight of the loss at each time: "sigma_power"; "likelihood", g^2; or "output", with which the loss
        is the squared error of the network's own output, as Karras et al. 2022 weight it. See `ncsn_tf.weightings`.
      sigma_power: the weight is sigma^sigma_power with the weighting "sigma_power".
    """

    weighting: str = "sigma_power"
    sigma_power: float = 2.0

    def __post_init__(self):
        checks.one_of("objective", WEIGHTINGS, weighting=self.weighting)


@dataclasses.dataclass(frozen=True)
class Denoising(_Weighted):
    """Denoising score matching.

    Attributes:
      per_dimension: divide the loss by half the number of values per image: the mean over them of |sigma score + z|^2
        in place of half their sum, as Song et al. 2021 train their VP models. Only clipping of gradients sees it.
    """

    per_dimension: bool = False


@dataclasses.dataclass(frozen=True)
class Sliced(_Weighted):
    """Sliced score matching.

    Attributes:
      slices: the distribution of the slices, "normal", "rademacher" or "spherical".
      num_slices: slices per image.
      variance_reduced: integrate the squared term over the slices in closed form.
    """

    slices: str = "normal"
    num_slices: int = 1
    variance_reduced: bool = False

    def __post_init__(self):
        super().__post_init__()
        checks.one_of("objective", ("normal", "rademacher", "spherical"), slices=self.slices)
        checks.at_least("objective", 1, num_slices=self.num_slices)


@dataclasses.dataclass(frozen=True)
class Exact(_Weighted):
    """Exact score matching.

    Attributes:
      directions_at_once: the number of directions that are differentiated together: more take more memory and less
        time; None chooses by dimension.
    """

    directions_at_once: int | None = None

    def __post_init__(self):
        super().__post_init__()
        if self.directions_at_once is not None:
            checks.at_least("objective", 1, directions_at_once=self.directions_at_once)

"""Noise levels and step size chosen from data (Song & Ermon 2020, NCSNv2: Techniques 1, 2 and 4).

Technique 1 takes the largest level from the images, Technique 2 the number of levels from their dimension, and
Technique 4 the step size of annealed Langevin dynamics from both. Levels are those of the VE SDE: standard deviations
of noise in data units, a geometric progression from sigma_max down to sigma_min.
"""

import dataclasses
import math

from scipy import optimize, special

OVERLAP = 0.567
"""The default of Technique 2. The paper writes 0.5; the levels that it uses have 0.5662 to 0.56697.

With 0.567, `number_of_levels` gives the paper's numbers for all five datasets: 232, 500, 788, 1086 and 2311.
"""

STEPS_PER_LEVEL = 5
"""The default of Technique 4, the paper's for CIFAR-10 and CelebA. It takes 3 or 4 for images of 96 pixels and more."""


# Technique 2: the number of levels


def overlap(ratio: float, dimensions: int) -> float:
    """The overlap of neighbouring levels: the probability, under one, of what is usual under the next larger one.

    In many dimensions the norm of noise of level sigma is distributed as N(sqrt(D) sigma, sigma^2 / 2) (Proposition 2).
    What is usual are norms within 3 deviations of the mean; with gamma the ratio of the levels, their probability is

        Phi(sqrt(2 D) (gamma - 1) + 3 gamma) - Phi(sqrt(2 D) (gamma - 1) - 3 gamma)

    Args:
      ratio: gamma = sigma_{i-1} / sigma_i, above 1.
      dimensions: D, the number of values of an image: H W C.

    Raises:
      ValueError: for a ratio or a dimension that is out of range.
    """
    _check_ratio(ratio)
    if dimensions < 1:
        raise ValueError(f"An image has one value or more. Received: dimensions={dimensions}.")
    return _overlap(ratio - 1.0, dimensions)


def _overlap(excess: float, dimensions: int) -> float:
    """The overlap at the ratio 1 + excess, which may be nearer to 1 than float64 can say."""
    middle, width = math.sqrt(2.0 * dimensions) * excess, 3.0 * (1.0 + excess)
    return float(special.ndtr(width - middle) - special.ndtr(-width - middle))


def ratio_for_overlap(dimensions: int, overlap: float = OVERLAP) -> float:
    """The ratio of neighbouring levels at which they have a given overlap (Technique 2), to float64's accuracy.

    From D = 5 on, the overlap rises a little with the ratio, from Phi(3) - Phi(-3) = 0.9973 at 1, and then falls to 0:
    its derivative has the sign of (s + 3) / (s - 3) - exp(6 gamma s (gamma - 1)), s = sqrt(2 D), which changes once. So
    there is one solution below 0.9973. In fewer dimensions the overlap is nowhere below 0.9973.

    Args:
      dimensions: D, the number of values of an image, at least 5.
      overlap: the probability, above 0 and below 0.9973.

    Raises:
      ValueError: for a dimension or an overlap that is out of range.
    """
    if dimensions < 5:
        raise ValueError(
            "Technique 2 needs images of 5 values or more: with fewer, all levels overlap, whatever their ratio. "
            f"Received: dimensions={dimensions}."
        )
    largest = _overlap(0.0, dimensions)
    if not 0.0 < overlap < largest:
        raise ValueError(f"The overlap is a probability in (0, {largest:.4f}). Received: {overlap}.")
    excess = 1.0
    while _overlap(excess, dimensions) > overlap:
        excess *= 2.0
    return 1.0 + float(optimize.brentq(lambda value: _overlap(value, dimensions) - overlap, 0.0, excess, xtol=1e-16))


def number_of_levels(sigma_max: float, sigma_min: float, dimensions: int, overlap: float = OVERLAP) -> int:
    """The largest number of geometric levels whose overlap is at most a given one (Technique 2), and at least 2.

    Args:
      sigma_max: the largest level, in data units.
      sigma_min: the smallest one.
      dimensions: D, the number of values of an image, at least 5.
      overlap: the probability, above 0 and below 0.9973.

    Raises:
      ValueError: for a value that is out of range.
    """
    if not 0.0 < sigma_min < sigma_max < math.inf:
        raise ValueError(
            "Noise levels need 0 < sigma_min < sigma_max, both finite. "
            f"Received: sigma_max={sigma_max}, sigma_min={sigma_min}."
        )
    intervals = (math.log(sigma_max) - math.log(sigma_min)) / math.log(ratio_for_overlap(dimensions, overlap))
    return 1 + max(1, math.floor(intervals))


# Technique 4: the step size


def variance_ratio(epsilon: float, steps: int, ratio: float, sigma_min: float) -> float:
    """The variance after the steps at a level, divided by the level's own (Proposition 3, equation 4).

    Data that are a point, and x from N(0, sigma_{i-1}^2): with the score -x / sigma_i^2 and the step size epsilon
    sigma_i^2 / sigma_L^2, a step of `langevin.Langevin` maps the variance v sigma_i^2 to

        v <- (1 - u)^2 v + 2 u,   u = epsilon / (2 sigma_L^2),

    at every level, so that T steps from v = gamma^2 give

        (1 - u)^(2 T) (gamma^2 - s) + s,   s = 2 / (2 - u).

    The paper and the authors' program write x + a score + sqrt(2 a) z: their epsilon is half of this one.

    Args:
      epsilon: the step size at the smallest level, in squared data units, below 4 sigma_min^2: from there on the
        dynamics diverges.
      steps: T, the steps at a level.
      ratio: gamma = sigma_{i-1} / sigma_i, above 1.
      sigma_min: sigma_L, the smallest level, in data units.

    Raises:
      ValueError: for a value that is out of range.
    """
    _check_walk(steps, ratio, sigma_min)
    u = epsilon / (2.0 * sigma_min**2)
    if not 0.0 < u < 2.0:
        raise ValueError(
            f"The step size must be above 0 and below 4 sigma_min^2 = {4.0 * sigma_min**2:.3g}. Received: {epsilon}."
        )
    stationary = 2.0 / (2.0 - u)
    return (1.0 - u) ** (2 * steps) * (ratio**2 - stationary) + stationary


def epsilon_for(steps: int, ratio: float, sigma_min: float) -> float:
    """The step size whose `variance_ratio` is nearest to 1 (Technique 4), to float64's accuracy.

    It is a minimum and never a root: from v >= 1 a step leads to (1 - u)^2 v + 2 u >= 1 + u^2. With w = 1 - u, the
    derivative by w has the sign of

        T w^(2 T - 1) (1 + w) (gamma^2 (1 + w) - 2) - 1 + w^(2 T),

    which on (0, 1) is negative where gamma^2 (1 + w) <= 2, increasing elsewhere, and positive at 1: there is one
    minimum. Steps that overshoot, -1 < w < 0, leave a larger variance than -w does.

    Args:
      steps: T, the steps at a level.
      ratio: gamma = sigma_{i-1} / sigma_i, above 1.
      sigma_min: sigma_L, the smallest level, in data units.

    Returns:
      epsilon, the step size at the smallest level as `langevin.annealed` takes it, in squared data units: twice the
      paper's.

    Raises:
      ValueError: for a value that is out of range.
    """
    _check_walk(steps, ratio, sigma_min)

    def slope(w: float) -> float:
        return steps * w ** (2 * steps - 1) * (1.0 + w) * (ratio**2 * (1.0 + w) - 2.0) - 1.0 + w ** (2 * steps)

    return 2.0 * sigma_min**2 * (1.0 - float(optimize.brentq(slope, 0.0, 1.0, xtol=1e-16)))


def _check_ratio(ratio: float) -> None:
    if not 1.0 < ratio < math.inf:
        raise ValueError(f"Levels decrease: their ratio, the larger by the smaller, is above 1. Received: {ratio}.")


def _check_walk(steps: int, ratio: float, sigma_min: float) -> None:
    _check_ratio(ratio)
    if steps < 1:
        raise ValueError(f"A level needs one step or more. Received: steps={steps}.")
    if not 0.0 < sigma_min < math.inf:
        raise ValueError(f"sigma_min must be positive and finite. Received: {sigma_min}.")


# All of them


@dataclasses.dataclass(frozen=True)
class Decision:
    """The choice of one technique.

    Attributes:
      technique: its number in the paper.
      values: "SECTION.KEY" of a configuration -> value.
      reason: one line that says what the values rest on.
    """

    technique: int
    values: dict[str, float | int]
    reason: str

    def overrides(self) -> list[str]:
        """The values as arguments of `launch.train`."""
        return [f"--config.{key}={value!r}" for key, value in self.values.items()]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Choice:
    """Noise levels and step size.

    Attributes:
      distance: the largest Euclidean distance between two images, in data units.
      dimensions: D, the number of values of an image.
      sigma_max: the largest level: the distance, rounded up to three digits.
      sigma_min: the smallest level.
      num_levels: L.
      steps_per_level: T.
      epsilon: the step size at the smallest level, in squared data units, rounded to three digits.
    """

    distance: float
    dimensions: int
    sigma_max: float
    sigma_min: float
    num_levels: int
    steps_per_level: int
    epsilon: float

    @property
    def ratio(self) -> float:
        """The ratio of neighbouring levels."""
        return _ratio(self.sigma_max, self.sigma_min, self.num_levels)

    @property
    def overlap(self) -> float:
        """The overlap of neighbouring levels."""
        return overlap(self.ratio, self.dimensions)

    @property
    def variance_ratio(self) -> float:
        """The variance after the steps at a level, divided by the level's own."""
        return variance_ratio(self.epsilon, self.steps_per_level, self.ratio, self.sigma_min)

    @property
    def evaluations(self) -> int:
        """The evaluations of the score per sample, without a final denoising step."""
        return self.num_levels * self.steps_per_level

    def decisions(self) -> tuple[Decision, Decision, Decision]:
        """The choices of Techniques 1, 2 and 4, with their reasons."""
        return (
            Decision(
                1,
                {"sde.sigma_max": self.sigma_max, "sde.sigma_min": self.sigma_min},
                f"the largest distance between two images is {self.distance:.6g}",
            ),
            Decision(
                2,
                {"times.num_levels": self.num_levels},
                f"images of {self.dimensions:,} values; neighbouring levels have the ratio {self.ratio:.6g} and the "
                f"overlap {self.overlap:.4g}",
            ),
            Decision(
                4,
                {"sampler.steps_per_level": self.steps_per_level, "sampler.epsilon": self.epsilon},
                f"after the steps the variance is {self.variance_ratio:.4g} times the level's, the least of any step "
                f"size; {self.evaluations:,} evaluations per sample, 1 more to denoise",
            ),
        )

    def overrides(self) -> list[str]:
        """All values as arguments of `launch.train`, for levels of the VE SDE and annealed Langevin dynamics."""
        return [argument for decision in self.decisions() for argument in decision.overrides()]


def choose(
    distance: float,
    dimensions: int,
    *,
    sigma_min: float = 0.01,
    overlap: float = OVERLAP,
    steps_per_level: int | None = None,
    max_evaluations: int | None = None,
    denoise: bool = False,
) -> Choice:
    """Chooses noise levels and a step size by Techniques 1, 2 and 4.

    Args:
      distance: the largest Euclidean distance between two training images, in data units, as
        `data.distances.largest_distance` finds it.
      dimensions: D, the number of values of an image, at least 5.
      sigma_min: the smallest level, in data units; the paper's is 0.01.
      overlap: the overlap of neighbouring levels, above 0 and below 0.9973.
      steps_per_level: T; by default `STEPS_PER_LEVEL`.
      max_evaluations: in place of `steps_per_level`: the most evaluations of the score per sample, of which T is made.
      denoise: whether one of these evaluations is a final denoising step.

    Raises:
      ValueError: for a value that is out of range, and if both of the last two are given.
    """
    if not 0.0 < distance < math.inf:
        raise ValueError(f"The largest distance must be positive and finite. Received: {distance}.")
    sigma_max = _rounded_up(distance)
    levels = number_of_levels(sigma_max, sigma_min, dimensions, overlap)
    steps = STEPS_PER_LEVEL if steps_per_level is None else steps_per_level
    if max_evaluations is not None:
        if steps_per_level is not None:
            raise ValueError(
                "Give either steps_per_level or max_evaluations. "
                f"Received: steps_per_level={steps_per_level}, max_evaluations={max_evaluations}."
            )
        steps = (max_evaluations - denoise) // levels
        if steps < 1:
            raise ValueError(
                f"{levels} levels need {levels + denoise} evaluations or more per sample"
                f"{', 1 of them to denoise' if denoise else ''}; a smaller overlap makes fewer levels. "
                f"Received: max_evaluations={max_evaluations}."
            )
    epsilon = epsilon_for(steps, _ratio(sigma_max, sigma_min, levels), sigma_min)
    return Choice(
        distance=distance,
        dimensions=dimensions,
        sigma_max=sigma_max,
        sigma_min=sigma_min,
        num_levels=levels,
        steps_per_level=steps,
        epsilon=float(f"{epsilon:.3g}"),
    )


def _ratio(sigma_max: float, sigma_min: float, num_levels: int) -> float:
    return (sigma_max / sigma_min) ** (1.0 / (num_levels - 1))


def _rounded_up(value: float) -> float:
    """A positive number, rounded up to three digits."""
    unit = 10.0 ** (math.floor(math.log10(value)) - 2)
    return float(f"{math.ceil(value / unit * (1.0 - 1e-12)) * unit:.3g}")

"""Which law do samples guided to a class have, and how far is it from the tilted density p(x) p(y | x)^w?

python -m benchmarks.guidance_classes

Data are two labelled Gaussians on the line, so that the score, the classifier and the tilted density are exact. The
guided score at time t is that of p_t(x) p_t(y | x)^w, but these are not the perturbed versions of one density, unless w
is 0 or 1: so the flow ends elsewhere. Its map is monotone on the line. A fine grid of starts has known shares of the
prior between its points, and carries them to the intervals between its ends: their law, without Monte Carlo.
"""

import math

import numpy as np
import tensorflow as tf

from ncsn_tf import ode
from ncsn_tf.densities import labelled, toy
from ncsn_tf.guidance import classes
from ncsn_tf.samplers.counting import Counted
from ncsn_tf.score import flow_velocity
from ncsn_tf.sde import VP

_SDE = VP()
_LAST = 1e-3
_LABEL = 0
_SCALES = (0.0, 1.0, 2.0, 4.0, 8.0)
_STARTS = 2_001


def two_gaussians(weights: tuple[float, float], means: tuple[float, float], deviations: tuple[float, float]):
    """Two labelled Gaussians on the line."""
    parts = zip(means, deviations, strict=True)
    return labelled.Labelled(
        np.array(weights), tuple(toy.Mixture(np.ones(1), np.array([[mean]]), deviation) for mean, deviation in parts)
    )


_CASES = {
    "equal: 1/2 N(-0.5, 0.4^2) + 1/2 N(0.5, 0.4^2)": two_gaussians((0.5, 0.5), (-0.5, 0.5), (0.4, 0.4)),
    "unequal: 0.3 N(-0.5, 0.3^2) + 0.7 N(0.3, 0.6^2)": two_gaussians((0.3, 0.7), (-0.5, 0.3), (0.3, 0.6)),
}


def sampled(density: labelled.Labelled, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """The law of the guided flow: ends of the grid's starts, increasing, and the share of each interval between."""
    starts = np.linspace(-6.0, 6.0, _STARTS)
    guidance = classes.ClassifierFree(2, scale)
    given = (tf.fill([_STARTS], _LABEL),)
    guided = guidance.score(Counted(density.labelled_score_fn(_SDE)), _SDE, given)
    velocity = flow_velocity(guided, _SDE)
    # A row that does not converge is NaN, and so is then every number of the table.
    solve = tf.function(lambda x: ode.solve(velocity, x, 1.0, _LAST, rtol=1e-7, atol=1e-7).y, autograph=False)
    ends = solve(tf.constant(starts[:, None])).numpy()[:, 0]
    shares = np.diff([0.5 * math.erfc(-start / math.sqrt(2.0)) for start in starts])
    return ends, shares / shares.sum()


def tilted(density: labelled.Labelled, scale: float, ends: np.ndarray) -> tuple[np.ndarray, float, float]:
    """The shares of the tilted density in the intervals between ends, its mean and its deviation."""
    fine = np.linspace(-6.0, 6.0, 60_001)
    alpha, sigma = (float(part[0]) for part in _SDE.marginal(tf.constant([_LAST], tf.float64)))
    x = tf.constant(fine[:, None])
    posterior = tf.nn.log_softmax(density.logits(x, alpha, sigma)).numpy()[:, _LABEL]
    logs = density.log_prob(x, alpha, sigma).numpy() + scale * posterior
    values = np.exp(logs - logs.max())
    values /= values.sum()
    mean = float(values @ fine)
    return np.diff(np.interp(ends, fine, np.cumsum(values))), mean, math.sqrt(float(values @ (fine - mean) ** 2))


def main() -> None:
    """Prints a table per case."""
    for name, density in _CASES.items():
        print(f"\n{name}; class {_LABEL}\n")
        print("| w | flow: mean, deviation | tilted: mean, deviation | total variation |")
        print("|---|---|---|---|")
        for scale in _SCALES:
            ends, shares = sampled(density, scale)
            middles = 0.5 * (ends[1:] + ends[:-1])
            mean = float(shares @ middles)
            deviation = math.sqrt(float(shares @ (middles - mean) ** 2))
            between, tilted_mean, tilted_deviation = tilted(density, scale, ends)
            distance = 0.5 * float(np.abs(shares - between).sum() + 1.0 - between.sum())
            flow = f"{mean:.3f}, {deviation:.3f}"
            print(f"| {scale:g} | {flow} | {tilted_mean:.3f}, {tilted_deviation:.3f} | {distance:.3f} |", flush=True)


if __name__ == "__main__":
    main()

"""Score matching objectives: a score function, data and noise in, a loss for each example out.

Nothing is drawn here: the noise z and the times t are arguments, so an objective is a deterministic function.
"""

import tensorflow as tf

from ncsn_tf.score import ScoreFunction, expand
from ncsn_tf.sde import VE


def denoising(
    score_fn: ScoreFunction, sde: VE, x: tf.Tensor, t: tf.Tensor, z: tf.Tensor, *, sigma_power: float = 2.0
) -> tf.Tensor:
    """Annealed denoising score matching.

    With x_t = alpha(t) x + sigma(t) z, whose kernel has the score -(x_t - alpha x) / sigma^2 = -z / sigma,

        loss = 1/2 sigma^p || score(x_t, t) + z / sigma ||^2 = 1/2 sigma^(p-2) || sigma score(x_t, t) + z ||^2.

    With p = 2 every level weighs about the same: a score of size 1/sigma makes sigma * score of size 1 (lambda(sigma) =
    sigma^2 below equation 6; prints of sigma^-2 are slips).

    Args:
      score_fn: the score function, (x [B, ...], t [B]) -> [B, ...].
      sde: the SDE that perturbs the data.
      x: [B, ...], clean examples.
      t: [B], a time for each.
      z: [B, ...], standard normal noise.
      sigma_power: p, the power of sigma that weighs the levels.

    Returns:
      float32 [B], the loss of each example, summed over its dimensions.

    Reference:
      Song & Ermon 2019, equations 5 and 6; Vincent 2011, equation 11.
    """
    alpha, sigma = sde.marginal(t)
    perturbed = expand(alpha, x) * x + expand(sigma, x) * z
    residual = expand(sigma, x) * tf.cast(score_fn(perturbed, t), z.dtype) + z
    squares = tf.reduce_sum(residual**2, axis=tuple(range(1, len(x.shape))))
    return 0.5 * sigma ** (sigma_power - 2.0) * squares

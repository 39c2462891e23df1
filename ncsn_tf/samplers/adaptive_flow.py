"""The probability flow from noise to data with error control."""

from typing import Any

import tensorflow as tf

from ncsn_tf import ode
from ncsn_tf.samplers.adaptive import Adaptive
from ncsn_tf.score import ScoreFunction, flow_velocity
from ncsn_tf.sde import SDE


class AdaptiveFlow(Adaptive):
    """A sampler that solves the probability flow from t=1 to a last time by `ode.solve`.

    The authors' programs give the whole batch to SciPy as one vector: steps then depend on all its samples. Here they
    depend on the sample alone. Seeds are not used, because the flow has no noise.

    Args:
      sde: the SDE.
      rtol: the relative tolerance; the paper takes 1e-5.
      atol: the absolute tolerance, in data units, likewise.
      method: a name of `ode.METHODS`.
      **frame: `last_time`, `finish`, `jit_compile` and `strategy` of `adaptive.Adaptive`.

    Raises:
      ValueError: for a tolerance out of range, an unknown method, or a last time out of range.

    Reference:
      Song et al. 2021, section 4.3 and appendix D.
    """

    def __init__(
        self,
        sde: SDE,
        *,
        rtol: float = 1e-5,
        atol: float = 1e-5,
        method: str = ode.DORMAND_PRINCE.name,
        **frame: Any,
    ):
        if method not in ode.METHODS:
            raise ValueError(f"Expected `method` to be one of {', '.join(ode.METHODS)}. Received: {method!r}.")
        super().__init__(sde, rtol=rtol, atol=atol, **frame)
        self._method = ode.METHODS[method]

    def _solve(self, score_fn: ScoreFunction, x: tf.Tensor, seeds: tf.Tensor) -> ode.Solution:
        velocity = flow_velocity(score_fn, self._sde)
        options = {"rtol": self._rtol, "atol": self._atol, "method": self._method}
        return ode.solve(velocity, x, 1.0, self._last_time, **options)

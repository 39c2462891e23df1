"""The flags that change a run's sampler; import it to have them."""

from typing import Any

from absl import flags

_EPSILON = flags.DEFINE_float("epsilon", None, "Step size at the smallest level, in place of the run's.")
_STEPS = flags.DEFINE_integer("steps_per_level", None, "Steps at each level, in place of the run's.", 1)
_LEVELS = flags.DEFINE_integer("num_levels", None, "How many of the noise levels to visit, in place of the run's.", 2)
_DENOISE = flags.DEFINE_bool("denoise", None, "End with one denoising step, in place of the run's choice.")
_XLA = flags.DEFINE_bool("jit_compile", None, "Compile with XLA, in place of the run's choice.")


def changes() -> dict[str, Any]:
    """The values of the `sampler` section that were given."""
    given = {
        "epsilon": _EPSILON.value,
        "steps_per_level": _STEPS.value,
        "num_levels": _LEVELS.value,
        "denoise": _DENOISE.value,
        "jit_compile": _XLA.value,
    }
    return {key: value for key, value in given.items() if value is not None}

"""The keys of the `sampler` section, one frozen dataclass per kind of sampler."""

import dataclasses
from typing import Any

from ncsn_tf.config import checks

GRIDS = ("uniform", "karras", "log_snr", "fitted")
LEAST_TOLERANCE = 1.2e-6
"""The least relative tolerance that float32 resolves; see `ncsn_tf.ode`."""
NORM_TIMES = 33
"""The number of times of a table of expected score norms."""
PREDICTORS = (
    "reverse_diffusion",
    "reverse_diffusion_flow",
    "euler_maruyama",
    "ancestral",
    "ancestral_transition",
    "ddim",
    "heun",
    "dpm_solver",
    "dpm_solver_sde",
    "none",
)

MOST_STEPS_PER_LEVEL = 100_000
"""The most steps per level, also in an exported model: the schedule of a walk is held in memory."""


@dataclasses.dataclass(frozen=True)
class Langevin:
    """Langevin dynamics, annealed or plain.

    Attributes:
      epsilon: the step size at the smallest level, in squared data units, as Algorithm 1 writes it.
      steps_per_level: T. Plain dynamics takes T steps per level too, all at the smallest.
      num_levels: the number of levels to visit, evenly spread from the first to the last; None for all. A run in
        continuous time has as many as are given here, evenly spread in time; None is its number of bins.
      prior: "uniform" on [0, 1), as in the paper, or "normal", the SDE's prior.
      denoise: end with one denoising step by Tweedie's formula; the paper of 2019 does not.
      jit_compile: compile the loop with XLA.
    """

    epsilon: float = 2e-5
    steps_per_level: int = 100
    num_levels: int | None = None
    prior: str = "uniform"
    denoise: bool = False
    jit_compile: bool = False

    def __post_init__(self):
        checks.positive("sampler", epsilon=self.epsilon)
        checks.at_least("sampler", 1, MOST_STEPS_PER_LEVEL, steps_per_level=self.steps_per_level)
        if self.num_levels is not None:
            checks.at_least("sampler", 2, num_levels=self.num_levels)
        checks.one_of("sampler", ("uniform", "normal"), prior=self.prior)


@dataclasses.dataclass(frozen=True)
class Walk:
    """The keys that all samplers share which walk from noise to data, starting from the SDE's prior.

    Attributes:
      num_steps: the number of steps. With noise levels at most one less than their number, and None is all; in
        continuous time None is 1,000.
      grid: the times of the walk, "uniform" in time, "karras" or "log_snr", which is uniform in log(alpha / sigma); see
        `ncsn_tf.times`. With noise levels these are the nearest levels, and "uniform" is evenly spread by their number.
        "fitted" are those that launch.calibrate found for the run, the sampler and `num_steps`.
      times: the fitted times, from 1 down to `last_time`; those of a run are put here when it is opened.
      last_time: where a walk in continuous time ends; the authors' programs take 1e-5 for VE, 1e-3 for VP and sub-VP.
        A walk along noise levels ends at the last.
      denoise: end with one denoising step by Tweedie's formula, which is one more evaluation.
      jit_compile: compile the loop with XLA.
    """

    num_steps: int | None = None
    grid: str = "uniform"
    times: tuple[float, ...] | None = None
    last_time: float = 1e-3
    denoise: bool = True
    jit_compile: bool = False

    def __post_init__(self):
        if self.num_steps is not None:
            checks.at_least("sampler", 1, 1_000_000, num_steps=self.num_steps)
        if (self.grid == "fitted") != (self.times is not None):
            raise ValueError(
                "config.sampler.grid=fitted takes the times that launch.calibrate finds for a trained run: give it to "
                f"a verb that opens one, as --grid=fitted. Received: grid={self.grid}, times={self.times}."
            )
        if self.times is not None and (self.num_steps is None or len(self.times) != self.num_steps + 1):
            raise ValueError(
                f"config.sampler.times must have num_steps + 1 times. Received: {len(self.times)} times, "
                f"num_steps={self.num_steps}."
            )
        checks.positive("sampler", last_time=self.last_time)
        checks.fraction("sampler", last_time=self.last_time)
        checks.one_of("sampler", GRIDS, grid=self.grid)

    @property
    def options(self) -> dict[str, Any]:
        """The keys of the method itself; `config.walks` makes of them what `samplers.methods.step` takes."""
        shared = {field.name for field in dataclasses.fields(Walk)}
        return {key: value for key, value in dataclasses.asdict(self).items() if key not in shared}


@dataclasses.dataclass(frozen=True)
class Ancestral(Walk):
    """Ancestral sampling, `samplers.ancestral`.

    Attributes:
      variance: "posterior", the paper's for VE, or "transition", the paper's for DDPM.
    """

    variance: str = "posterior"

    def __post_init__(self):
        super().__post_init__()
        checks.one_of("sampler", ("posterior", "transition"), variance=self.variance)


@dataclasses.dataclass(frozen=True)
class ReverseDiffusion(Walk):
    """Reverse diffusion sampling, `samplers.reverse_diffusion`.

    Attributes:
      flow: follow the probability flow, without noise.
    """

    flow: bool = False


@dataclasses.dataclass(frozen=True)
class PredictorCorrector(Walk):
    """Predictor-corrector sampling, `samplers.predictor_corrector`.

    Attributes:
      predictor: the name of another sampler, with its defaults; the paper takes "reverse_diffusion" for VE and
        "euler_maruyama" for VP. "reverse_diffusion_flow" has flow=True, "ancestral_transition" variance="transition".
        With "none" the corrector alone moves, for which `order` is best "predictor_first".
      corrector: "langevin", whose step follows from the norm of the score, or "annealed".
      norms: the norm of the Langevin corrector: "own" of each sample's score, or "expected" at its time, as
        launch.calibrate measured it for the run.
      norm_table: the expected norms, at times that are uniform in log(alpha / sigma) from 1 down to `last_time`; those
        of a run are put here when it is opened.
      ratio: the signal-to-noise ratio of the corrector, 0.16 for VE and 0.01 for VP on CIFAR-10 in the paper.
      corrections: the number of corrector steps per step.
      order: "corrector_first", as in the authors' program, or "predictor_first", as the paper writes it.
    """

    predictor: str = "reverse_diffusion"
    corrector: str = "langevin"
    ratio: float = 0.16
    corrections: int = 1
    order: str = "corrector_first"
    norms: str = "own"
    norm_table: tuple[float, ...] | None = None

    def __post_init__(self):
        super().__post_init__()
        checks.one_of("sampler", ("own", "expected"), norms=self.norms)
        if (self.norms == "expected") != (self.norm_table is not None):
            raise ValueError(
                "config.sampler.norms=expected takes the norms that launch.calibrate measures of a trained run: give "
                f"it to a verb that opens one. Received: norms={self.norms}, norm_table={self.norm_table}."
            )
        if self.norm_table is not None and (len(self.norm_table) != NORM_TIMES or min(self.norm_table) <= 0.0):
            raise ValueError(
                f"config.sampler.norm_table must have {NORM_TIMES} positive norms, as launch.calibrate measures them. "
                f"Received: {len(self.norm_table)}, the smallest {min(self.norm_table, default=None)}."
            )
        if self.norms == "expected" and self.corrector != "langevin":
            raise ValueError(
                f"config.sampler.norms=expected is for the Langevin corrector. Received: corrector={self.corrector}."
            )
        checks.one_of("sampler", PREDICTORS, predictor=self.predictor)
        checks.one_of("sampler", ("langevin", "annealed"), corrector=self.corrector)
        checks.one_of("sampler", ("corrector_first", "predictor_first"), order=self.order)
        checks.positive("sampler", ratio=self.ratio)
        checks.at_least("sampler", 1, 1_000, corrections=self.corrections)


@dataclasses.dataclass(frozen=True)
class Heun(Walk):
    """Heun's method for the probability flow, `samplers.heun`; two evaluations per step.

    Attributes:
      churn: S_churn of Karras et al. 2022, of all steps together; 0 for the deterministic method.
      churn_from: S_min, the smallest noise ratio sigma / alpha at which noise is added.
      churn_to: S_max, the largest.
      inflation: S_noise, the standard deviation of that noise.
    """

    churn: float = 0.0
    churn_from: float = 0.0
    churn_to: float = 1e9
    inflation: float = 1.0

    def __post_init__(self):
        super().__post_init__()
        numbers = {name: getattr(self, name) for name in ("churn", "churn_from", "churn_to", "inflation")}
        checks.at_least("sampler", 0.0, 1e9, **numbers)


@dataclasses.dataclass(frozen=True)
class DPMSolverSDE(Walk):
    """DPM-Solver++(2M) for the reverse SDE, `samplers.dpm_solver`.

    Attributes:
      eta: the strength of the noise; 1 is the reverse SDE, 0 the probability flow.
    """

    eta: float = 1.0

    def __post_init__(self):
        super().__post_init__()
        checks.at_least("sampler", 0.0, 10.0, eta=self.eta)


@dataclasses.dataclass(frozen=True)
class UniPC(Walk):
    """UniPC, `samplers.unipc`.

    Attributes:
      order: p, the number of values of the predictor, 1 to 3.
      correct: whether to correct, which costs no evaluation.
    """

    order: int = 3
    correct: bool = True

    def __post_init__(self):
        super().__post_init__()
        checks.at_least("sampler", 1, 3, order=self.order)


@dataclasses.dataclass(frozen=True)
class AdamsBashforth(Walk):
    """Adams-Bashforth methods for the probability flow, `samplers.adams_bashforth`.

    Attributes:
      order: the number of values, 1 to 4.
      clock: the variable of the polynomial: "noise_ratio", "log_noise_ratio" or "time".
      weights: "exact", or "fixed" for iPNDM.
    """

    order: int = 3
    clock: str = "noise_ratio"
    weights: str = "exact"

    def __post_init__(self):
        super().__post_init__()
        checks.at_least("sampler", 1, 4, order=self.order)
        checks.one_of("sampler", ("noise_ratio", "log_noise_ratio", "time"), clock=self.clock)
        checks.one_of("sampler", ("exact", "fixed"), weights=self.weights)


@dataclasses.dataclass(frozen=True)
class Adaptive:
    """The keys that all samplers with error control share, `samplers.adaptive`, in continuous time.

    Attributes:
      last_time: where the walk ends; the authors' programs take 1e-5 for VE, 1e-3 for VP and sub-VP.
      rtol: the relative tolerance.
      atol: the absolute tolerance, in units of the SDE's data.
      denoise: end with one denoising step by Tweedie's formula, which is one more evaluation.
      jit_compile: compile the solver with XLA.
    """

    last_time: float = 1e-3
    rtol: float = 1e-5
    atol: float = 1e-5
    denoise: bool = True
    jit_compile: bool = False

    def __post_init__(self):
        checks.positive("sampler", last_time=self.last_time, atol=self.atol)
        checks.fraction("sampler", last_time=self.last_time)
        checks.at_least("sampler", LEAST_TOLERANCE, 0.999, rtol=self.rtol)

    @property
    def options(self) -> dict[str, Any]:
        """The keys of the method itself, as the samplers of `samplers.methods.ADAPTIVE` take them."""
        return {key: value for key, value in dataclasses.asdict(self).items() if key not in ("denoise", "jit_compile")}


@dataclasses.dataclass(frozen=True)
class ProbabilityFlow(Adaptive):
    """The probability flow with error control, `samplers.adaptive_flow`; the paper's tolerances are 1e-5.

    Attributes:
      method: "dormand_prince", of order 5(4), or "bogacki_shampine", of order 3(2).
    """

    method: str = "dormand_prince"

    def __post_init__(self):
        super().__post_init__()
        checks.one_of("sampler", ("dormand_prince", "bogacki_shampine"), method=self.method)


@dataclasses.dataclass(frozen=True)
class AdaptiveSDE(Adaptive):
    """The reverse-time SDE with error control, `samplers.adaptive_sde`, with tolerances of the paper's kind."""

    rtol: float = 0.02
    atol: float = 0.0078


WALKS: dict[str, type[Walk]] = {
    "ancestral": Ancestral,
    "euler_maruyama": Walk,
    "reverse_diffusion": ReverseDiffusion,
    "predictor_corrector": PredictorCorrector,
    "ddim": Walk,
    "heun": Heun,
    "dpm_solver": Walk,
    "dpm_solver_sde": DPMSolverSDE,
    "unipc": UniPC,
    "adams_bashforth": AdamsBashforth,
}
"""The samplers that walk from noise to data, by name; `samplers.methods` has their steps."""

ADAPTIVE: dict[str, type[Adaptive]] = {
    "probability_flow": ProbabilityFlow,
    "adaptive_sde": AdaptiveSDE,
}
"""The samplers that choose their own steps, by name; `samplers.methods` has them."""

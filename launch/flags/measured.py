"""The flags and the course of verbs that restore images from a linear measurement."""

import dataclasses
import pathlib
import time
from typing import TYPE_CHECKING, Any

import numpy as np
from absl import flags

from . import cli, restoration, run

if TYPE_CHECKING:
    from ncsn_tf.guidance.measurements import Measurement
    from ncsn_tf.runs import TrainedRun
    from ncsn_tf.samplers.store import Drawn

flags.disclaim_key_flags()  # a flag belongs to the module that calls `define`


@dataclasses.dataclass(frozen=True)
class Measured:
    """The flags, defined, beside those of an opened run and of its images."""

    run: run.OpenedRun
    given: restoration.Restoration
    noise: flags.FlagHolder
    method: flags.FlagHolder

    def restore(self, kind: str, text: str) -> None:
        """Measures images as a text says, restores them, and writes KIND.png, KIND.npz and about.json."""
        from ncsn_tf.data import pipeline
        from ncsn_tf.guidance import measuring, restoring

        with self.run.devices.using() as strategy:
            with cli.usage_errors():
                name, options = restoring.options(str(self.method.value))
                projects = restoring.projects(name)
                opened = self.run.open_for_steps(strategy, name) if projects else self.run.open(strategy)
                measurement = restoring.measurement(text, opened.shape, self.run.seed.value)
                builder, noise = opened.builder, float(self.noise.value)
                low, high = builder.value_range.low, builder.value_range.high
                guidance = restoring.make(name, builder.sde, measurement, noise * (high - low), **options)
                restoring.check_sampler(name, opened.builder.sampler_key["name"])
                original = self.given.original(opened)
                y = measuring.measure(pipeline.to_float(original), measurement, noise, run_seed=self.run.seed.value)
                encoded = measuring.encode(y, measurement, low, high)
                own = {"measurement": text, "noise": noise, "method": name, "options": options}
                key = self.given.key(opened, {"measured": y}, **own)
                output = self.run.folder(opened, kind, key)
                self.given.announce(opened, len(original))
                if not self.run.prepare(opened, output):
                    return
            begun = time.perf_counter()
            end = measuring.put_back(measurement) if restoring.ends_exact(guidance) else None
            drawn = self.given.draw(opened, output, key, (encoded,), guidance, end)
        if drawn is not None:
            self._write(opened, output, kind, measurement, original, y, drawn, own, time.perf_counter() - begun)

    def _write(
        self,
        opened: "TrainedRun",
        output: pathlib.Path,
        kind: str,
        measurement: "Measurement",
        original: np.ndarray,
        y: np.ndarray,
        drawn: "Drawn",
        own: dict[str, Any],
        seconds: float,
    ) -> None:
        from ncsn_tf.data import pipeline
        from ncsn_tf.guidance import measuring

        images, floats, each = pipeline.to_float(original), drawn.floats, self.given.completions.value
        assert floats is not None
        given = pipeline.to_uint8(measuring.shown(y, measurement))
        self.given.save(opened, output, kind, given, drawn, original, {"measured": y})
        found = measuring.quality(floats, images, y, measurement, each)
        missing = 1.0 - float(np.mean(measurement.singular_values > 0.0))
        self.given.record(opened, output, drawn, missing or 1.0, seconds, **own, **found)
        print(
            f"Peak signal-to-noise ratio {found['psnr']:.2f} dB, of the mean of the completions "
            f"{found['psnr_of_mean']:.2f} dB; the measurement is missed by {found['residual']:.4g}, "
            f"by the originals by {found['residual_of_original']:.4g} (root mean squares)"
        )
        print(f"Picture and arrays: {output}")


def define(opened: run.OpenedRun, given: restoration.Restoration) -> Measured:
    """Defines --noise and --method."""
    return Measured(
        run=opened,
        given=given,
        noise=flags.DEFINE_float(
            "noise", 0.0, "The standard deviation of the measurement's noise, for images from 0 to 1.", 0.0
        ),
        method=flags.DEFINE_string(
            "method",
            "replacement",
            "How to restore: replacement, pigdm or dps, with options as NAME,KEY=VALUE,...: pigdm,data_deviation=0.5. "
            "docs/guidance.md describes them.",
        ),
    )

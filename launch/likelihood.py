"""Measures the likelihood of held-out images: python -m launch.likelihood --workdir=runs/vp --num_images=100

Solves the probability flow from each uniformly dequantized image to its latent code (Song et al. 2021, section 4.3),
for runs in continuous time. Prints nats and bits per dimension with their standard errors, and writes into --output, by
default a folder under the run's likelihood/:
  likelihood.json   the means, their errors, the offset of the bits, and everything that is needed to repeat it
  likelihood.npz    nats and bits_per_dimension [images, dequantizations, probes], evaluations [images, dequantizations]
"""

if not __package__:
    __import__("flags.started_as_file")  # ends with the line that says how a launcher is started

import warnings
from typing import Any

from absl import flags

from .flags import cli, evaluator, flow

_FLAGS = flow.define("likelihood", "the dequantization and of the probes", None)
_DEQUANTIZATIONS, _PROBES = flow.define_repeats(default=1)
_EXACT = flags.DEFINE_bool("exact", False, "Compute the trace itself: for small images.")


def main() -> None:
    """Measures likelihoods."""
    from ncsn_tf import flow_jobs, ode

    with cli.usage_errors():
        opened = _FLAGS.open("The likelihood")
        if _EXACT.value and _PROBES.present:
            raise ValueError("--exact computes the trace without probes: leave out --exact or --probes.")
        builder, images = opened.builder, _FLAGS.images(opened)
        output = _FLAGS.folder(opened, "likelihood", "likelihood.json", "a measurement")
        print(f"{len(images)} images {opened.shape} of {builder.data_name}, {_FLAGS.split.value}; step {opened.step}")
        for caveat in flow_jobs.likelihood_caveats(opened):
            warnings.warn(caveat, stacklevel=2)
        if _FLAGS.dry_run.value:
            print(f"Dry run: would write into {output}")
            return
    options = _FLAGS.options() | ({"exact": True} if _EXACT.value else {"probes": _PROBES.value})
    try:
        with evaluator.progress() as show:
            content = flow_jobs.measure_likelihood(
                opened,
                images,
                output,
                about=_FLAGS.record(opened),
                seed=_FLAGS.seed.value,
                batch_size=_FLAGS.batch_size.value,
                dequantizations=_DEQUANTIZATIONS.value,
                options=options,
                jit_compile=_FLAGS.jit_compile.value,
                progress=show,
            )
    except ode.NotConvergedError as error:
        cli.fail(error, cli.FAILURE)
    _print(content)
    print(f"Results: {output}")


def _print(content: dict[str, Any]) -> None:
    """Prints the means with their errors, and what the bits rest on."""
    for name, unit in (("nats", "nats"), ("bits_per_dimension", "bits per dimension")):
        value = content[name]
        error = "" if value["standard_error"] is None else f" +- {value['standard_error']:.2g}"
        print(f"{value['mean']:.4f}{error} {unit}")
    print(
        f"Offset: {content['offset_bits']:g} bits, of bytes dequantized as (k + u) / 256; "
        f"{content['score_evaluations_per_image']:.0f} evaluations per image"
    )


def entry_point() -> None:
    """Entry point of `ncsn-likelihood`."""
    cli.run(main)


if __name__ == "__main__":
    entry_point()

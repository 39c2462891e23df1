"""Ends a program on all workers of a cluster together."""

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from . import cli

if TYPE_CHECKING:
    import tensorflow as tf


@contextlib.contextmanager
def usage_errors_of_any(strategy: "tf.distribute.Strategy") -> Iterator[None]:
    """Within it, a usage error of one worker ends all of them; see `cli.usage_errors`."""
    try:
        with cli.usage_errors():
            yield
    except SystemExit as ending:
        end_together(strategy, int(str(ending.code)))
        raise
    end_together(strategy, 0)


def end_together(strategy: "tf.distribute.Strategy", code: int) -> None:
    """Tells the other workers this one's exit code, 0 to continue; ends with the code of another one if it failed.

    A worker that just exits would count as lost, and an orchestrator would restart a job that fails again.
    """
    from ncsn_tf.cluster import strategies

    failures = (cli.FAILURE, cli.USAGE_ERROR)
    for other, theirs in enumerate(strategies.exchange_codes(strategy, code)):
        if theirs in failures and code not in failures:
            cli.fail(f"Worker {other} ended with code {theirs}: its log says why.", theirs)

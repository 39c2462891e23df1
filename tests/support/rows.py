"""Blocks of rows that need no score: the sampler returns its start."""

from ncsn_tf.samplers import store
from ncsn_tf.samplers.blocks import BlockSampler
from ncsn_tf.samplers.driver import NO_GUIDANCE, Samples


class Still:
    """A sampler that returns where it starts; its evaluations are what it is given."""

    segments = 1

    def __call__(self, score_fn, x, seeds, guidance=NO_GUIDANCE, given=(), on_frame=None):
        if on_frame is not None:
            on_frame(1, x)
        return Samples(x, given[0])


def blocks(strategy, draw_rows, *, block=4, workers=1):
    """Blocks of the rows that `draw_rows(numbers) -> (x, evaluations)` describes."""

    def start(numbers):
        x, evaluations = draw_rows(numbers)
        return numbers, x, (evaluations,)

    return BlockSampler(Still(), None, start, block=block, strategy=strategy, workers=workers)


def fill(drawn_by, rows, done, count, quantise, on_round=lambda rows: None):
    """`store.fill` from a block sampler, or anything that has its `draw`, `block` and `replicas`."""
    layout = {"block": drawn_by.block, "replicas": drawn_by.replicas}
    store.fill(drawn_by.draw, rows, done, count, **layout, quantise=quantise, on_round=on_round)

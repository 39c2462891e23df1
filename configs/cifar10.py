"""NCSN on CIFAR-10, as the paper trains it.

Command:  python -m launch.train --config=configs/cifar10.py --workdir=runs/cifar10 --data_dir=DIR
Hardware: the paper does not say; meant for one host with several GPUs.
Time:     not measured.
Result:   not measured. The paper reports an Inception score of 8.87 and an FID of 25.32.
"""

from ncsn_tf.config import sections


def _ncsn(config):
    """The paper's configuration; images are mirrored at random, as the official program does."""
    config.data.name = "cifar10"
    config.data.random_flip = True


VARIANTS = {"ncsn": _ncsn}


def get_config(variant="ncsn"):
    """The configuration of a variant."""
    return sections.variant(VARIANTS, variant)

"""NCSN on CelebA at 32x32, as the paper trains it.

Command:  python -m launch.train --config=configs/celeba.py --workdir=runs/celeba --data_dir=DIR
Hardware: the paper does not say; meant for one host with several GPUs.
Time:     not measured.
Result:   not measured. The paper reports no score for CelebA.
"""

from ncsn_tf.config import sections


def _ncsn(config):
    """The paper's configuration; faces are cut to 140 pixels, resized, and mirrored at random."""
    config.data.name = "celeb_a"
    config.data.center_crop = 140
    config.data.image_size = 32
    config.data.random_flip = True


VARIANTS = {"ncsn": _ncsn}


def get_config(variant="ncsn"):
    """The configuration of a variant."""
    return sections.variant(VARIANTS, variant)

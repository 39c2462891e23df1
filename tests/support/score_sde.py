"""The tensors of score_sde's U-Nets, listed as its program orders them, and checkpoints as its training writes them."""

import numpy as np
import torch

SIGMAS = (50.0, 0.01, 1000)


def _named(**layers):
    """The tensors of a module: `_named(Conv_0=(8, 4, 3, 3))` has Conv_0.weight and Conv_0.bias."""
    tensors = {}
    for name, shape in layers.items():
        kinds = ("W", "b") if name.startswith("NIN") else ("weight", "bias")
        tensors |= {f"{name}.{kinds[0]}": shape, f"{name}.{kinds[1]}": shape[-1:] if kinds[0] == "W" else shape[:1]}
    return tensors


def _plain(*shape):
    return {"weight": shape, "bias": shape[:1]}


def _block(before, after, embedding, kind, resamples=False):
    layers = {"GroupNorm_0": (before,), "Conv_0": (after, before, 3, 3), "Dense_0": (after, embedding)}
    layers |= {"GroupNorm_1": (after,), "Conv_1": (after, after, 3, 3)}
    if kind == "biggan" and (resamples or before != after):
        layers["Conv_2"] = (after, before, 1, 1)
    elif before != after:
        layers["NIN_0"] = (before, after)
    return _named(**layers)


def attention_block(width):
    return _named(GroupNorm_0=(width,), **{f"NIN_{number}": (width, width) for number in range(4)})


def shapes(
    *,
    filters=4,
    multipliers=(1, 2),
    blocks=1,
    attention=(1,),
    block="biggan",
    fir=False,
    convolve=True,
    inputs="none",
    outputs="none",
    combiner="sum",
    fourier=True,
    conditional=True,
    channels=3,
):
    """The shapes of the program's tensors by name; `attention` has levels, 0 the finest."""
    modules, embedding = [], 4 * filters

    def resampled(before, after, convolves=True):
        modules.append(_named(**{"Conv2d_0" if fir else "Conv_0": (after, before, 3, 3)}) if convolves else {})

    def changed(width):
        if block == "biggan":
            modules.append(_block(width, width, embedding, block, resamples=True))
        else:
            resampled(width, width, convolve)

    def ended(width, after):
        modules.extend([_plain(width), _plain(after, width, 3, 3)])

    if fourier:
        modules.append({"W": (filters,)})
    if conditional:
        modules.append(_plain(embedding, 2 * filters if fourier else filters))
        modules.append(_plain(embedding, embedding))
    modules.append(_plain(filters, channels, 3, 3))
    width, pyramid, skips, last = filters, channels, [filters], len(multipliers) - 1
    for level, multiplier in enumerate(multipliers):
        for _ in range(blocks):
            modules.append(_block(width, filters * multiplier, embedding, block))
            width = filters * multiplier
            modules.extend([attention_block(width)] * (level in attention))
            skips.append(width)
        if level < last:
            changed(width)
            if inputs == "input_skip":
                modules.append(_named(Conv_0=(width, channels, 1, 1)))
                width *= 2 if combiner == "cat" else 1
            elif inputs == "residual":
                resampled(pyramid, width)
                pyramid = width
            skips.append(width)
    modules += [_block(width, width, embedding, block), attention_block(width), _block(width, width, embedding, block)]
    for level in range(last, -1, -1):
        for _ in range(blocks + 1):
            modules.append(_block(width + skips.pop(), filters * multipliers[level], embedding, block))
            width = filters * multipliers[level]
        modules.extend([attention_block(width)] * (level in attention))
        if outputs == "output_skip":
            ended(width, channels)
        elif outputs == "residual":
            if level == last:
                ended(width, width)
            else:
                resampled(pyramid, width)
            pyramid = width
        if level:
            changed(width)
    if outputs != "output_skip":
        ended(width, channels)
    numbered = [(f"all_modules.{number}", module) for number, module in enumerate(modules)]
    return {f"{prefix}.{name}": shape for prefix, module in numbered for name, shape in module.items()}


def checkpoint(path, sigmas=SIGMAS, average=1.0, changes=None, **options):
    """Writes a checkpoint of small random weights; returns the raw tensors by name.

    Args:
      path: the file.
      sigmas: the largest and the smallest noise level, and their number; None for a file without.
      average: what the averaged weights exceed the raw ones by.
      changes: called with the dict of tensors before they are written.
      **options: of `shapes`.
    """
    random = torch.Generator().manual_seed(0)
    listed = shapes(**options)
    tensors = {name: 0.1 * torch.randn(shape, generator=random) for name, shape in listed.items()}
    if changes is not None:
        changes(tensors)
    state = {f"module.{name}": tensor for name, tensor in tensors.items()}
    if sigmas is not None:
        largest, smallest, number = (torch.tensor(value, dtype=torch.float64) for value in sigmas)
        levels = torch.exp(torch.linspace(torch.log(largest), torch.log(smallest), int(number), dtype=torch.float64))
        state = {"module.sigmas": levels, **state}
    shadow = [tensor + average for name, tensor in tensors.items() if name != "all_modules.0.W"]
    ema = {"decay": 0.999, "num_updates": 3, "shadow_params": shadow}
    optimizer = {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": np.float64(2e-4), "params": [0]}]}
    torch.save({"optimizer": optimizer, "model": state, "ema": ema, "step": 3}, path)
    return tensors

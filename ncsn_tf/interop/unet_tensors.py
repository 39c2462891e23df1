"""Reads the architecture of a U-Net of score_sde off its tensors.

The program keeps its layers in one list, `all_modules`, in the order in which they run. A letter stands for each: F
Fourier features, D dense, V convolution, B residual block, S residual block that resamples, A attention, R resampling
with a convolution, C combination with the input's pyramid, N normalisation, and a dot for a number without tensors,
which is a resampling without a convolution. Runs of B and A are levels; what is between them changes the resolution.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence

from ncsn_tf.interop.torch_files import CheckpointFormatError, few

Shape = tuple[int, ...]

_NAME = re.compile(r"all_modules\.(\d+)\.(.+)")
# The letter of a module that holds one of the tensors; the first line that fits counts.
_LETTERS = (
    ("A", ("NIN_1.W", "NIN_2.W", "NIN_3.W", "NIN_1.b", "NIN_2.b", "NIN_3.b")),
    ("B", ("GroupNorm_1.weight", "Conv_1.weight", "Dense_0.weight", "GroupNorm_1.bias", "Conv_1.bias")),
    ("R", ("Conv2d_0.weight", "Conv2d_0.bias")),
    ("F", ("W",)),
)


@dataclasses.dataclass(frozen=True)
class Architecture:
    """The part of an architecture that the tensors tell; None where they do not.

    Attributes:
      channels: image channels.
      filters: width of the first convolution.
      multipliers: the widths of the levels, as multiples of `filters`.
      blocks: residual blocks per level on the way down.
      attention: the levels with attention, counted from the finest, which is 0.
      block: "biggan" or "ddpm".
      fir: whether resampling is by FIR filters.
      resampling_convolution: whether a resampling that is no block has a convolution.
      progressive_input: "none", "input_skip" or "residual".
      progressive_output: "none", "output_skip" or "residual".
      combiner: "sum" or "cat".
      embedding: "fourier" or "positional".
      conditional: whether the network is told the time.
    """

    channels: int
    filters: int
    multipliers: tuple[int, ...]
    blocks: int
    attention: tuple[int, ...]
    block: str
    fir: bool | None
    resampling_convolution: bool | None
    progressive_input: str | None
    progressive_output: str | None
    combiner: str | None
    embedding: str
    conditional: bool

    @property
    def pyramids(self) -> bool:
        """Whether the input or the output is processed at every level."""
        return not {self.progressive_input, self.progressive_output} <= {"none", None}


@dataclasses.dataclass(frozen=True)
class _Module:
    number: int
    letter: str
    tensors: Mapping[str, Shape]

    def width(self, axis: int, *names: str) -> int:
        """A side of the first of these tensors that is there."""
        for name in names:
            if len(self.tensors.get(name, ())) > axis:
                return self.tensors[name][axis]
        raise CheckpointFormatError(f"all_modules.{self.number} has none of the tensors {', '.join(names)}.")

    @property
    def in_filters(self) -> int:
        return self.width(0, "GroupNorm_0.weight", "GroupNorm_0.bias")

    @property
    def filters(self) -> int:
        return self.width(0, "Conv_1.weight", "GroupNorm_1.weight", "Conv_0.weight", "Conv_1.bias")


def architecture(shapes: Mapping[str, Shape]) -> Architecture:
    """Reads an architecture.

    Args:
      shapes: the shapes of the tensors, by name without prefix.

    Raises:
      CheckpointFormatError: if the modules are not those of such a U-Net; the message says where the reading stopped.
    """
    modules = _modules(shapes)
    head = re.match(r"(F?)(DD)?V", _letters(modules))
    if head is None:
        raise _unknown(modules[0], "Fourier features, dense layers or a convolution at the start")
    first = modules[head.end() - 1]
    levels, changes = _levels(modules[head.end() :])
    depth = len(levels) // 2 + 1
    down, middle = levels[: depth - 1], levels[depth - 1]
    filters, blocks = first.width(0, "weight", "bias"), _blocks(levels)
    widths = [level[0].filters for level in (*down, middle)]
    if any(width % filters for width in widths):
        raise CheckpointFormatError(f"The widths of the levels must be multiples of {filters}. Received: {widths}.")
    progressive_input, combiner = _input(levels, changes[: depth - 1])
    attended = ["A" in _letters(level) for level in down] + [_letters(middle).count("A") > 1]
    return Architecture(
        channels=first.width(1, "weight"),
        filters=filters,
        multipliers=tuple(width // filters for width in widths),
        blocks=blocks,
        attention=tuple(number for number, attends in enumerate(attended) if attends),
        block=_block(modules),
        fir=_fir(modules),
        resampling_convolution={"R": True, ".": False}.get(_letters(changes[0])[0]),
        progressive_input=progressive_input,
        progressive_output=_output(changes[depth - 1 :]),
        combiner=combiner,
        embedding="fourier" if head[1] else "positional",
        conditional=head[2] is not None,
    )


def _modules(shapes: Mapping[str, Shape]) -> list[_Module]:
    """The modules in their order, with a dot for each number between them that has no tensors."""
    tensors: dict[int, dict[str, Shape]] = {}
    for name, shape in shapes.items():
        if found := _NAME.fullmatch(name):
            tensors.setdefault(int(found[1]), {})[found[2]] = shape
    if not tensors:
        raise CheckpointFormatError("There are no tensors of all_modules.")
    held = [(number, tensors.get(number, {})) for number in range(max(tensors) + 1)]
    return [_Module(number, _letter(names), names) for number, names in held]


def _letter(tensors: Mapping[str, Shape]) -> str:
    if not tensors:
        return "."
    letter = next((letter for letter, names in _LETTERS if any(name in tensors for name in names)), None)
    if letter == "B":
        before, after = tensors.get("GroupNorm_0.weight", (0,)), tensors.get("Conv_1.weight", (1,))
        # A block that keeps its width has a convolution in its shortcut only to change the resolution.
        return "S" if before[0] == after[0] and "Conv_2.weight" in tensors else "B"
    if letter is None and "Conv_0.weight" in tensors:
        letter = "C" if tensors["Conv_0.weight"][2:] == (1, 1) else "R"
    return letter or {1: "N", 2: "D", 4: "V"}.get(len(tensors.get("weight", ())), "?")


def _letters(modules: Sequence[_Module]) -> str:
    return "".join(module.letter for module in modules)


def _levels(modules: Sequence[_Module]) -> tuple[list[list[_Module]], list[list[_Module]]]:
    """Divides the modules after the first convolution into levels and the change after each: (levels, changes)."""
    runs = list(re.finditer(r"([BA]+)([^BA]*)", _letters(modules)))
    depth = len(runs) // 2 + 1
    for number, run in enumerate(runs):
        last = number == len(runs) - 1
        change = r"(NV|R)?NV" if last else r"[SR.][CR]?" if number < depth - 1 else r"(NV|R)?[SR.]"
        if not (run[1].startswith("B") and re.fullmatch(change, run[2])):
            raise _unknown(modules[run.start(2) if run[2] else run.start()], "levels of residual blocks, down and up")
    if not runs or runs[0].start() != 0 or len(runs) % 2 == 0:
        raise _unknown(modules[0] if modules else None, "as many levels of residual blocks on the way down as up")
    divided = [[list(modules[slice(*run.span(part))]) for run in runs] for part in (1, 2)]
    return divided[0], divided[1]


def _blocks(levels: Sequence[Sequence[_Module]]) -> int:
    """n, the residual blocks per level on the way down."""
    counts = [_letters(level).count("B") for level in levels]
    depth = len(levels) // 2 + 1
    blocks = counts[0] if depth > 1 else (counts[0] - 3) // 2
    if blocks < 1 or counts != [blocks] * (depth - 1) + [2 * blocks + 3] + [blocks + 1] * (depth - 1):
        raise CheckpointFormatError(
            "Expected n residual blocks per level on the way down, 2 n + 3 in the last, n + 1 per level on the way up. "
            f"Received: {', '.join(map(str, counts))}."
        )
    return blocks


def _block(modules: Sequence[_Module]) -> str:
    """The kind of the residual blocks, which their shortcuts tell."""
    shortcuts = [name for module in modules if module.letter in "BS" for name in module.tensors]
    kinds = {"biggan": "Conv_2.weight" in shortcuts, "ddpm": "NIN_0.W" in shortcuts}
    if list(kinds.values()).count(True) != 1:
        raise CheckpointFormatError("Expected shortcuts of residual blocks to be all Conv_2 or all NIN_0.")
    return "biggan" if kinds["biggan"] else "ddpm"


def _fir(modules: Sequence[_Module]) -> bool | None:
    resampling = [module for module in modules if module.letter == "R"]
    return any(name.startswith("Conv2d_0") for name in resampling[0].tensors) if resampling else None


def _input(levels: Sequence[Sequence[_Module]], changes: Sequence[Sequence[_Module]]) -> tuple[str | None, str | None]:
    """(progressive_input, combiner)."""
    if not changes:
        return None, None
    if len(changes[0]) == 1:
        return "none", None
    if changes[0][1].letter == "R":
        return "residual", None
    combined = changes[0][1].width(0, "Conv_0.weight", "Conv_0.bias")
    return "input_skip", "cat" if levels[1][0].in_filters == 2 * combined else "sum"


def _output(changes: Sequence[Sequence[_Module]]) -> str | None:
    """progressive_output, from the changes on the way up and the end."""
    if len(changes) == 1:
        return "residual" if _letters(changes[0]) == "NVNV" else None  # with one level, "none" is "output_skip"
    if not _letters(changes[0]).startswith("N"):
        return "none"
    return "residual" if _letters(changes[-1]).startswith("R") else "output_skip"


def _unknown(module: _Module | None, expected: str) -> CheckpointFormatError:
    held = f"all_modules.{module.number} has {few(list(module.tensors)) or 'no tensors'}" if module else "nothing"
    return CheckpointFormatError(
        f"The modules are not those of a U-Net of score_sde. Expected {expected}. Received: {held}."
    )

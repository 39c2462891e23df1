"""The flags of verbs that draw completions of given images, and what these verbs share."""

import dataclasses
import pathlib
import zlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from absl import flags

from . import paths, run

if TYPE_CHECKING:
    from ncsn_tf.runs import TrainedRun
    from ncsn_tf.samplers.store import Drawn

flags.disclaim_key_flags()  # a flag belongs to the module that calls `define`

SPLITS = ("held_out", "train")


@dataclasses.dataclass(frozen=True)
class Restoration:
    """The flags, defined, beside those of an opened run."""

    run: run.OpenedRun
    images: flags.FlagHolder
    num_images: flags.FlagHolder
    completions: flags.FlagHolder
    batch_size: flags.FlagHolder

    def original(self, opened: "TrainedRun") -> np.ndarray:
        """The images of the flags, uint8 [N, H, W, C]; raises ValueError if they do not have the run's size."""
        from ncsn_tf.evaluation import image_files

        if self.images.value in SPLITS:
            found = opened.builder.load_images(self.images.value).images
        else:
            found = image_files.read(str(self.images.value), fit=opened.shape).images
        if found.shape[1:] != opened.shape:
            raise ValueError(
                f"The run is on images {opened.shape}, those of {self.images.value} are {found.shape[1:]}."
            )
        return np.asarray(found[: self.num_images.value])

    def block(self, count: int) -> int:
        """The completions of `count` images that a device draws at a time."""
        return min(self.batch_size.value, count * self.completions.value)

    def key(self, opened: "TrainedRun", given: Mapping[str, np.ndarray], **own: Any) -> dict[str, Any]:
        """The sampling key of completions of the given arrays, [N, ...] each, which it holds by their checksums."""
        (count,) = {len(part) for part in given.values()}
        return {
            **opened.sampling_key(self.run.seed.value, self.block(count)),
            "completions": self.completions.value,
            **own,
            **{name: zlib.crc32(np.ascontiguousarray(part).data) for name, part in given.items()},
        }

    def announce(self, opened: "TrainedRun", count: int) -> None:
        """Prints the first line of a verb."""
        print(f"{count} images {opened.shape}, {self.completions.value} completions each, of {opened.directory.path}")

    def draw(
        self, opened: "TrainedRun", output: pathlib.Path, key: Mapping[str, Any], given: tuple, guidance: Any, end: Any
    ) -> "Drawn | None":
        """The completions, row by row, from the given arrays; None on workers other than the chief."""
        from ncsn_tf.guidance import starts

        completions = self.completions.value
        count, block = len(given[0]) * completions, self.block(len(given[0]))
        options = {"run_seed": self.run.seed.value, "completions": completions}

        def start(numbers: Any) -> Any:
            return starts.completions_of(numbers, given, opened.shape, opened.builder.prior, **options)

        drawn_by = opened.block_sampler(start, block, guidance=guidance, end=end)
        rounds = -(-count // (block * opened.strategy.num_replicas_in_sync))
        with (
            run.levels_shown(rounds * opened.sampler.segments) as bar,
            self.run.stored(opened, output, key) as rows,
        ):
            opened.fill(rows, drawn_by, count, on_frame=lambda *_: bar.update())
            return None if rows is None else rows.finish(count)

    def save(
        self,
        opened: "TrainedRun",
        output: pathlib.Path,
        name: str,
        pictures_given: np.ndarray,
        drawn: "Drawn",
        original: np.ndarray,
        arrays: Mapping[str, np.ndarray],
    ) -> None:
        """Writes NAME.png, one row per image: given, its completions, original; and NAME.npz, with further arrays."""
        from ncsn_tf import files, pictures

        floats: Any = drawn.floats
        pixels = drawn.pixels.reshape(len(original), self.completions.value, *opened.shape)
        rows = np.concatenate([pictures_given[:, None], pixels, original[:, None]], axis=1)
        pictures.save_grid(output / f"{name}.png", rows.reshape(-1, *opened.shape), columns=rows.shape[1])
        found = {"samples": pixels, "samples_float": floats.reshape(pixels.shape), "original": original}
        files.write_npz_arrays(output / f"{name}.npz", {**found, **arrays})

    def record(
        self, opened: "TrainedRun", output: pathlib.Path, drawn: "Drawn", share: float, seconds: float, **own: Any
    ) -> None:
        """Writes about.json; `share` is that of the values that were drawn, not given."""
        from ncsn_tf import files

        about = {
            "images": self.images.value,
            **own,
            "score_evaluations_per_sample": drawn.evaluations,
            "warnings": self.run.caveats(drawn, share),
            "seconds": round(seconds, 1),
            **self.run.record(opened),
        }
        files.write_json(output / run.ABOUT, about)


def define(opened: run.OpenedRun) -> Restoration:
    """Defines --images, --num_images, --completions and --batch_size."""
    return Restoration(
        run=opened,
        images=paths.define(
            "images",
            SPLITS[0],
            "held_out or train, of the run's data; or a folder of images, one picture, an .npz or .npy.",
            words=SPLITS,
        ),
        num_images=flags.DEFINE_integer("num_images", 8, "How many images, the first ones.", 1),
        completions=flags.DEFINE_integer("completions", 6, "How many completions of each.", 1),
        batch_size=flags.DEFINE_integer("batch_size", 100, "How many completions a device draws at a time.", 1),
    )

"""The flags of samples of classes."""

import dataclasses
import re
from typing import TYPE_CHECKING

from absl import flags

from . import paths

if TYPE_CHECKING:
    from ncsn_tf.runs import TrainedRun


@dataclasses.dataclass(frozen=True)
class Classes:
    """The flags of classes, defined."""

    labels: flags.FlagHolder
    guidance_scale: flags.FlagHolder
    classifier: flags.FlagHolder

    def given(self) -> list[str]:
        """The names of the flags that were given."""
        names = [field.name for field in dataclasses.fields(self)]
        return [name for name in names if getattr(self, name).value is not None]

    def chosen(self, run: "TrainedRun") -> "TrainedRun":
        """The run, whose samples are of the classes of the flags if there are any.

        Raises:
          ValueError: for labels that are no integers or that there are not, an impossible scale, flags without
            --labels, a classifier that does not fit, or a run without classes and no classifier.
        """
        others = [name for name in self.given() if name != "labels"]
        if self.labels.value is None and others:
            raise ValueError(f"--{others[0]} guides to classes: give --labels as well, such as --labels=0,1,2.")
        if self.labels.value is None:
            return run
        scale = 1.0 if self.guidance_scale.value is None else self.guidance_scale.value
        return run.of_classes(self._labels(), scale, self.classifier.value)

    def suffix(self) -> str:
        """What a default folder of samples has in its name beside the step and the seed: "" without classes."""
        if self.labels.value is None:
            return ""
        scale = "" if self.guidance_scale.value is None else f"_scale_{self.guidance_scale.value:g}"
        return f"_labels_{'-'.join(text.strip() for text in self.labels.value)}{scale}"

    def _labels(self) -> list[int]:
        texts = [text.strip() for text in self.labels.value]
        if not texts or not all(re.fullmatch("-?[0-9]{1,9}", text) for text in texts):
            raise ValueError(
                "--labels takes classes, integers with commas between them, such as 0,1,2. "
                f"Received: {','.join(texts)!r}."
            )
        return [int(text) for text in texts]


def define() -> Classes:
    """Defines --labels, --guidance_scale and --classifier."""
    return Classes(
        labels=flags.DEFINE_list("labels", None, "Classes, which the samples take in turn: 3, or 0,1,2."),
        guidance_scale=flags.DEFINE_float(
            "guidance_scale", None, "1, the default, for the class as it is; more to go beyond it; 0 for no class."
        ),
        classifier=paths.define(
            "classifier",
            None,
            "A folder of launch.train_classifier --noisy, whose gradient guides; by default the run's network has "
            "classes.",
        ),
    )

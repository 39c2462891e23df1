"""The flag of an image size."""

import pytest

from launch.flags import size


@pytest.mark.parametrize(
    ("text", "value"),
    [("8", 8), ("8,12", (8, 12)), ("(8, 12)", (8, 12)), (" 32 ", 32), ("[4,4]", (4, 4))],
)
def test_a_side_or_height_and_width_are_read(text, value):
    assert size.parse(text) == value


@pytest.mark.parametrize("text", ["", "0", "8,0", "-8", "8.5", "8,12,3", "big", "8,", ",8"])
def test_other_sizes_are_refused(text):
    with pytest.raises(ValueError, match="[Aa] size must be .*Received"):
        size.parse(text)

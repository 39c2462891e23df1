"""Values of a configuration, from text and from JSON: in the type of their key, or refused in one line."""

import json
import types
import typing

import numpy as np
import pytest

from ncsn_tf.config import schema, sections, upgrade, values
from ncsn_tf.training.run_directory import RunDirectory, RunDirectoryError

SIDES = int | tuple[int, int] | None
INTEGERS = tuple[int, ...]


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        (int, "-7", -7),
        (float, "1", 1.0),
        (float, "1e-3", 0.001),
        (bool, "True", True),
        (bool, "0", False),
        (str, "none", "none"),
        (str | None, "None", None),
        (float | None, "null", None),
        (int | None, "none", None),
        (int | None, "3", 3),
        (SIDES, "8", 8),
        (SIDES, "8,12", (8, 12)),
        (SIDES, "(8, 12)", (8, 12)),
        (SIDES, "[8, 12]", (8, 12)),
        (SIDES, "None", None),
        (INTEGERS, "1,2, 2", (1, 2, 2)),
        (INTEGERS, "(16,)", (16,)),
        (INTEGERS, "[8]", (8,)),
        (tuple[float, ...], "1, 0.5,1e-3", (1.0, 0.5, 1e-3)),
        (INTEGERS, "()", ()),
    ],
)
def test_text_means_a_value_of_the_type(kind, text, expected):
    found = values.from_text("config.here", kind, text)
    assert found == expected and type(found) is type(expected)


@pytest.mark.parametrize(
    ("kind", "text", "words"),
    [
        (int, "four", "an integer. Received: 'four'"),
        (int, "1.5", "an integer"),
        (int, "1e3", "an integer"),
        (int, "None", "an integer"),
        (int, "9" * 30, "64 bits"),
        (int | None, "2.0", "an integer or None"),
        (float, "fast", "a number"),
        (float, "inf", "a finite number"),
        (float | None, "nan", "a finite number"),
        (bool, "2", "true or false"),
        (str, "None", "text"),
        (SIDES, "8x12", "a pair of integers (height, width) or None"),
        (SIDES, "1,2,3", "a pair"),
        (INTEGERS, "1;2", "integers with commas between them. Received: '1;2'"),
        (INTEGERS, "1,2.5", "integers with commas"),
        (INTEGERS, "None", "integers with commas"),
    ],
)
def test_other_text_is_refused_with_the_key_and_the_type(kind, text, words):
    with pytest.raises(ValueError) as raised:
        values.from_text("config.here", kind, text)
    assert str(raised.value).startswith("config.here must be ") and words in str(raised.value)


def keys():
    """(section, key, type) of every key of every choice."""
    for name in schema.SECTIONS:
        kinds = schema.CHOICES[name] if name in schema.CHOICES else {None: schema.FIXED[name]}
        for chosen, kind in kinds.items():
            yield from ((name, chosen, key, hint) for key, hint in typing.get_type_hints(kind).items())


def wrong(kind):
    """Values of JSON that are of another type than a key's."""
    members = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    offered = [None, True, 1, 4.5, float("nan"), float("-inf"), "four", "", [1], {"a": 1}]
    right = {type(None): (type(None),), bool: (bool,), int: (int,), float: (int, float), str: (str,)}
    for value in offered:
        fits = any(type(value) in right.get(member, ()) for member in members)
        fits |= value == [1] and any(member in (INTEGERS, tuple[float, ...]) for member in members)
        if not fits or value == "" or (isinstance(value, float) and not np.isfinite(value)):
            yield value


@pytest.mark.parametrize(("name", "chosen", "key", "kind"), list(keys()))
def test_every_key_refuses_every_other_type(name, chosen, key, kind):
    for value in wrong(kind):
        content = sections.ncsn().to_dict()
        content[name] = {**sections.section(name, chosen).to_dict(), key: value}
        with pytest.raises(ValueError, match=rf"config\.{name}\.{key} must be .*Received: "):
            sections.read(content)


@pytest.mark.parametrize("seed", [None, True, 1.0, "1", [1]])
def test_the_seed_is_an_integer(seed):
    with pytest.raises(ValueError, match=r"config\.seed must be an integer"):
        sections.read({**sections.ncsn().to_dict(), "seed": seed})


def test_defaults_are_of_their_types_and_numbers_of_numpy_become_plain():
    content = sections.ncsn().to_dict()
    assert sections.plain(content) == content
    content["optim"]["learning_rate"], content["training"]["steps"] = np.float64(0.5), np.int32(7)
    content["data"]["image_size"], content["optim"]["clip_norm"] = [8, np.int64(12)], 1
    read = sections.read(content)
    assert (read.values["optim"].learning_rate, read.values["training"].steps) == (0.5, 7)
    assert type(read.values["training"].steps) is int and type(read.values["optim"].clip_norm) is float
    assert read.values["data"].image_size == (8, 12)
    assert upgrade.upgraded(content)["training"]["steps"] == 7


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"training": {"steps": "four"}}, "config.training.steps must be an integer. Received: 'four'"),
        ({"optim": []}, "config.optim must be a section"),
        ({"optim": None}, "config.optim must be a section"),
        ({"seed": None}, "config.seed must be an integer"),
        ({"sampler": {"name": ["langevin"]}}, "config.sampler.name must be one of"),
        ({"noise": 3, "sde": ...}, "config.noise must be a section"),
        ({"objective": 3, "noise": {}, "sde": ...}, "config.objective must be a section"),
        ({"ema": {"decay": float("nan")}}, "config.ema.decay must be a finite number"),
    ],
)
def test_a_hand_edited_file_is_reported_with_its_path(change, words, tmp_path):
    content = sections.ncsn().to_dict()
    for name, new in change.items():
        merged = {**content[name], **new} if isinstance(new, dict) and name in content else new
        content = {**content, name: merged}
    path = tmp_path / "config.json"
    path.write_text(json.dumps({name: new for name, new in content.items() if new is not ...}), encoding="utf-8")
    with pytest.raises(RunDirectoryError) as raised:
        RunDirectory(tmp_path).config()
    assert words in str(raised.value) and str(path) in str(raised.value) and "\n" not in str(raised.value)


def test_a_file_is_read_as_utf_8_and_may_not_be_nested_without_end(tmp_path):
    (tmp_path / "config.json").write_text("[" * 100_000, encoding="utf-8")
    with pytest.raises(RunDirectoryError, match="is not valid JSON"):
        RunDirectory(tmp_path).config()

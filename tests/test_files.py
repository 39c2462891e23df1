"""Files appear completely or not at all, and a path means the same everywhere."""

import errno
import json
import os
import pathlib
import re
import threading

import numpy as np
import pytest

from ncsn_tf import files

NOT_TEXT = os.fsdecode(b"\xe9")
HOSTILE = ("new[1]", "*", "a?b", "{a,b}", "back\\slash", "two\nlines", "%s$HOME", "c:d#e", "ü", NOT_TEXT, "-x'\"")


def test_npz_written_in_batches_is_the_arrays(tmp_path):
    a, b = np.arange(14, dtype=np.uint8).reshape(7, 2), np.linspace(0, 1, 7, dtype=np.float32)
    batches = ({"a": a[i : i + 3], "b": b[i : i + 3]} for i in range(0, 7, 3))
    files.write_npz(tmp_path / "x.npz", 7, batches)
    with np.load(tmp_path / "x.npz") as archive:
        np.testing.assert_array_equal(archive["a"], a)
        np.testing.assert_array_equal(archive["b"], b)
        assert archive["a"].dtype == np.uint8 and archive["b"].dtype == np.float32
    assert [path.name for path in tmp_path.iterdir()] == ["x.npz"]


@pytest.mark.parametrize("rows", [2, 5])
def test_batches_that_do_not_add_up_leave_nothing(tmp_path, rows):
    with pytest.raises(ValueError):
        files.write_npz(tmp_path / "x.npz", 4, [{"a": np.zeros((rows, 1))}])
    assert not list(tmp_path.iterdir())


def test_an_interrupted_write_leaves_the_old_file(tmp_path):
    def batches():
        yield {"a": np.zeros((1, 2))}
        raise KeyboardInterrupt

    files.write_npz(tmp_path / "x.npz", 1, [{"a": np.ones((1, 2))}])
    with pytest.raises(KeyboardInterrupt):
        files.write_npz(tmp_path / "x.npz", 2, batches())
    assert np.load(tmp_path / "x.npz")["a"].tolist() == [[1.0, 1.0]]
    assert [path.name for path in tmp_path.iterdir()] == ["x.npz"]


def test_arrays_are_written_together_or_not_at_all(tmp_path, monkeypatch):
    files.write_npz_arrays(tmp_path / "x.npz", {"mu": np.arange(3.0)})
    monkeypatch.setattr(np, "savez", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        files.write_npz_arrays(tmp_path / "x.npz", {"mu": np.zeros(3)})
    with np.load(tmp_path / "x.npz") as archive:
        assert archive["mu"].tolist() == [0.0, 1.0, 2.0]
    assert [path.name for path in tmp_path.iterdir()] == ["x.npz"]


def test_text_is_replaced(tmp_path):
    for text in ("one", "zwei ü"):
        files.write_text(tmp_path / "t", text)
        assert (tmp_path / "t").read_text(encoding="utf-8") == text
    assert [path.name for path in tmp_path.iterdir()] == ["t"]


def test_plain_values_are_json(tmp_path):
    content = {"a": [1, 2.5, None], "b": {"c": "ü"}}
    files.write_json(tmp_path / "x.json", content)
    assert json.loads((tmp_path / "x.json").read_text()) == content
    with pytest.raises(TypeError):
        files.write_json(tmp_path / "x.json", {"a": np.zeros(2)})
    assert json.loads((tmp_path / "x.json").read_text()) == content


def test_a_block_that_raises_leaves_the_old_file(tmp_path):
    path = tmp_path / "x"
    path.write_text("old")
    with pytest.raises(RuntimeError), files.replacing(path) as partial:
        partial.write_text("half of the ne")
        assert path.read_text() == "old"
        raise RuntimeError
    assert path.read_text() == "old" and [file.name for file in tmp_path.iterdir()] == ["x"]


def test_two_writers_of_one_file_do_not_share_a_partial_file(tmp_path):
    path = tmp_path / "x"
    with files.replacing(path) as mine:
        mine.write_text("mine")
        other = threading.Thread(target=files.write_text, args=(path, "other"))
        other.start()
        other.join()
        assert path.read_text() == "other"
    assert path.read_text() == "mine" and [file.name for file in tmp_path.iterdir()] == ["x"]


@pytest.mark.parametrize("name", ["n" * 255, NOT_TEXT, "a[1]"])
def test_a_file_may_have_any_name_that_the_system_accepts(tmp_path, name):
    files.write_json(tmp_path / name, [name])
    assert json.loads((tmp_path / name).read_text()) == [name]
    files.write_npz(tmp_path / name, 1, [{"a": np.ones((1, 2))}])
    assert np.load(tmp_path / name)["a"].tolist() == [[1.0, 1.0]]
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_name_that_is_not_text_is_escaped_in_text(tmp_path):
    files.write_text(tmp_path / "t", f"ü {NOT_TEXT}")
    assert (tmp_path / "t").read_text(encoding="utf-8") == "ü \\udce9"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("~", "{home}"),
        ("~/r", "{home}/r"),
        (pathlib.Path("~/r"), "{home}/r"),
        ("~root/r", f"{pathlib.Path('~root').expanduser()}/r"),
        ("./~/r", "{here}/~/r"),
        ("r/", "{here}/r"),
        ("link/../r", "{here}/link/../r"),
        (b"a\xe9", "{here}/a\udce9"),
        ("/a b/%s", "/a b/%s"),
        (".", "{here}"),
    ],
)
def test_a_local_path_is_absolute_and_without_tilde(tmp_path, monkeypatch, path, expected):
    """Links are not followed: `link/..` is the folder above the one that the link leads to."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/somebody")
    assert str(files.local_path(path)) == expected.format(home="/home/somebody", here=tmp_path)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("", "A path is empty"),
        (b"", "A path is empty"),
        ("a\0b", "has a NUL byte"),
        ("gs://bucket/r", "mount it, or copy it here"),
        ("file:///r", "mount it, or copy it here"),
        ("~nobody_of_this_name/r", r"no home folder here.*Write \./~nobody_of_this_name"),
    ],
)
def test_invalid_local_paths_are_refused(path, message):
    with pytest.raises(ValueError, match=message):
        files.local_path(path)


@pytest.mark.parametrize("descriptors", ["/proc/self/fd", "/none of a system without them"])
@pytest.mark.parametrize("name", HOSTILE)
def test_a_plain_path_leads_to_the_same_place(tmp_path, monkeypatch, name, descriptors):
    monkeypatch.setattr(files, "_DESCRIPTORS", descriptors)
    (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    before = os.listdir("/proc/self/fd")
    with files.plain_path(f"./{name}") as folder, files.plain_path(pathlib.Path(name, "..", name, "new")) as file:
        monkeypatch.chdir("/")
        assert re.fullmatch(r"[\w/.-]+", folder + file, re.ASCII)
        assert os.path.samefile(folder, tmp_path / name)
        pathlib.Path(file).write_text("there")
    assert (tmp_path / name / "new").read_text() == "there"
    assert os.listdir("/proc/self/fd") == before


def test_a_plain_path_of_plain_characters_is_the_path(tmp_path):
    with files.plain_path(tmp_path / "a b_c-1.d") as path:
        assert path == str(tmp_path / "a b_c-1.d")


def test_a_path_that_has_no_plain_form_is_refused(tmp_path):
    with pytest.raises(ValueError, match="ASCII letters"), files.plain_path(tmp_path / "new[1]"):
        pass
    with pytest.raises(FileNotFoundError), files.plain_path(tmp_path / "new[1]" / "a"):
        pass


def test_the_reason_of_a_long_message_is_its_end():
    error = RuntimeError(
        f"{{{{function_node __wrapped__SaveV2}}}} /{'r' * 300}/data; No space left on device [Op:SaveV2]"
    )
    assert re.fullmatch(r"RuntimeError: \.\.\.r+/data; No space left on device", files.reason(error))
    assert files.reason(OSError(errno.EIO, "Input/output\nerror")) == "OSError: [Errno 5] Input/output error"


@pytest.mark.parametrize(
    ("number", "full"),
    [
        (errno.ENOSPC, True),
        (errno.EDQUOT, True),
        (errno.EIO, False),
        (errno.EROFS, False),
        (errno.EACCES, False),
        (errno.EFBIG, False),
        (errno.EMFILE, False),
    ],
)
def test_a_full_disk_is_known_by_its_number_its_words_and_its_cause(number, full):
    """TensorFlow repeats the words of the system; too many open files are ResourceExhaustedError to it too."""
    error = OSError(number, os.strerror(number), "/r")
    outer = OSError("The checkpoint cannot be written.")
    outer.__cause__ = error
    words = RuntimeError(f"{{{{function_node x}}}} /r; {os.strerror(number)} [Op:SaveV2]")
    assert [files.no_space(one) for one in (error, outer, words)] == [full] * 3

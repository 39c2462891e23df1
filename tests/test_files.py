"""Files appear completely or not at all."""

import json
import threading

import numpy as np
import pytest

from ncsn_tf import files


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

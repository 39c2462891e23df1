"""The SavedModel: it answers as the library does, row by row, to any caller, and refuses invalid requests."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from ncsn_tf import runs
from ncsn_tf.config import choices
from ncsn_tf.guidance import inpainting, masks
from ncsn_tf.score import denoise
from ncsn_tf.serving import export
from ncsn_tf.serving.export import ExportError
from ncsn_tf.training.run_directory import RunDirectory
from tests.support import tiny
from tests.support.processes import ROOT

SHAPE = (8, 8, 1)
CLIENT = ROOT / "docs" / "serving_client.c"


@pytest.fixture(scope="module", autouse=True)
def small_network():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(choices.NETWORKS, "ncsn", tiny.stand_in)
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "tiny"
    tiny.save_run(path, sampler={"denoise": True})
    opened = runs.TrainedRun(RunDirectory(path))
    opened.load()
    return opened


@pytest.fixture(scope="module")
def path(run, tmp_path_factory):
    return export.save(run.served_model(), tmp_path_factory.mktemp("served"), {"dataset": "digits"})


@pytest.fixture(scope="module")
def signatures(path):
    return export.load(path)[0].signatures


def by_the_library(run, seed):
    return run.block_sampler(run.start_samples(seed), 1).draw(0)["x"][0]


def seeds(*values):
    return tf.constant(values, tf.int64)


IMAGES = (tiny.random_pixels(3, *SHAPE) + 0.5).astype(np.float32) / 256.0
KNOWN = masks.make("left", SHAPE, 3)
SIGMA = tf.constant([1.0, 0.1, 0.3])


def test_score_and_denoised_equal_the_librarys(run, signatures):
    t = run.builder.sde.time(SIGMA)
    np.testing.assert_allclose(
        signatures["score"](x=IMAGES, sigma=SIGMA)["score"], run.score_fn(tf.constant(IMAGES), t), rtol=1e-5, atol=1e-5
    )
    np.testing.assert_allclose(
        signatures["denoise"](x=IMAGES, sigma=SIGMA)["denoised"],
        denoise(run.score_fn, run.builder.sde, tf.constant(IMAGES), t),
        rtol=1e-5,
        atol=1e-5,
    )


def test_samples_are_those_of_the_library_and_rows_are_independent(run, signatures):
    found = signatures["sample"](seed=seeds(0, 7, 2**31 - 1))
    expected = np.stack([by_the_library(run, seed) for seed in (0, 7, 2**31 - 1)])
    np.testing.assert_allclose(found["samples_float"], expected, atol=1e-5)
    assert found["samples"].dtype == tf.uint8 and found["samples"].shape == (3, *SHAPE)
    alone = signatures["sample"](seed=seeds(7))
    np.testing.assert_allclose(alone["samples_float"][0], found["samples_float"][1], atol=1e-6)


def test_inpainting_equals_the_librarys_and_keeps_known_pixels(run, signatures):
    found = signatures["inpaint"](image=IMAGES, mask=KNOWN, seed=seeds(5, 5, 6))
    for row, seed in ((0, 5), (2, 6)):
        part = IMAGES[row : row + 1], KNOWN[row : row + 1]
        drawn_by = run.block_sampler(
            lambda n, part=part, seed=seed: inpainting.start(n, *part, run.builder.prior, run_seed=seed, completions=1),
            1,
            guidance=inpainting.Inpainting(run.builder.sde),
            end=inpainting.put_back,
        )
        np.testing.assert_allclose(found["samples_float"][row], drawn_by.draw(0)["x"][0], atol=1e-5)
    np.testing.assert_array_equal(found["samples_float"].numpy()[:, :, :4], IMAGES[:, :, :4])
    np.testing.assert_array_equal(found["samples"].numpy()[:, :, :4], np.floor(IMAGES[:, :, :4] * 256))


def test_steps_and_epsilon_are_inputs_with_the_runs_own_as_defaults(run, signatures, path):
    own = run.builder.sampler_options
    options = {"steps_per_level": tf.constant(own.steps_per_level), "epsilon": tf.constant(own.epsilon)}
    plain = signatures["sample"](seed=seeds(3))["samples_float"]
    np.testing.assert_array_equal(signatures["sample_tuned"](seed=seeds(3), **options)["samples_float"], plain)
    inpainted = signatures["inpaint"](image=IMAGES[:1], mask=KNOWN[:1], seed=seeds(3))["samples_float"]
    tuned = signatures["inpaint_tuned"](image=IMAGES[:1], mask=KNOWN[:1], seed=seeds(3), **options)
    np.testing.assert_array_equal(tuned["samples_float"], inpainted)

    changed = runs.TrainedRun(run.directory, sampler={"steps_per_level": 5, "epsilon": 2e-3})
    changed.load()
    other = {"steps_per_level": tf.constant(5), "epsilon": tf.constant(2e-3)}
    found = signatures["sample_tuned"](seed=seeds(3), **other)["samples_float"][0]
    np.testing.assert_allclose(found, by_the_library(changed, 3), atol=1e-5)
    assert not np.allclose(found, plain[0], atol=1e-3)

    content = saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes())
    definitions = content.meta_graphs[0].signature_def
    for name in ("sample_tuned", "inpaint_tuned"):
        defaults = {key: tf.make_ndarray(value) for key, value in definitions[name].defaults.items()}
        assert defaults == {"steps_per_level": own.steps_per_level, "epsilon": np.float32(own.epsilon)}
    kinds = {key: value.dtype for key, value in definitions["inpaint"].inputs.items()}
    assert kinds == {"image": tf.float32, "mask": tf.bool, "seed": tf.int64}


NOTHING = np.zeros_like(KNOWN)
REFUSED = {
    "x is NaN": ("score", {"x": np.full_like(IMAGES, np.nan), "sigma": SIGMA}, "x must be finite"),
    "sigma beyond the levels": ("score", {"x": IMAGES, "sigma": 3 * SIGMA}, "sigma must be within"),
    "sigma is negative": ("denoise", {"x": IMAGES, "sigma": -SIGMA}, "sigma must be within"),
    "fewer sigmas": ("denoise", {"x": IMAGES, "sigma": SIGMA[:2]}, "the same number of rows"),
    "no rows to score": ("score", {"x": IMAGES[:0], "sigma": SIGMA[:0]}, "there must be at least one row"),
    "no seeds": ("sample", {"seed": seeds()}, "there must be at least one row"),
    "a negative seed": ("sample", {"seed": seeds(1, -1)}, "a seed must be within"),
    "a seed beyond": ("sample", {"seed": seeds(2**31)}, "a seed must be within"),
    "no steps": (
        "sample_tuned",
        {"seed": seeds(1), "steps_per_level": tf.constant(0), "epsilon": tf.constant(1e-3)},
        "steps_per_level must be within",
    ),
    "steps backwards": (
        "sample_tuned",
        {"seed": seeds(1), "steps_per_level": tf.constant(-3), "epsilon": tf.constant(1e-3)},
        "steps_per_level must be within",
    ),
    "no step size": (
        "sample_tuned",
        {"seed": seeds(1), "steps_per_level": tf.constant(1), "epsilon": tf.constant(0.0)},
        "epsilon must be positive",
    ),
    "a step size that diverges": (
        "sample_tuned",
        {"seed": seeds(1), "steps_per_level": tf.constant(1), "epsilon": tf.constant(0.0401)},
        r"epsilon must be positive and below 0\.04,.*0\.0401",  # four times the square of sigma = 0.1
    ),
    "a step size that is no number": (
        "inpaint_tuned",
        {
            **{"image": IMAGES[:1], "mask": KNOWN[:1], "seed": seeds(1)},
            **{"steps_per_level": tf.constant(1), "epsilon": tf.constant(np.nan)},
        },
        "epsilon must be positive and below",
    ),
    "bytes as floats": ("inpaint", {"image": 255 * IMAGES, "mask": KNOWN, "seed": seeds(1, 2, 3)}, "within 0 and 1"),
    "images from -1": ("inpaint", {"image": 2 * IMAGES - 1, "mask": KNOWN, "seed": seeds(1, 2, 3)}, "within 0 and 1"),
    "known NaN": ("inpaint", {"image": IMAGES * np.nan, "mask": KNOWN, "seed": seeds(1, 2, 3)}, "within 0 and 1"),
    "nothing known": ("inpaint", {"image": IMAGES, "mask": NOTHING, "seed": seeds(1, 2, 3)}, "must have a known pixel"),
    "all known": ("inpaint", {"image": IMAGES, "mask": ~NOTHING, "seed": seeds(1, 2, 3)}, "leave a pixel"),
    "one mask for all": ("inpaint", {"image": IMAGES, "mask": KNOWN[:1], "seed": seeds(1, 2, 3)}, "the same number of"),
    "fewer masks": ("inpaint", {"image": IMAGES, "mask": KNOWN[:2], "seed": seeds(1, 2, 3)}, "the same number of rows"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_an_invalid_request_is_an_invalid_argument_with_the_reason(name, signatures):
    signature, inputs, reason = REFUSED[name]
    inputs = {key: tf.constant(value) for key, value in inputs.items()}
    with pytest.raises(tf.errors.InvalidArgumentError, match=reason):
        signatures[signature](**inputs)


SIGNATURES = ("serving_default", "sample", "sample_tuned", "inpaint", "inpaint_tuned", "score", "denoise")


@pytest.mark.parametrize("name", SIGNATURES)
def test_every_side_of_every_input_is_checked(name, signatures):
    assert sorted(signatures) == sorted(SIGNATURES)
    right = {
        **{"x": tf.constant(IMAGES), "image": tf.constant(IMAGES), "mask": tf.constant(KNOWN), "sigma": SIGMA},
        **{"seed": seeds(1, 2, 3), "steps_per_level": tf.constant(1), "epsilon": tf.constant(1e-3)},
    }
    inputs = {key: right[key] for key in signatures[name].structured_input_signature[1]}
    signatures[name](**inputs)
    for key, value in inputs.items():
        wrong = [value[None], value[..., None]] + ([value[0]] if value.shape.rank else [])
        wrong += [tf.concat([value, value], axis) for axis in range(1, value.shape.rank)]
        for other in wrong:
            shape = " ".join(map(str, other.shape))
            with pytest.raises(tf.errors.InvalidArgumentError, match=rf"{key} must have the shape .*\[{shape}\]"):
                signatures[name](**inputs | {key: other})


def test_a_client_that_names_no_signature_samples(signatures):
    found, expected = (signatures[name](seed=seeds(3)) for name in ("serving_default", "sample"))
    np.testing.assert_array_equal(found["samples_float"], expected["samples_float"])


def test_samples_that_are_not_finite_are_refused(run):
    model = run.served_model()
    for variable in model.stored:
        variable.assign(np.nan * tf.ones_like(variable))
    with pytest.raises(tf.errors.InvalidArgumentError, match="the samples diverged"):
        model.signatures()["sample"](seeds(1))


def test_pixels_under_the_mask_are_not_read(signatures):
    hidden = np.where(KNOWN, IMAGES, np.nan).astype(np.float32)
    options = {"mask": tf.constant(KNOWN), "seed": seeds(1, 2, 3)}
    np.testing.assert_array_equal(
        signatures["inpaint"](image=tf.constant(hidden), **options)["samples"],
        signatures["inpaint"](image=tf.constant(IMAGES), **options)["samples"],
    )


def test_no_function_of_the_graph_needs_xla(path):
    """TF Serving has none: a function that must be compiled by XLA does not run there."""
    content = saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes())
    graph = content.meta_graphs[0].graph_def
    functions = list(graph.library.function)
    assert len(functions) > 20
    nodes = [*graph.node, *(node for function in functions for node in function.node_def)]
    flagged = [owner.signature.name for owner in functions if owner.attr["_XlaMustCompile"].b]
    flagged += [node.name for node in nodes if node.attr["_XlaMustCompile"].b]
    assert flagged == []


# Called from outside


def test_a_process_without_this_library_gets_the_same_results(path, signatures, tmp_path):
    program = f"""
import importlib.util, numpy as np, tensorflow as tf
assert importlib.util.find_spec("ncsn_tf") is None
loaded = tf.saved_model.load({str(path)!r})
np.save("found.npy", loaded.signatures["sample"](seed=tf.constant([3, 4], tf.int64))["samples_float"])
"""
    result = subprocess.run(
        [sys.executable, "-I", "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=200
    )
    assert result.returncode == 0, result.stderr[-800:]
    expected = signatures["sample"](seed=seeds(3, 4))["samples_float"]
    np.testing.assert_allclose(np.load(tmp_path / "found.npy"), expected, atol=1e-6)


def test_saved_model_cli_runs_it(path, signatures, tmp_path):
    """The command of docs/serving.md."""
    command = [pathlib.Path(sys.executable).parent / "saved_model_cli", "run", "--dir", path, "--tag_set", "serve"]
    command += ["--signature_def", "sample", "--input_exprs", "seed=[0, 1, 2, 3]", "--outdir", tmp_path]
    page = (ROOT / "docs" / "serving.md").read_text()
    assert "saved_model_cli run --dir" in page and "--input_exprs 'seed=[0, 1, 2, 3]'" in page
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=200)
    assert result.returncode == 0, result.stderr[-800:]
    expected = signatures["sample"](seed=seeds(0, 1, 2, 3))["samples"]
    np.testing.assert_array_equal(np.load(tmp_path / "samples.npy"), expected)


@pytest.mark.skipif(shutil.which("gcc") is None, reason="there is no C compiler")
def test_a_program_in_c_gets_the_same_samples(path, signatures, tmp_path):
    package = pathlib.Path(tf.__file__).parent
    libraries = sorted(package.glob("libtensorflow_*.so.2"))
    command = ["gcc", "-Wall", "-Werror", "-o", tmp_path / "client", CLIENT, f"-I{package / 'include'}"]
    command += [*libraries, f"-Wl,-rpath,{package}"]
    built = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert built.returncode == 0, built.stderr
    content = saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes())
    signature = content.meta_graphs[0].signature_def["sample"]
    names = [signature.inputs["seed"].name, signature.outputs["samples_float"].name]

    def ask(*values):
        command = [tmp_path / "client", path, *names, *map(str, values)]
        return subprocess.run(command, capture_output=True, text=True, timeout=200)

    answer = ask(3, 4)
    assert answer.returncode == 0, answer.stderr[-800:]
    shape, *values = answer.stdout.splitlines()
    assert shape.split() == ["2", "8", "8", "1"]
    expected = signatures["sample"](seed=seeds(3, 4))["samples_float"]
    np.testing.assert_allclose(np.array(values, np.float32).reshape(expected.shape), expected, atol=1e-6)
    refused = ask(-1)
    assert refused.returncode == 1 and "code 3" in refused.stderr and "a seed must be within" in refused.stderr


# Files


def test_versions_are_numbered_and_never_incomplete(run, path, monkeypatch):
    folder = path.parent
    assert [child.name for child in folder.iterdir()] == ["1"] and path.name == "1"
    assert os.stat(path).st_mode & 0o055 == 0o055, "a server is another user"
    with pytest.raises(ExportError, match="a new number, at least 1. Received: 1"):
        export.save(run.served_model(), folder, {}, version=1)

    def fail(*_, **__):
        raise KeyboardInterrupt

    for module, name in ((tf.saved_model, "save"), (os, "rename")):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, fail)
            with pytest.raises(KeyboardInterrupt):
                export.save(run.served_model(), folder, {})
        assert [child.name for child in folder.iterdir()] == ["1"]


def test_exported_files_are_checked_on_load(path, tmp_path):
    _, about = export.load(path.parent)
    assert about["dataset"] == "digits" and about["format"] == 1
    copy = tmp_path / "7"
    shutil.copytree(path, copy)
    graph = copy / "saved_model.pb"
    graph.write_bytes(graph.read_bytes()[:-1] + b"!")
    with pytest.raises(ExportError, match="damaged"):
        export.load(tmp_path)
    (copy / "assets.extra" / "about.json").write_text(json.dumps({"format": 99}))
    with pytest.raises(ExportError, match="another release"):
        export.load(copy)
    for nothing in (tmp_path / "none", tmp_path / "7" / "variables"):
        with pytest.raises(ExportError, match="not written by launch.export"):
            export.load(nothing)


def test_weights_in_bfloat16_take_half_the_bytes(run, signatures, tmp_path):
    half = export.save(run.served_model("bfloat16"), tmp_path, {})
    full = run.served_model()
    assert {variable.dtype for variable in run.served_model("bfloat16").stored} == {tf.bfloat16}
    loaded, _ = export.load(half)
    x = {"x": tf.constant(IMAGES), "sigma": SIGMA}
    found, exact = (one["score"](**x)["score"].numpy() for one in (loaded.signatures, signatures))
    assert found.dtype == np.float32
    assert 0.0 < np.abs(found - exact).max() < 0.02 * np.abs(exact).max(), "eight bits of each weight are left"
    for variable, weight in zip(full.stored, run.network.weights, strict=True):
        np.testing.assert_array_equal(variable, weight)
    with pytest.raises(ValueError, match="float32 or bfloat16"):
        run.served_model("float16")

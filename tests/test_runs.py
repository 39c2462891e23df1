"""A trained run opened for use: its checkpoints, its samples on one and two replicas, its evaluation, a sweep."""

import csv
import dataclasses
import json
import threading

import numpy as np
import pytest
import tensorflow as tf

from ncsn_tf import combinations, files, jobs, runs, sweep
from ncsn_tf.config import choices, sections
from ncsn_tf.data import images, pipeline
from ncsn_tf.evaluation import EvaluationError, classifier, evaluator, features, references, report
from ncsn_tf.guidance import inpainting
from ncsn_tf.samplers.store import DivergedError, SamplingKeyError
from ncsn_tf.training.checkpoints import CheckpointError
from ncsn_tf.training.run_directory import RunDirectory
from tests.support import tiny

TRAIN, HELD_OUT = images.load("digits", "train"), images.load("digits", "held_out")


@pytest.fixture(scope="module", autouse=True)
def small_network():
    """NCSN takes a quarter of a minute to trace, and these tests trace many graphs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(choices.NETWORKS, "ncsn", tiny.stand_in)
        yield


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "tiny"
    tiny.save_run(path, steps=(2, 5))
    return RunDirectory(path)


@pytest.fixture(scope="module")
def run(directory):
    opened = runs.TrainedRun(directory)
    opened.load()
    return opened


@pytest.fixture(scope="module")
def run_evaluator(tmp_path_factory):
    path = tmp_path_factory.mktemp("classifier") / "digits"
    trained = classifier.train(TRAIN.images[:64], np.arange(64) % 10, 10, seed=0, steps=2, batch_size=32)
    about = classifier.record(TRAIN, held_out_images=1, held_out_accuracy=0.1, seed=0, steps=2, batch_size=32)
    classifier.export(trained, path, about)
    network = features.load_classifier(path)
    reference = references.compute(network, TRAIN, split="train", preparation={})
    data = {"dataset": TRAIN.describe(), "train": TRAIN, "held_out": HELD_OUT}
    return evaluator.Evaluator(network, reference, shape=TRAIN.shape, **data)


@pytest.mark.parametrize("flips", [False, True])
def test_the_training_density_has_the_images_in_the_data_range_and_their_mirrored_ones(tmp_path, flips):
    tiny.save_run(tmp_path / "vp", config=tiny.flow_config(), data={"random_flip": flips})
    points = runs.TrainedRun(RunDirectory(tmp_path / "vp")).training_density().points
    expected = (2.0 * TRAIN.images + 1.0) / 256.0 - 1.0
    np.testing.assert_allclose(points[: len(TRAIN)], expected, atol=1e-6)
    np.testing.assert_allclose(points[len(TRAIN) :], expected[:, :, ::-1] if flips else expected[:0], atol=1e-6)


def test_checkpoints_are_chosen_by_step_and_known_by_their_weights(run):
    assert run.load() and run.step == 5
    newest = run.checksum()
    run.load(2)
    assert run.step == 2 and run.checksum() != newest
    with pytest.raises(CheckpointError, match="No checkpoint of step 3"):
        run.load(3)
    run.load()
    assert run.checksum() == newest


def test_two_replicas_leave_the_bytes_of_one(run, directory, tmp_path):
    one = run.samples(tmp_path / "one", 6, seed=3, batch_size=2)
    two = runs.TrainedRun(directory, tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]))
    two.load()
    pair = two.samples(tmp_path / "two", 6, seed=3, batch_size=2)
    np.testing.assert_array_equal(one.pixels, pair.pixels)
    assert one.evaluations == pair.evaluations == 4
    drawn = run.block_sampler(run.start_samples(3), 2).draw_rows(6)
    np.testing.assert_array_equal(pipeline.to_uint8(drawn["x"]), one.pixels)
    losses = [opened.held_out_loss(HELD_OUT, 7) for opened in (run, two)]
    np.testing.assert_allclose(losses[1].means, losses[0].means, rtol=1e-5)
    assert losses[0].images == losses[1].images == 7
    with pytest.raises(SamplingKeyError, match="seed"):
        run.samples(tmp_path / "one", 6, seed=4, batch_size=2)


def test_two_replicas_leave_the_bytes_of_one_under_xla(directory, tmp_path):
    """The sampler, its denoising at the end, and inpainting; each replica is a program of its own."""
    drawn = []
    two = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    images, known = np.full((2, 8, 8, 1), 0.5, np.float32), np.arange(64).reshape(1, 8, 8, 1).repeat(2, 0) % 2 == 0
    for strategy in (None, two):
        run = runs.TrainedRun(directory, strategy, {"jit_compile": True, "denoise": True})
        run.load()
        drawn.append(run.samples(tmp_path / str(len(drawn)), 4, seed=3, batch_size=2).pixels)
        completions = run.block_sampler(
            lambda numbers, prior=run.builder.prior: inpainting.start(
                numbers, images, known, prior, run_seed=0, completions=2
            ),
            2,
            guidance=inpainting.Inpainting(run.builder.sde),
            end=inpainting.put_back,
        )
        drawn.append(pipeline.to_uint8(completions.draw_rows(4)["x"]))
    np.testing.assert_array_equal(drawn[0], drawn[2])
    np.testing.assert_array_equal(drawn[1], drawn[3])


def test_an_evaluation_records_everything_that_repeats_it(run, run_evaluator, tmp_path):
    options = {"num_samples": 6, "batch_size": 4, "seed": 0, "held_out_images": HELD_OUT, "held_out_examples": 10}
    seen = []
    found = jobs.evaluate(
        run, run_evaluator, tmp_path, **options, progress=lambda what, rows: seen.append((what, rows))
    )
    content = json.loads((tmp_path / report.RESULTS).read_text())
    assert content["step"] == 5 and content["weights"] == run.checksum() and content["checkpoint"] == run.checkpoint
    assert content["num_samples"] == 6 and content["batch_size"] == 4 and content["seed"] == 0
    assert content["sampler"]["steps_per_level"] == 2 and content["score_evaluations_per_sample"] == 4
    assert content["reference"]["dataset"] == TRAIN.describe() and content["feature_network"]["kind"] == "classifier"
    assert {"versions", "commit", "command", "time", "devices", "seconds"} <= content.keys()
    assert content["metrics"]["classifier_fid"]["value"] == found.measurements[0].value
    assert "fid" not in content["metrics"]
    assert len(content["held_out_denoising_loss"]["by_level"]) == 2
    assert {"pixels", "features"} == content["copies"].keys()
    assert sum(rows for what, rows in seen if what == "samples") == 6
    assert {path.name for path in tmp_path.iterdir()} == {
        "lock",
        "results.json",
        "samples.json",
        "samples.npz",
        "neighbours_pixels.png",
        "neighbours_features.png",
        "distances.png",
    }
    again = jobs.evaluate(run, run_evaluator, tmp_path, **options)
    assert again.as_dict() == found.as_dict()
    assert jobs.evaluate(run, None, tmp_path, **options) is None, "a worker that is not the chief reports nothing"


def test_results_of_guided_samples_are_not_those_of_others(run, run_evaluator, tmp_path):
    """A key that only the folder has is a difference: then samples are asked for, and the store refuses the folder."""
    options = {"metric": "fid", "num_samples": 12, "batch_size": 6, "seed": 1}
    guided = run.with_score(lambda x, t: -x, {"everywhere": "elsewhere"})
    found = jobs.evaluate_once(guided, run_evaluator, tmp_path, **options)
    assert jobs.evaluate_once(guided, run_evaluator, tmp_path, **options) == found
    with pytest.raises(SamplingKeyError, match="score"):
        jobs.evaluate_once(run, run_evaluator, tmp_path, **options)


def test_following_a_run_takes_each_newest_checkpoint_until_the_last(tmp_path):
    tiny.save_run(tmp_path, steps=(3,), training={"steps": 9})
    followed = runs.TrainedRun(RunDirectory(tmp_path))
    later = []

    def train_on():
        later.append(tiny.save_run(tmp_path, steps=(6, 9), training={"steps": 9}))

    steps = followed.new_checkpoints(patience=100.0, interval=0.05)
    assert next(steps) == 3
    thread = threading.Thread(target=train_on)
    thread.start()
    rest = list(steps)
    thread.join()
    assert rest in ([9], [6, 9])
    unfinished = tmp_path / "unfinished"
    tiny.save_run(unfinished, steps=(3,), training={"steps": 9})
    steps = runs.TrainedRun(RunDirectory(unfinished)).new_checkpoints(patience=0.1, interval=0.05)
    assert next(steps) == 3
    with pytest.raises(CheckpointError, match="is at step 3 of 9"):
        next(steps)


def test_a_sweep_writes_a_table_and_skips_finished_combinations(run, run_evaluator, tmp_path, monkeypatch):
    settings = sweep.grid([1e-3, 1e3], [1, 2], [None])
    assert [setting.name for setting in settings][:2] == ["epsilon_0.001_steps_1_levels_all"] + [
        "epsilon_0.001_steps_2_levels_all"
    ]
    options = {"metric": "fid", "num_samples": 6, "batch_size": 6, "seed": 0}
    lines = []
    rows = sweep.sweep(run, run_evaluator, settings, tmp_path, **options, log=lines.append)
    assert [bool(row.remark) for row in rows] == [False, False, True, True]
    assert "no classifier_fid: With this step size samples diverge" in lines[3]
    assert not (tmp_path / settings[3].name).exists() and rows[3].evaluations is None
    assert "on CPU" in json.loads((tmp_path / "sweep.json").read_text())["devices"]
    assert [row.evaluations for row in rows[:2]] == [2, 4]
    with open(tmp_path / "sweep.csv", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    assert [float(row["epsilon"]) for row in table] == [1e-3, 1e-3, 1e3, 1e3]
    assert [float(row["classifier_fid"]) for row in table[:2]] == [row.value for row in rows[:2]]
    assert len(lines) == 4 and (tmp_path / "sweep.png").stat().st_size > 1000
    content = json.loads((tmp_path / settings[0].name / report.RESULTS).read_text())
    assert content["sampler"]["steps_per_level"] == 1 and list(content["metrics"]) == ["classifier_fid"]

    monkeypatch.setattr(jobs, "evaluate", lambda *_, **__: pytest.fail("done already"))
    assert sweep.sweep(run, run_evaluator, settings, tmp_path, **options, log=lines.append) == rows
    monkeypatch.undo()
    monkeypatch.setitem(choices.NETWORKS, "ncsn", tiny.stand_in)
    drawn = (tmp_path / settings[0].name / "samples.npz").stat().st_mtime_ns
    unknown = dataclasses.replace(run_evaluator._reference, about=None)
    other = evaluator.Evaluator(run_evaluator._network, unknown, shape=TRAIN.shape)
    for by in (other, run_evaluator):  # against other statistics the samples are evaluated again, and stay
        (again,) = sweep.sweep(run, by, settings[:1], tmp_path, **options, log=lines.append)
        assert again.value == rows[0].value and bool(again.remark) == (by is other)
    assert (tmp_path / settings[0].name / "samples.npz").stat().st_mtime_ns == drawn
    with pytest.raises(EvaluationError, match="classifier_fid_infinity: 6 samples are fewer"):
        sweep.sweep(
            run, run_evaluator, settings[:1], tmp_path, **{**options, "metric": "fid_infinity"}, log=lines.append
        )
    assert run.builder.sampler_options.epsilon == 1e-3, "a sweep leaves the run as it is"
    with pytest.raises(SamplingKeyError, match="batch_size"):
        run.with_sampler(settings[0].changes()).samples(tmp_path / settings[0].name, 6, seed=0, batch_size=5)


def test_a_combination_whose_samples_diverged_does_not_end_a_sweep(run, run_evaluator, tmp_path, monkeypatch):
    def diverge(run, evaluator, output, **_):
        output.mkdir()
        raise DivergedError("Sample 3 is not finite")

    monkeypatch.setattr(jobs, "evaluate", diverge)
    options = {"metric": "fid", "num_samples": 6, "batch_size": 6, "seed": 0, "log": lambda line: None}
    settings = sweep.grid([1e-3, 2e-3], [1], [None])
    rows = sweep.sweep(run, run_evaluator, settings, tmp_path, **options)
    assert [(row.value, row.remark) for row in rows] == [(None, "Sample 3 is not finite")] * 2
    monkeypatch.setattr(jobs, "evaluate", lambda *_, **__: pytest.fail("done already"))
    assert sweep.sweep(run, run_evaluator, settings, tmp_path, **options) == rows
    assert "on CPU" in json.loads((tmp_path / settings[0].name / report.RESULTS).read_text())["devices"]


def test_a_folder_that_another_process_draws_into_is_refused(run, tmp_path):
    with (
        files.locked(tmp_path / "lock", RuntimeError),
        pytest.raises(SamplingKeyError, match=r"Another process draws.*process"),
    ):
        run.samples(tmp_path, 2, seed=0, batch_size=2)


def test_a_run_is_evaluated_only_against_its_own_training_images(tmp_path):
    tiny.save_run(tmp_path)
    opened = runs.TrainedRun(RunDirectory(tmp_path))
    assert opened.training_images().describe() == TRAIN.describe()
    dataset = json.loads((tmp_path / "dataset.json").read_text())
    (tmp_path / "dataset.json").write_text(json.dumps({**dataset, "checksum": 1}))
    with pytest.raises(ValueError, match="images of checksum 1; digits now has 1501"):
        opened.training_images()


def test_the_best_row_is_the_smallest_distance_or_the_largest_score():
    def row(value):
        return sweep.Row(sweep.Setting(1.0, 1, None), 1, value, None)

    rows = [row(3.0), row(None), row(2.0), row(float("nan"))]
    assert sweep.best(rows, "fid").value == 2.0 and sweep.best(rows, "kid").value == 2.0
    assert sweep.best(rows, "inception_score").value == 3.0 and sweep.best(rows, "recall").value == 3.0
    assert sweep.best([row(None)], "fid") is None


def test_the_cheapest_row_as_good_as_the_best_is_within_two_standard_errors_of_the_difference():
    def row(value, evaluations, error=0.3):
        return sweep.Row(sweep.Setting(1.0, evaluations, None), evaluations, value, error)

    # The error of a difference is hypot(0.3, 0.4) = 0.5: up to 2.0 is as good as the best, 1.0.
    best, near, far = row(1.0, 50), row(1.99, 20, 0.4), row(2.01, 10, 0.4)
    assert sweep.cheapest([best, far, near, row(None, None, None)], "kid") is near
    assert sweep.cheapest([best, far], "kid") is best
    assert sweep.cheapest([row(-1.0, 9), row(-1.1, 9)], "kid").value == -1.1, "the better one of equal costs"
    assert sweep.cheapest([row(1.0, 50), row(0.9, 20)], "precision").evaluations == 20
    assert sweep.cheapest([row(1.0, 50, None), near], "kid") is None and sweep.cheapest([], "kid") is None


def test_the_plot_is_over_evaluations_unless_only_langevin_dynamics_is_compared():
    own = sections.section("sampler", "heun").to_dict()

    def lines(samplers, lists):
        found = combinations.combine(own, samplers, lists)
        rows = [sweep.Row(setting, 10 - number, 1.0 + number, 0.25) for number, setting in enumerate(found)]
        (axes,) = sweep.draw(rows, "kid").axes
        bars = [bar.get_segments()[0] for container in axes.containers for bar in container[2]]
        np.testing.assert_allclose([bar[1, 1] - bar[0, 1] for bar in bars], 1.0)  # two standard errors up and down
        drawn = {container.get_label(): container[0].get_xdata().tolist() for container in axes.containers}
        return axes.get_xlabel(), axes.get_xscale(), drawn

    compared = lines(["ddim", "annealed_langevin", "probability_flow"], {"num_steps": [5, 9], "epsilon": [1e-5]})
    expected = {"ddim,grid=uniform": [9, 10], "annealed_langevin,epsilon=1e-05": [8], "probability_flow": [7]}
    assert compared == ("evaluations per sample", "log", expected)
    sizes = lines(["annealed_langevin"], {"epsilon": [2e-5, 1e-5]})
    assert sizes == ("epsilon", "log", {"annealed_langevin,steps_per_level=100": [1e-5, 2e-5]})

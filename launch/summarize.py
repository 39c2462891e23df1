"""Tabulates trained runs: python -m launch.summarize --workdir=runs/digits --workdir=runs/edm

Prints three tables in Markdown: the runs' trainings (command, commit, seed, time, held-out loss), the evaluations in
their folders evaluation/ (sampler, score evaluations, metrics with their standard errors), and the likelihoods in their
folders likelihood/. Columns without a number are left out. --output=FILE writes the tables into a file as well.
"""

if not __package__:
    __import__("flags.started_as_file")  # ends with the line that says how a launcher is started

from absl import flags

from .flags import cli, paths

_WORKDIR = paths.define_several("workdir", "A run's directory; give it several times.", required=True)
_OUTPUT = paths.define("output", None, "A file to write the tables into.")
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "Check the runs; write nothing.")


def main() -> None:
    """Tabulates the runs."""
    from ncsn_tf import files, results
    from ncsn_tf.training.run_directory import RunDirectory

    with cli.usage_errors():
        runs = [RunDirectory(path) for path in _WORKDIR.value]
        tables = [make(runs) for make in (results.trainings, results.evaluations, results.likelihoods)]
        text = "\n\n".join(table.markdown() for table in tables if table.rows)
        if _OUTPUT.value is not None and not _DRY_RUN.value:
            path = files.local_path(_OUTPUT.value)
            path.parent.mkdir(parents=True, exist_ok=True)
            files.write_text(path, text + "\n")
    print(text)
    if _OUTPUT.value is not None:
        print(f"Dry run: would write {_OUTPUT.value}" if _DRY_RUN.value else f"Tables: {_OUTPUT.value}")


def entry_point() -> None:
    """Entry point of `ncsn-summarize`."""
    cli.run(main)


if __name__ == "__main__":
    entry_point()

"""Imports run one way, and the BUILD files state them.

Sources are read with `ast`, so nothing of the project is imported. BUILD files are run as Python, with stand-ins for
Bazel's rules that record what they are called with: macros, globs and comprehensions are expanded as Bazel does.
"""

import ast
import dataclasses
import functools
import graphlib
import types
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PACKAGES = ("ncsn_tf", "launch", "configs", "tests", "benchmarks")
MAX_BUILD_LINES = 480

# From the foundations up. A room, which is a module or a folder, may import itself and the rooms of the lines above its
# own, but not those on its own line. A module belongs to the room with the longest name that fits.
LAYERS = (
    ("ncsn_tf/random", "ncsn_tf/files", "ncsn_tf/determinism", "ncsn_tf/progress", "ncsn_tf/backend"),
    ("ncsn_tf/pictures", "ncsn_tf/calibration"),
    ("ncsn_tf/sde", "ncsn_tf/noise_levels"),
    ("ncsn_tf/times",),
    ("ncsn_tf/time_draws",),
    ("ncsn_tf/score", "ncsn_tf/config"),
    ("ncsn_tf/weightings",),
    ("ncsn_tf/objectives", "ncsn_tf/networks", "ncsn_tf/data", "ncsn_tf/densities", "ncsn_tf/ode"),
    ("ncsn_tf/samplers",),
    ("ncsn_tf/flow", "ncsn_tf/guidance", "ncsn_tf/classical", "ncsn_tf/interop"),
    ("ncsn_tf/cluster",),
    ("ncsn_tf/training", "ncsn_tf/evaluation", "ncsn_tf/serving"),
    # Apart from their folder: they make objects of what the others describe.
    ("ncsn_tf/config/choices",),
    ("ncsn_tf/config/walks",),
    ("ncsn_tf/config/build",),
    ("ncsn_tf/runs", "ncsn_tf/results"),
    ("ncsn_tf/jobs", "ncsn_tf/flow_jobs", "ncsn_tf/combinations"),
    ("ncsn_tf/sweep", "ncsn_tf/by_time", "ncsn_tf/reproduction"),
    ("launch", "configs"),
    ("tests", "benchmarks"),
)
# Rooms that know less than their place in the layers would allow: themselves and these.
INDEPENDENT = {
    "ncsn_tf/data": ("ncsn_tf/random", "ncsn_tf/files"),
    "ncsn_tf/networks": ("ncsn_tf/backend", "ncsn_tf/random"),
    "ncsn_tf/classical": (),
    "ncsn_tf/interop": (
        "ncsn_tf/backend",
        "ncsn_tf/files",
        "ncsn_tf/networks",
        "ncsn_tf/noise_levels",
        "ncsn_tf/score",
        "ncsn_tf/sde",
        "ncsn_tf/times",
    ),
    "ncsn_tf/cluster": ("ncsn_tf/files",),
    "configs": ("ncsn_tf/config",),
}
# What the library leaves to the launchers.
LAUNCHERS_ONLY = ("absl", "ml_collections")
CONFIGURATIONS_ONLY = ("absl", "ml_collections.config_flags")  # in ncsn_tf/config/


# The sources


@functools.cache
def modules() -> tuple[str, ...]:
    """Every module, as its path without the suffix: "ncsn_tf/data/images"."""
    files = (file for package in PACKAGES for file in (ROOT / package).rglob("*.py"))
    return tuple(sorted(file.relative_to(ROOT).as_posix().removesuffix(".py") for file in files))


@functools.cache
def syntax(module: str) -> ast.Module:
    return ast.parse((ROOT / f"{module}.py").read_text(encoding="utf-8"))


def imported_names(module: str) -> Iterator[str]:
    """The dotted names that a module imports at any depth: `from a import b` gives "a.b"."""
    for node in ast.walk(syntax(module)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = node.module or ""
            if node.level:  # `from .flags import cli` in launch/train.py: launch is ncsn_tf.launch in the wheel
                where = f"{module}.py:{node.lineno}"
                assert module.startswith("launch/"), f"{where}: write imports with their full name"
                folders = Path(module).parts[: -node.level]
                assert folders, f"{where}: leaves the package"
                start = ".".join((*folders, start)).rstrip(".")
            yield from (f"{start}.{alias.name}" for alias in node.names)


def find(name: str) -> str | None:
    """The module of the project that an imported name means, or None for the rest of the world."""
    parts = name.split(".")
    if parts[0] not in PACKAGES:
        return None
    for length in range(len(parts), 0, -1):  # "a.b.c" is module c of a.b, or a name in module b or package a.b
        for candidate in (Path(*parts[:length]), Path(*parts[:length], "__init__")):
            if (ROOT / f"{candidate}.py").is_file():
                return candidate.as_posix()
    return None


@functools.cache
def imports(module: str) -> frozenset[str]:
    """The modules of the project that a module imports by name."""
    found = (find(name) for name in imported_names(module))
    return frozenset(other for other in found if other is not None and other != module)


def is_test(module: str) -> bool:
    return module.startswith("tests/") and Path(module).name.startswith("test_")


def is_program(module: str) -> bool:
    guards = (ast.unparse(node.test) for node in syntax(module).body if isinstance(node, ast.If))
    return module.startswith(("launch/", "benchmarks/")) and "__name__ == '__main__'" in guards


# The BUILD files


@dataclasses.dataclass(frozen=True)
class Target:
    rule: str
    folder: str
    attributes: dict[str, Any]

    def labels(self, key: str) -> set[str]:
        """The labels in an attribute, in full: "//ncsn_tf/data:data"."""
        return {full_label(name, self.folder) for name in self.attributes.get(key, [])}

    @property
    def modules(self) -> list[str]:
        files = (label[2:].replace(":", "/").lstrip("/") for label in self.labels("srcs"))
        return sorted(file.removesuffix(".py") for file in files if file.startswith(PACKAGES))


def full_label(name: str, folder: str) -> str:
    if name.startswith("//"):
        return name if ":" in name else f"{name}:{name.rpartition('/')[2]}"
    return f"//{folder}:{name.removeprefix(':')}"


def short_label(label: str) -> str:
    folder, _, name = label.partition(":")
    return folder if folder.rpartition("/")[2] == name else label


def build_files() -> list[Path]:
    folders = (*PACKAGES, "bazel", "deploy", "docs")
    return [ROOT / "BUILD", *sorted(file for folder in folders for file in (ROOT / folder).rglob("BUILD"))]


@functools.cache
def targets() -> dict[str, Target]:
    """By label, what the BUILD files declare."""
    found: dict[str, Target] = {}
    for file in build_files():
        _run(file, found)
    return found


def _run(build: Path, found: dict[str, Target]) -> None:
    folder = build.parent.relative_to(ROOT).as_posix().removeprefix(".")

    def recorder(rule: str):
        def record(*, name: str, **attributes: Any) -> None:
            label = full_label(name, folder)
            assert label not in found, f"{label}: declared twice"
            found[label] = Target(rule, folder, {"name": name, **attributes})

        return record

    def package(path: Path) -> Path:  # a subfolder with a BUILD is a package of its own, which globs do not enter
        return next(folder for folder in path.parents if (folder / "BUILD").exists())

    def matching(patterns: Iterable[str]) -> set[str]:
        files = {path for pattern in patterns for path in build.parent.glob(pattern) if path.is_file()}
        return {path.relative_to(build.parent).as_posix() for path in files if package(path) == build.parent}

    def glob(include: list[str], exclude: Iterable[str] = (), allow_empty: bool = False) -> list[str]:
        kept = sorted(matching(include) - matching(exclude))
        assert kept or allow_empty, f"{build}: no file fits {include}"
        return kept

    def fail(message: str) -> None:
        raise AssertionError(f"{build}: {message}")

    rules = {rule: recorder(rule) for rule in ("py_library", "py_binary", "py_test", "filegroup")}
    ignored = dict.fromkeys(("load", "package", "exports_files"), lambda *_, **__: None)
    names = {**rules, **ignored, "fail": fail, "glob": glob}
    names["native"] = types.SimpleNamespace(**rules, glob=glob, package_name=lambda: folder)
    for file in (ROOT / "bazel" / "defs.bzl", build):
        exec(compile(file.read_text(encoding="utf-8"), file, "exec"), names)


@functools.cache
def owners() -> dict[str, str]:
    """By module, the label of its library."""
    found: dict[str, str] = {}
    for label, target in targets().items():
        if target.rule == "py_library":
            for module in target.modules:
                assert module not in found, f"{module}: in {found[module]} and in {label}"
                found[module] = label
    return found


def imported_targets(sources: Iterable[str]) -> set[str]:
    """The libraries of the modules that these modules import."""
    return {owners()[other] for module in sources for other in imports(module) if other in owners()}


@functools.cache
def reached(label: str, *keys: str) -> frozenset[str]:
    """A target or file, and all that these attributes of it and of theirs name."""
    named = [targets()[label].labels(key) for key in keys] if label in targets() else []
    return frozenset({label}.union(*(reached(other, *keys) for other in set().union(*named))))


def expected_deps(label: str) -> set[str]:
    """The labels that a target must depend on.

    A library depends on the modules that it imports and on the package above it, which Python loads first. Test files
    that share a row of tests/BUILD depend together on their imports, without those that another import provides.
    """
    target = targets()[label]
    if target.rule == "py_binary":
        return {full_label(f"//{target.folder}", "")}
    if target.rule == "py_library":
        return (imported_targets(target.modules) | _packages_above(target)) - {label}
    row = [other for other in targets().values() if other.rule == "py_test" and _row(other) == _row(target)]
    needed = imported_targets(module for other in row for module in other.modules)
    brought = set().union(*(reached(other, "deps") - {other} for other in needed))
    return needed - brought | {"//tests:tests"}


def _packages_above(target: Target) -> set[str]:
    """The libraries of the packages right above a library's modules or above the folder that it is."""
    folders = [folder for module in target.modules for folder in Path(module).parents[:2]]
    if not target.folder.endswith(target.attributes["name"]):  # a library of one module, whose folder has another
        folders = [Path(target.folder)]
    return {owners()[f"{folder}/__init__"] for folder in folders if f"{folder}/__init__" in owners()}


def _row(test: Target) -> str:
    """The folder of a test file, or the file if it is in tests/ itself."""
    file = test.attributes["name"]
    return file.rpartition("/")[0] or file


def test_build_files_state_what_modules_import():
    problems = []
    for label, target in targets().items():
        if target.rule in ("py_library", "py_binary", "py_test"):
            stated, needed = target.labels("deps"), expected_deps(label)
            problems += [f"{label}: deps lack {short_label(other)}" for other in sorted(needed - stated)]
            problems += [f"{label}: deps have {short_label(other)} for nothing" for other in sorted(stated - needed)]
    assert not problems, "\n" + "\n".join(problems)


def test_every_module_has_one_target():
    tests = {module: label for label, target in targets().items() for module in target.modules if is_test(module)}
    assert sorted(tests) == [module for module in modules() if is_test(module)]
    found = set().union(*(target.modules for target in targets().values()))
    assert [module for module in modules() if module not in found] == []
    for module, label in tests.items():
        assert targets()[label].attributes["args"][-1] == f"{module}.py", label
    programs = [target.attributes["args"][0] for target in targets().values() if target.rule == "py_binary"]
    assert sorted(programs) == [module.replace("/", ".") for module in modules() if is_program(module)]


def test_build_files_name_only_what_exists():
    for label, target in targets().items():
        for key in ("srcs", "data", "deps"):
            for other in target.labels(key) - set(targets()):
                assert (ROOT / other[2:].replace(":", "/").lstrip("/")).is_file(), f"{label}: {key} name {other}"


def test_a_change_of_the_requirements_runs_every_test_again():
    environment = targets()["//:environment"].labels("srcs")
    assert environment >= {"//:requirements.txt", "//:requirements-dev.txt", "//:pyproject.toml"}
    for label, target in targets().items():
        assert target.rule != "py_test" or "//:environment" in target.labels("data"), label


def test_bazel_gives_every_file_to_the_tests_that_read_all():
    files = {file.relative_to(ROOT).as_posix() for file in build_files()} | {f"{module}.py" for module in modules()}
    for name in ("test_structure", "test_readme", "test_packaging"):
        named = reached(f"//tests:{name}", "data", "deps", "srcs")
        assert files - {label[2:].replace(":", "/").lstrip("/") for label in named} == set(), name


def test_build_files_are_short():
    lines = sum(len(file.read_text(encoding="utf-8").splitlines()) for file in build_files())
    assert lines < MAX_BUILD_LINES


# The direction of imports


def room(module: str) -> str | None:
    """The room of LAYERS that a module belongs to; a package's own __init__ belongs to none of its rooms."""
    rooms = [name for layer in LAYERS for name in layer if module == name or module.startswith(f"{name}/")]
    return max(rooms, key=len, default=None)


def allowed(start: str, end: str) -> bool:
    """Returns whether modules of the room `start` may import those of the room `end`."""
    if start == end:
        return True
    if start in INDEPENDENT:
        return end in INDEPENDENT[start]
    place = {name: number for number, layer in enumerate(LAYERS) for name in layer}
    return place[end] < place[start]


def test_imports_run_one_way():
    problems = []
    for module in modules():
        start, others = room(module), sorted(imports(module))
        if module == "ncsn_tf/__init__":
            problems += [f"{module}: imports {other}, which every module would then load" for other in others]
        elif start is None:
            problems.append(f"{module}: in no room; give it its place in LAYERS")
        else:
            ends = [(other, room(other)) for other in others]
            problems += [
                f"{module}: imports {other}; {start} may not import {end}"
                for other, end in ends
                if end is not None and not allowed(start, end)
            ]
    assert not problems, "\n" + "\n".join(problems)


def test_imports_have_no_cycle():
    cycle = []
    try:
        graphlib.TopologicalSorter({module: imports(module) for module in modules()}).prepare()
    except graphlib.CycleError as error:
        cycle = error.args[1]
    assert not cycle, f"Modules import each other: {' <- '.join(cycle)}"


def test_the_library_knows_neither_flags_nor_configurations():
    problems = []
    for module in modules():
        barred = CONFIGURATIONS_ONLY if module.startswith("ncsn_tf/config/") else LAUNCHERS_ONLY
        for name in sorted(set(imported_names(module))) if module.startswith("ncsn_tf/") else []:
            if any(f"{name}.".startswith(f"{other}.") for other in barred):
                problems.append(f"{module}: imports {name}, which is left to the launchers")
    assert not problems, "\n" + "\n".join(problems)

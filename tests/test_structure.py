"""BUILD states what the modules import, and imports run one way.

Both are read from the sources with `ast`: nothing of the project is imported, so these tests cost next to nothing.
"""

import ast
import graphlib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("ncsn_tf", "launch", "configs", "tests", "benchmarks")
RUNNER = "tests/run_pytest.py"  # the main of every py_test, in the sources of each rather than in a target of its own

# From the foundations up. A room, which is a module or a folder, may import itself and the rooms of the lines above its
# own, but not those on its own line.
LAYERS = (
    ("ncsn_tf/seeds", "ncsn_tf/files", "ncsn_tf/pictures", "ncsn_tf/defaults", "ncsn_tf/sections"),
    ("ncsn_tf/sde", "ncsn_tf/noise"),
    ("ncsn_tf/score",),
    ("ncsn_tf/objectives", "ncsn_tf/samplers", "ncsn_tf/likelihood", "ncsn_tf/data", "ncsn_tf/networks"),
    ("ncsn_tf/conditional", "ncsn_tf/classical", "ncsn_tf/interop"),
    ("ncsn_tf/training", "ncsn_tf/evaluation", "ncsn_tf/export"),
    ("ncsn_tf/build",),
    ("ncsn_tf/runs",),
    ("ncsn_tf/sweep", "ncsn_tf/reproduction"),
    ("launch", "configs"),
    ("tests", "benchmarks"),
)
# Rooms that know less than their place in the layers would allow: themselves and these.
INDEPENDENT = {
    "ncsn_tf/data": ("ncsn_tf/seeds",),
    "ncsn_tf/networks": (),
    "ncsn_tf/interop": ("ncsn_tf/networks",),
    "configs": ("ncsn_tf/defaults",),
}
# What the library leaves to the launchers, and the one module that may write a configuration down.
LAUNCHERS_ONLY = ("absl.app", "absl.flags", "ml_collections")
CONFIGURATION = {"ncsn_tf/defaults": ("absl.app", "absl.flags", "ml_collections.config_flags")}


def modules() -> list[str]:
    """Every module, as its path without the suffix, "ncsn_tf/data/images"; that is the name of its target too."""
    files = (file for package in PACKAGES for file in (ROOT / package).rglob("*.py"))
    paths = (file.relative_to(ROOT).as_posix() for file in files)
    return sorted(path.removesuffix(".py") for path in paths if path != RUNNER)


def imported_names(module: str) -> Iterator[str]:
    """The dotted names that a module imports at any depth: `from a import b` gives "a.b"."""
    for node in ast.walk(syntax(module)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"{module}.py:{node.lineno}: write imports with their full name"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def syntax(module: str) -> ast.Module:
    return ast.parse((ROOT / f"{module}.py").read_text(encoding="utf-8"))


def imports(module: str) -> set[str]:
    """The modules of the project that a module imports by name."""
    found = (find(name, module) for name in imported_names(module))
    return {other for other in found if other is not None and other != module}


def find(name: str, importer: str) -> str | None:
    """The module of the project that an imported name means, or None for the rest of the world."""
    parts = name.split(".")
    folder = Path(importer).parent
    # A folder without __init__.py holds scripts, which also find their neighbours by bare name.
    starts = [Path()] if (ROOT / folder / "__init__.py").exists() else [Path(), folder]
    for start in starts:
        if start == Path() and parts[0] not in PACKAGES:
            continue
        for length in range(
            len(parts), 0, -1
        ):  # "a.b.c" is module c of a.b, or something within module b or package a.b
            path = start.joinpath(*parts[:length])
            for candidate in (path, path / "__init__"):
                if (ROOT / f"{candidate}.py").is_file():
                    return candidate.as_posix()
    return None


def expected_deps(module: str) -> set[str]:
    """What the target of a module must depend on: what it imports, and what Python or pytest load before it."""
    implicit = Path(module).parent / "__init__"  # of the package that the module, or the package itself, lies in
    if Path(module).name == "__init__":
        implicit = Path(module).parents[1] / "__init__"
    before = {implicit.as_posix()}
    if is_test(module):
        before.add("tests/conftest")
    return imports(module) | {other for other in before if (ROOT / f"{other}.py").is_file()}


def is_test(module: str) -> bool:
    return module.startswith("tests/test_")


def expected_rule(module: str) -> str:
    if is_test(module):
        return "py_test"
    guards = (ast.unparse(node.test) for node in syntax(module).body if isinstance(node, ast.If))
    return "py_binary" if "__name__ == '__main__'" in guards else "py_library"


# BUILD


def targets() -> dict[str, tuple[str, dict[str, ast.expr]]]:
    """Name -> (rule, attributes) of everything in BUILD that has a name."""
    found = {}
    for statement in ast.parse((ROOT / "BUILD").read_text(encoding="utf-8")).body:
        if not isinstance(statement, ast.Expr):
            raise AssertionError(f"BUILD:{statement.lineno}: only calls of rules are understood")
        call = statement.value
        if isinstance(call, ast.Constant):
            continue  # the docstring
        assert isinstance(call, ast.Call) and isinstance(call.func, ast.Name), f"BUILD:{statement.lineno}: no rule"
        attributes = {keyword.arg: keyword.value for keyword in call.keywords if keyword.arg is not None}
        if "name" in attributes:
            name = ast.literal_eval(attributes["name"])
            assert name not in found, f"BUILD:{statement.lineno}: a second target {name!r}"
            found[name] = (call.func.id, attributes)
    return found


def listed(expression: ast.expr | None) -> list[str]:
    """The strings of a list, of a glob as the patterns, or of a sum of these."""
    if expression is None:
        return []
    if isinstance(expression, ast.BinOp):
        return listed(expression.left) + listed(expression.right)
    if isinstance(expression, ast.Call):
        return listed(expression.args[0])
    value = ast.literal_eval(expression)
    return [value] if isinstance(value, str) else value


def problems_of(name: str, rule: str, attributes: dict[str, ast.expr]) -> Iterator[str]:
    """What is wrong with the target of a module."""
    path, expected = f"{name}.py", expected_rule(name)
    if rule != expected:
        yield f"is a {rule}; {path} makes it a {expected}"
    srcs, args, main = (listed(attributes.get(key)) for key in ("srcs", "args", "main"))
    if expected != "py_test":
        if srcs != [path]:
            yield f"srcs must be [{path!r}], not {srcs}"
    elif (sorted(srcs), args, main) != (sorted([RUNNER, path]), [path], [RUNNER]):
        yield f"a test has srcs {sorted([RUNNER, path])}, args [{path!r}] and main {RUNNER!r}"
    stated, needed = set(listed(attributes.get("deps"))), {f":{other}" for other in expected_deps(name)}
    if needed - stated:
        yield f"deps lack {', '.join(sorted(needed - stated))}"
    if stated - needed:
        yield f"deps state what {path} does not import: {', '.join(sorted(stated - needed))}"


def test_build_file_states_the_modules_and_their_imports():
    found, known = targets(), modules()
    problems = [f"{module}: BUILD has no target" for module in known if module not in found]
    for name, (rule, attributes) in found.items():
        if name in known:
            problems += [f"{name}: {problem}" for problem in problems_of(name, rule, attributes)]
        elif rule.startswith("py_"):
            problems.append(f"{name}: {rule} of no module; there is no {name}.py")
        for key in ("srcs", "data"):
            for label in listed(attributes.get(key)):
                exists = label[1:] in found if label.startswith(":") else any(ROOT.glob(label))
                if not exists:
                    problems.append(f"{name}: {key} name {label!r}, which does not exist")
    assert not problems, "\n" + "\n".join(problems)


# The direction of imports


def room(module: str) -> str | None:
    """The room of LAYERS that a module lies in; a package's own __init__ lies in none of its rooms."""
    rooms = [name for layer in LAYERS for name in layer if module == name or module.startswith(f"{name}/")]
    return rooms[0] if rooms else None


def allowed(start: str, end: str) -> bool:
    """Whether modules of the room `start` may import those of the room `end`."""
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


def test_the_library_knows_neither_flags_nor_configurations():
    problems = []
    for module in modules():
        barred = CONFIGURATION.get(module, LAUNCHERS_ONLY) if module.startswith("ncsn_tf/") else ()
        for name in sorted(set(imported_names(module))):
            if any(f"{name}.".startswith(f"{other}.") for other in barred):
                problems.append(f"{module}: imports {name}, which is the launchers' business")
    assert not problems, "\n" + "\n".join(problems)


def test_imports_have_no_cycle():
    cycle = []
    try:
        graphlib.TopologicalSorter({module: imports(module) for module in modules()}).prepare()
    except graphlib.CycleError as error:
        cycle = error.args[1]
    assert not cycle, f"Modules import each other: {' <- '.join(cycle)}"

"""The macros of this repository's BUILD files."""

load("@rules_python//python:defs.bzl", "py_binary", "py_library", "py_test")

_RUN = "//bazel:run_module.py"
_PUBLIC = ["//visibility:public"]

def package_library(deps = []):
    """A library with the folder's name: its modules, and those of its subfolders that have no BUILD of their own.

    Args:
      deps: what these modules import. The parent package, which Python loads first, is added.
    """
    parent, _, name = native.package_name().rpartition("/")
    py_library(
        name = name,
        srcs = native.glob(["**/*.py"]),
        data = ["BUILD"],  # for tests/test_structure.py
        visibility = _PUBLIC,
        deps = deps + (["//" + parent] if parent else []),
    )

def module_libraries(deps = {}):
    """A library per module, for a folder whose modules belong to several layers; `__init__.py` has the folder's name.

    Args:
      deps: by module, what it imports; modules that import nothing of the project may be left out.
    """
    parent, _, name = native.package_name().rpartition("/")
    py_library(
        name = name,
        srcs = ["__init__.py"],
        visibility = _PUBLIC,
        deps = ["//" + parent] if parent else [],
    )
    native.filegroup(
        name = "sources",
        srcs = native.glob(["*.py"]) + ["BUILD"],  # for tests/test_structure.py
        visibility = _PUBLIC,
    )
    modules = [src[:-len(".py")] for src in native.glob(["*.py"], exclude = ["__init__.py"])]
    for module in deps:
        if module not in modules:
            fail("There is no module " + module)
    for module in modules:
        py_library(
            name = module,
            srcs = [module + ".py"],
            visibility = _PUBLIC,
            deps = deps.get(module, []) + [":" + name],
        )

def module_binaries(modules, data = []):
    """A program per module: `bazel run //launch:train` runs `python -m launch.train`."""
    package = native.package_name()
    for module in modules:
        py_binary(
            name = module,
            srcs = [_RUN],
            args = ["%s.%s" % (package.replace("/", "."), module)],
            data = data,
            legacy_create_init = 0,
            main = _RUN,
            visibility = _PUBLIC,
            deps = [":" + package.rpartition("/")[2]],
        )

def ncsn_test(src, deps, data = {}):
    """Runs pytest on one file; a change of the requirements runs it again.

    Args:
      src: the file, "samplers/test_driver.py".
      deps: libraries, by test file or by folder of test files.
      data: what tests open or start as programs, likewise.
    """
    folder = src.rpartition("/")[0]
    key = src if src in deps else folder
    if key not in deps:
        fail("deps has no row for %s or its folder" % src)
    py_test(
        name = src[:-len(".py")],
        timeout = "long",
        srcs = [src, _RUN] + (native.glob([folder + "/__init__.py", folder + "/conftest.py"]) if folder else []),
        args = ["pytest", "-p", "no:cacheprovider", "%s/%s" % (native.package_name(), src)],
        data = data.get(key, []) + ["//:environment"],
        legacy_create_init = 0,
        main = _RUN,
        deps = deps[key] + [":tests"],
    )

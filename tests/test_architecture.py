"""The direction of imports, the layout, and what importing costs."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

import pytest_mlchaos

ROOT = Path(pytest_mlchaos.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
BELOW = {
    "errors": (),
    "core": ("errors",),
    "engine": ("core",),
    "processes": ("engine",),
    "search": ("engine",),
    "sites": ("engine",),
    "oracles": ("core",),
    "reports": ("core",),
    "runs": ("processes", "search", "sites", "oracles"),
    "crashes": ("runs",),
    "ranks": ("runs",),
    "serving": ("runs",),
    "pipelines": ("runs",),
    "federation": ("runs",),
    "monitoring": ("runs",),
    "comparing": ("runs",),
    "breaking": ("runs",),
    "faults": ("runs",),
    "decorators": ("faults",),
    "testing": ("processes", "oracles"),
    "plugin": (
        *("crashes", "ranks", "serving", "pipelines", "federation", "monitoring"),
        *("comparing", "breaking"),
        *("reports", "decorators"),
    ),
    "export": ("reports",),
    "__init__": (),
    "merging": ("crashes", "reports"),
    "cluster": ("reports", "processes"),
    "__main__": ("plugin", "merging", "cluster"),
}
"""For each part of the package, the parts right below it: it may import these, and whatever is
below them.
"""
RUNNERS = {
    "crashes": {"run", "runners", "explore", "api", "baseline"},
    "ranks": {"world", "attempt", "rank", "agent", "api"},
}
RUNNERS |= {
    "serving": {"app_runner", "load_generators", "asgi", "api"},
    "pipelines": {"runner"},
    "federation": {"runner", "api", "plain", "exchange"},
    "monitoring": {"observer", "api"},
    "breaking": {"runner", "api"},
    "runs": {"supervisor", "isolated"},
    "comparing": {"seeds", "api"},
}
DATA = {
    "model",
    "models",
    "records",
    "traces",
    "verdicts",
    "report",
    "diagnosis",
    "world_diagnosis",
    "rank_run",
    "slo",
    "golden_load",
    "resumption",
    "compare_files",
}
HEAVY = {
    "torch",
    "numpy",
    "hypothesis",
    "pandas",
    "pyarrow",
    "fsspec",
    "httpx",
    "jinja2",
    "vl_convert",
    "opentelemetry",
    "prometheus_client",
    "mlflow",
    "wandb",
    "ray",
    "distributed",
}


def part(path):
    """The part of the package that a file belongs to."""
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def shown(path):
    """A file's path below the package."""
    return str(path.relative_to(ROOT))


def allowed(name):
    """The parts that a part may import."""
    return {other for below in BELOW[name] for other in ({below} | allowed(below))}


def imports(path, *, top_level=False):
    """The absolute names of what a file imports (but for type checking):
    ``pytest_mlchaos.core.sites``, ``torch``.
    """
    tree = ast.parse(path.read_text())
    package = ("pytest_mlchaos", *path.relative_to(ROOT).parts[:-1])
    skipped = {
        id(n)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for n in ast.walk(node)
    }
    nodes = tree.body if top_level else ast.walk(tree)
    for node in nodes:
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            base = ".".join(filter(None, [base, node.module]))
            yield from (
                [f"{base}.{alias.name}" for alias in node.names]
                if base == "pytest_mlchaos" or node.level
                else [base]
            )


def test_imports_go_one_way():
    """The kernel, then what runs and strikes, then the areas, which do not see each other. Nothing
    imports the plugin.
    """
    wrong = [
        f"{shown(path)} imports {name}"
        for path in FILES
        for name in imports(path)
        if name.startswith("pytest_mlchaos.")
        and name.split(".")[1] not in {part(path), *allowed(part(path))}
    ]
    assert not wrong


def test_what_judges_runs_imports_nothing_that_makes_them():
    """Inside an area, records, verdicts and reports are data: they can be tested without a run."""
    data = [
        path
        for path in FILES
        if part(path) in RUNNERS and (path.stem in DATA or "judgements" in path.parts)
    ]
    assert data
    wrong = [
        f"{shown(path)} imports {name}"
        for path in data
        for name in imports(path)
        if (parts := name.split("."))[0] == "pytest_mlchaos"
        and len(parts) > 2
        and parts[2] in RUNNERS.get(parts[1], ())
    ]
    assert not wrong


def test_nothing_heavy_is_imported_at_the_top_of_a_file():
    """Libraries are imported where they are needed."""
    found = {
        shown(path): {name.partition(".")[0] for name in imports(path, top_level=True)} & HEAVY
        for path in FILES
    }
    assert not {path: names for path, names in found.items() if names}


def test_core_needs_the_standard_library_alone():
    """Not even pytest."""
    names = {
        name.partition(".")[0] for path in FILES if part(path) == "core" for name in imports(path)
    }
    assert names - {"pytest_mlchaos"} <= set(sys.stdlib_module_names)


def test_files_and_functions_can_be_read_at_a_sitting():
    """Files of one thought, under 700 lines; functions under 75, beside their docstrings."""
    long = [shown(path) for path in FILES if path.read_text().count("\n") >= 700]
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                words = (ast.get_docstring(node, clean=False) or "").count("\n")
                if node.end_lineno - node.lineno - words >= 75:
                    long.append(f"{shown(path)}: {node.name}")
    assert not long


def test_every_file_says_what_it_exports():
    """``__all__`` is there, and names what the file defines."""
    wrong = []
    for path in FILES:
        if path.name in ("__init__.py", "errors.py"):
            continue
        body = ast.parse(path.read_text()).body
        defined = {
            node.name
            for node in body
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
        }
        plain = {
            target.id: node.value
            for node in body
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        assigned = plain | {
            node.target.id: node.value for node in body if isinstance(node, ast.AnnAssign)
        }
        exported = assigned.get("__all__")
        if exported is None or not set(ast.literal_eval(exported)) <= defined | assigned.keys():
            wrong.append(shown(path))
    assert not wrong


def loaded_by(code):
    """The modules that a fresh interpreter has loaded after some code."""
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "code",
    [
        "import pytest_mlchaos",
        "import pytest_mlchaos.plugin",
        "from pytest_mlchaos import MlchaosError",
    ],
)
def test_importing_the_package_or_its_plugin_loads_nothing_heavy(code):
    """Each test run with the plugin installed pays for its imports."""
    loaded = loaded_by(code)
    assert not loaded & HEAVY
    assert not {
        name
        for name in loaded
        if name.startswith(
            (
                "pytest_mlchaos.engine",
                "pytest_mlchaos.search",
                "pytest_mlchaos.sites",
                "pytest_mlchaos.runs",
            )
        )
    }


def test_a_session_without_chaos_tests_loads_no_fault_and_no_schedule():
    """The plugin itself is loaded in each run of pytest."""
    assert not loaded_by("import pytest_mlchaos.plugin") & {
        "pytest_mlchaos.core.faults",
        "pytest_mlchaos.core.schedule",
    }


def test_declaring_faults_loads_no_library():
    """Decorators are names and keywords; a test module imports fast."""
    assert (
        not loaded_by(
            "from pytest_mlchaos import chaos, Fault, visit; chaos.gpu_oom(at=3); "
            "chaos.corrupt_batch"
        )
        & HEAVY
    )


def test_every_public_name_is_there_and_has_a_docstring():
    """The lazy table is true, and its members are explained."""
    for name in pytest_mlchaos.__all__:
        value = getattr(pytest_mlchaos, name)
        assert isinstance(value, str) or value.__doc__, name
    assert set(pytest_mlchaos.__all__) <= set(dir(pytest_mlchaos))
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        pytest_mlchaos.nonsense  # noqa: B018


def test_no_library_is_named_to_pass_a_case():
    """Code that works must work for any framework."""
    for path in FILES:
        for name in (
            "lightning",
            "transformers",
            "accelerate",
            "skorch",
            "ignite",
            "timm",
            "keras",
        ):
            assert name not in path.read_text().lower(), f"{path.name} names {name}"


def test_a_missing_extra_names_the_install_to_run(example, monkeypatch):
    """Only the test that needs it fails."""
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name == "torch" else find(name, *rest),
    )
    outcome = example.with_tests(
        "@chaos.gpu_oom(at=0)\ndef test_it(): pass\ndef test_other(): pass"
    ).run(failed=1, passed=1)
    outcome.has(
        "MissingExtra: chaos.gpu_oom needs torch, which is not installed: python -m pip install "
        "'pytest-mlchaos[torch]'"
    )

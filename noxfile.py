"""The project's jobs: ``nox -s tests``, ``demo``, ``lint``, ``types``, ``bench`` and more; ``nox -l`` lists them."""

from __future__ import annotations

import pathlib

import nox

nox.options.sessions = ["tests", "lint", "types"]
nox.options.reuse_existing_virtualenvs = True
nox.options.error_on_missing_interpreters = True  # a session that is skipped must not look like one that passed

TORCH = "torch==2.13.0"
"""Pinned: a plain ``torch`` may fetch gigabytes of CUDA packages. The package itself accepts torch >= 2.4."""
PLUGINS = ("pytest-xdist", "pytest-asyncio", "anyio", "trio", "pytest-timeout")
ASYNC = ("-o", "asyncio_default_fixture_loop_scope=function")
"""What pytest-asyncio asks to be told."""
CUT_OFF = ("--timeout=600", "--timeout-method=thread")
"""A test that hangs ends the run, with the stacks of all threads."""
LIGHTNING = "pytorch-lightning"
TRANSFORMERS = ("transformers", "accelerate")
"""Trainers that meet the faults unmodified."""
DATA = ("pandas>=2", "pyarrow>=15", "scipy")
SERVE = ("httpx>=0.27", "fastapi")
IMAGES = ("opencv-python-headless>=4.8", "pillow")
STORAGE = ("s3fs>=2024.2", "moto[s3,server]>=5", "safetensors>=0.4")
PEERS = ("ckpt-chaos==0.1.8", "pytest-torch==1.1.1")
"""What they are measured against."""
SETUPTOOLS = "setuptools<81"
"""Newer ones have no pkg_resources, which some peers import."""
IMAGE_PEERS = ("imagecorruptions==1.1.2", SETUPTOOLS)
FLIP_PEERS = ("pytorchfi==0.6.0", "MRFI==2.1.0")
"""They ask for torchvision, of which no bit is flipped: installed without what they depend on, but for these."""
NEEDED_BY_FLIP_PEERS = ("pyyaml", "scipy")
TABLE_PEERS = ("havoc-monkey==1.0.0", "scikit-learn", SETUPTOOLS)
JENGA = ("--no-deps", "--ignore-requires-python", "jenga==0.0.1a1")
"""It asks for Python < 3.10, and works on 3.11; scikit-learn and pkg_resources are what it imports."""
DOCS = nox.project.dependency_groups(nox.project.load_toml("pyproject.toml"), "docs")
"""The site. mkdocstrings reads the source code, so neither the package nor torch is installed."""
PROCESS = ("cloudpickle>=3", "psutil>=5.9")
FSSPEC = "https://github.com/fsspec/filesystem_spec"
"""Its releases on PyPI have no tests."""
STORING = ("test_shutil", "test_tempfile", "test_zipfile", "test_tarfile", "test_gzip", "test_fileinput", "test_shelve", "test_pathlib")
"""Modules of the standard library's own tests that work with files. Those of the copies that go around file objects are left out: storage
faults switch these copies off."""
NEEDED_BY_FSSPEC = ("aiohttp", "requests", "tqdm", "jinja2", "cloudpickle", "pyarrow", "zarr", "dask", "lz4", "zstandard", "pytest-mock")
CLOSE_TO_LIBRARIES = tuple(
    f"tests/test_{name}.py"
    for name in ("fresh", "world", "trainers_device", "serving_asgi", "storage_fsspec", "storage_s3", "storage_tensors", "tables_plugin")
)
"""They break first when a release of cloudpickle, a trainer, fastapi, httpx, fsspec, pandas or pyarrow changes something."""


def _install_with_torch(session: nox.Session, *packages: str) -> None:
    """Install the package and ``packages``; torch first, so that nothing picks another build."""
    session.install(TORCH)
    session.install(".", *packages, TORCH)


@nox.session(python="3.11")
def tests(session: nox.Session) -> None:
    """The tests, with torch, against the installed package."""
    _install_with_torch(session, *PLUGINS, *DATA, *SERVE, *STORAGE, *PROCESS, *IMAGES, LIGHTNING, *TRANSFORMERS)
    session.run("pytest", "-n", "2", *ASYNC, *CUT_OFF, *session.posargs)


@nox.session(python="3.11")
def coverage(session: nox.Session) -> None:
    """Coverage of lines and branches by the tests, in all processes that they start; ``-- ARGUMENTS`` for pytest. It takes minutes."""
    _install_with_torch(session, "coverage[toml]>=7.10", *PLUGINS, *DATA, *SERVE, *STORAGE, *PROCESS, *IMAGES, LIGHTNING, *TRANSFORMERS)
    session.run("coverage", "erase")
    # Not pytest-cov: it starts after the plugin under test has been imported.
    session.run("coverage", "run", "-m", "pytest", "-n", "2", *ASYNC, *CUT_OFF, *session.posargs)
    session.run("coverage", "combine", "--quiet")
    session.run("coverage", "xml")
    session.run("coverage", "report")
    totals = session.run("coverage", "report", "--format=total", silent=True)
    pathlib.Path("coverage.txt").write_text(f"Lines and branches covered: {str(totals).strip()} %\n", encoding="utf-8")


@nox.session(python="3.11")
def newest(session: nox.Session) -> None:
    """Run the tests that are closest to other libraries, with the newest release of everything but torch."""
    session.install(TORCH)
    packages = (*PLUGINS, *DATA, *SERVE, *STORAGE, *PROCESS, *IMAGES, LIGHTNING, *TRANSFORMERS)
    session.install("--upgrade", "--upgrade-strategy", "eager", ".", *packages, TORCH)  # an environment that is reused, too
    session.run("pytest", "-n", "2", *ASYNC, *CUT_OFF, *(session.posargs or CLOSE_TO_LIBRARIES))


@nox.session(python=["3.11", "3.12", "3.13", "3.14"])
def light(session: nox.Session) -> None:
    """The tests that need no torch, on each Python, with the hard dependencies alone; on newer ones two at a time."""
    parallel = ("-n", "2") if session.python != "3.11" else ()
    session.install(".", "pytest-asyncio", "pytest-timeout", *(["pytest-xdist"] if parallel else []))
    session.run("pytest", *parallel, *ASYNC, *CUT_OFF, *session.posargs)


@nox.session(python="3.11")
def oldest(session: nox.Session) -> None:
    """The tests that need no torch, with the oldest releases that the package accepts."""
    oldest = ("pytest==8.3.0", "hypothesis==6.100.0", "numpy==1.26.0", "cloudpickle==3.0.0")
    session.install(".", *oldest, "pytest-asyncio<1", "pytest-timeout", "pytest-xdist")
    session.run("pytest", "-n", "2", *ASYNC, *CUT_OFF, *session.posargs)


@nox.session(python="3.11")
def privacy(session: nox.Session) -> None:
    """A thousand canaries through each entry point: none may be in what the tool writes."""
    _install_with_torch(session, *DATA, *SERVE, *PROCESS)
    session.run("pytest", "tests/test_privacy.py", *session.posargs, env={"MLCHAOS_CANARIES": "1000"})


@nox.session(python="3.11")
def demo(session: nox.Session) -> None:
    """Run the examples. The unsound ones must fail for the stated reason."""
    _install_with_torch(session, LIGHTNING, *DATA, *SERVE, *STORAGE, *PROCESS)
    session.run("python", "examples/demo.py", *session.posargs)


@nox.session(python="3.11")
def lint(session: nox.Session) -> None:
    """Style, and misspelt words."""
    session.install("ruff", "codespell")
    session.run("codespell")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session(python="3.11")
def docs(session: nox.Session) -> None:
    """Build the site into ``site/``, with warnings as errors; ``-- serve`` shows it while you write."""
    session.install(*DOCS)
    command = session.posargs or ("build",)
    session.run("mkdocs", *command, "--strict", env={"NO_MKDOCS_2_WARNING": "1"})


@nox.session(python="3.11")
def types(session: nox.Session) -> None:
    """Types of the package, and of the public API as users see it, strictly."""
    session.install("mypy", "pyright[nodejs]", ".")
    session.run("mypy")
    session.run("mypy", "--strict", "tests/typed")
    session.run("pyright", "--project", "tests/typed")


@nox.session(python="3.11")
def bench(session: nox.Session) -> None:
    """The benchmarks, as ratios within one run; ``-- --quick`` for a short one."""
    _install_with_torch(session, *DATA, *SERVE, *STORAGE, *PROCESS, *IMAGES)
    session.run("python", "benchmarks/run.py", "--json", "bench.json", *session.posargs)


@nox.session(python="3.11")
def transparency(session: nox.Session) -> None:
    """Other projects' tests, plain and with faults armed that never strike, must end alike; ``-- FOLDER``: a checkout of fsspec."""
    session.install(".", "pytest-asyncio", "pytest-timeout", *NEEDED_BY_FSSPEC, *DATA)
    checkout = pathlib.Path(session.posargs[0]) if session.posargs else pathlib.Path(session.create_tmp()) / "fsspec"
    if not checkout.exists():
        session.run("git", "clone", "--quiet", "--depth", "1", FSSPEC, str(checkout), external=True)
    session.run("python", "tests/armed_quiet.py", "--faults", "storage", "--stdlib", *STORING, "-knot ZeroCopy")
    session.run("python", "tests/armed_quiet.py", "--faults", "storage", str(checkout), "--timeout=120", *ASYNC)


@nox.session(python="3.11")
def corpus(session: nox.Session) -> None:
    """Real training programs, sound and unsound: is each judged as it must be? ``-- [--current] [FOLDER ...] [NAME ...]``."""
    session.run("python", "corpus/judge.py", *session.posargs)


@nox.session(python="3.11")
def layers(session: nox.Session) -> None:
    """Programs of the corpus whose libraries are in a ``.pth`` layer, on ``PYTHONPATH``, in the user's folder, or beside the program."""
    session.run("python", "corpus/layers.py", *session.posargs)


@nox.session(python="3.11")
def interrupts(session: nox.Session) -> None:
    """Ctrl-C 500 times, at random moments of each way to run code: nothing stays patched, no process is left. It takes minutes."""
    _install_with_torch(session, *PROCESS)
    session.run("python", "tests/interrupts/soak.py", *session.posargs)


@nox.session(python="3.11")
def peers(session: nox.Session) -> None:
    """Compare with other tools at the same work. Use ``-- --points 6`` for a first look.

    It takes minutes, so it does not run in CI.
    """
    _install_with_torch(session, *PROCESS, *PEERS, *DATA, *TABLE_PEERS, *IMAGE_PEERS, *NEEDED_BY_FLIP_PEERS)
    session.install("--no-deps", *FLIP_PEERS)
    session.install(*JENGA)
    session.run("python", "benchmarks/tables.py", "--json", "peers-tables.json")
    session.run("python", "benchmarks/images.py", "--json", "peers-images.json")
    session.run("python", "benchmarks/bitflips.py", "--json", "peers-bitflips.json")
    session.run("python", "benchmarks/peers.py", "--json", "peers.json", *session.posargs)


@nox.session(python="3.11")
def wheel(session: nox.Session) -> None:
    """Build the wheel, and try it in an environment that has nothing else."""
    session.install("build")
    folder = pathlib.Path(session.create_tmp())
    session.run("python", "-m", "build", "--outdir", str(folder))
    built = max(folder.glob("*.whl"), key=lambda path: path.stat().st_mtime)
    session.install("--force-reinstall", str(built))
    session.run("pytest", "--mlchaos-faults", silent=True)

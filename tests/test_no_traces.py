"""Nothing that the plugin did is visible to a later test (needs torch): what modules hold is
compared around each entry point.
"""

from __future__ import annotations

import pytest

pytest.importorskip("torch")
pytest.importorskip("pandas")
pytest.importorskip("pyarrow")
pytest.importorskip("fsspec")
JOB = """
    import asyncio, os, subprocess, threading, time
    from pathlib import Path

    import fsspec
    import pandas
    import pyarrow.parquet
    import torch
    from torch.utils.data import DataLoader

    def train(workdir):
        torch.manual_seed(0)
        model = torch.nn.Linear(2, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        path, start = Path(workdir) / "last.pt", 0
        if path.exists():
            saved = torch.load(path)
            model.load_state_dict(saved["model"])
            start = saved["step"]
        for step, x in enumerate(DataLoader(torch.ones(3, 2)), 0):
            if step >= start:
                model(x).sum().backward()
                optimizer.step()
                optimizer.zero_grad()
                time.sleep(0.001)
                torch.save({"model": model.state_dict(), "step": step + 1}, path.with_suffix(".new"))
                os.replace(path.with_suffix(".new"), path)
        return model.state_dict()

    def filled(folder):
        pandas.DataFrame({"a": [1.0, 2.0, 3.0], "b": [4, 5, 6]}).to_parquet(folder / "in.parquet")
        return folder / "in.parquet"

    def clean(file):
        table = pandas.read_parquet(file)
        table.to_csv(file.with_suffix(".csv"))
        return table.sum().to_dict()

    def remote():
        with fsspec.open("memory://a.txt", "w") as file:
            file.write("x")
        with fsspec.open("memory://a.txt") as file:
            return file.read()

    def load(x):
        return x

    def loads():
        try:
            return load(1)
        except ConnectionError:
            return load(1)

    async def handle(x):
        await asyncio.sleep(0.01)
        return load(x)

    async def asgi(scope, receive, send):
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x"})

    def rank():
        return os.environ["RANK"]
"""
DIGEST = """
    import importlib, sys, types

    NAMES = ("torch", "os", "io", "builtins", "asyncio", "time", "threading", "pandas", "pyarrow", "fsspec",
             "asyncio.events", "selectors", "subprocess", "multiprocessing.process", "posixpath", "shutil", "random", "signal", "copyreg",
             "importlib", "importlib._bootstrap", "torch.serialization", "torch.nn.modules.module", "torch.optim.optimizer",
             "torch.utils.data.dataloader", "torch.autograd.graph", "pandas.io.parquet", "pyarrow.parquet",
             "fsspec.spec", "fsspec.core", "job")
    PLUGINS = ("pytest_mlchaos", "hypothesis", "cloudpickle", "httpx", "httpcore", "anyio", "sniffio", "h11", "certifi", "idna", "click")

    COUNTERS = ".RemovableHandle.next_id"  # torch numbers each hook that there ever was

    def digest():
        found = {}
        for module in map(importlib.import_module, NAMES):
            for name, value in vars(module).items():
                found[f"{module.__name__}.{name}"] = value
                if isinstance(value, type):
                    found.update((f"{module.__name__}.{name}.{key}", held) for key, held in vars(value).items())
            found[f"loader of {module.__name__}"] = dict(getattr(module.__spec__.loader, "__dict__", {}))
        found["sys"] = [sys.meta_path[:], sys.path[:], sys.path_hooks[:], sys.getprofile(), sys.gettrace(), sys.excepthook, hooks()]
        found["modules"] = {name: id(module) for name, module in sys.modules.items()}
        return found

    def hooks():
        import asyncio, signal, threading
        return [threading.excepthook, signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGALRM)]

    def differences(before, after):
        old, new = before.pop("modules"), after.pop("modules")
        changed = [name for name in {**before, **after} if name not in before or name not in after or differs(before[name], after[name])]
        changed = [name for name in changed if ".__warningregistry__" not in name and not isinstance(after.get(name), types.ModuleType)]
        changed = [name for name in changed if not name.endswith(COUNTERS)]
        for name, key in old.items():
            if new.get(name) != key:
                changed.append(f"sys.modules[{name!r}]")
        changed += [f"sys.modules[{name!r}]" for name in new.keys() - old.keys()
                    if (top := name.partition(".")[0]) not in PLUGINS and top not in sys.stdlib_module_names]
        return changed

    def differs(one, other):
        plain = (dict, list, tuple, str, int, float)
        return one is not other and not (isinstance(one, plain) and isinstance(other, plain) and one == other)
"""
ENTRIES = {
    "run": "mlchaos.run(job.train, tmp_path).golden",
    "run_after_a_crash": "@chaos.crash(at=1)\nmlchaos.run(job.train, tmp_path).golden",
    "run_with_a_search": "@chaos.settings(max_trials=3)\n@chaos.crash\nmlchaos.run(job.train, tmp_path).golden",
    "process": "mlchaos.run(job.loads, isolation='process')",
    "crash_states": "mlchaos.explore_crashes(job.train, tmp_path, horizon=1)",
    "crash_states_across_devices": "mlchaos.explore_crashes(job.train, tmp_path, cross_device=True, torn_writes=False)",
    "crash_state_by_name": "@chaos.crash(state='last.pt#2')\nmlchaos.run(job.train, tmp_path)",
    "world": "mlchaos.world(ranks=2).run(job.rank)",
    "served": "mlchaos.serve(job.load).drive([1, 2]).golden",
    "served_async": "@chaos.latency_spike(at=0, delay=1)\nmlchaos.serve(job.handle).drive([1, 2], rate=10).golden",
    "served_asgi": "mlchaos.serve(job.asgi, lifespan=False).drive(['/', '/']).golden",
    "pipeline": "mlchaos.pipeline(job.clean, job.filled(tmp_path)).golden",
    "pipeline_of_a_library": "mlchaos.pipeline(pandas.read_parquet, job.filled(tmp_path)).golden",
    "script": "mlchaos.run(mlchaos.script('script.py', tmp_path)).golden",
    "storage_fault": "@chaos.flaky_storage(at=0)\nmlchaos.pipeline(job.clean, job.filled(tmp_path))",
    "storage_fault_remote": "@chaos.flaky_storage(path='memory://*', at=0)\nmlchaos.pipeline(job.remote)",
    "table_fault": "@chaos.missing_values(at=0)\nmlchaos.pipeline(job.clean, job.filled(tmp_path))",
    "call_fault": "@chaos.call_failure(target='job:load', at=0)\nmlchaos.pipeline(job.loads)",
    "batch_fault": "@chaos.corrupt_batch(at=0)\nmlchaos.run(job.train, tmp_path)",
    "device_fault": "@chaos.gpu_oom(at=0)\nmlchaos.run(job.train, tmp_path)",
    "gradient_fault": "@chaos.nan_gradient(at=0)\nmlchaos.run(job.train, tmp_path)",
    "virtual_clock": "time.sleep(1000); asyncio.run(asyncio.sleep(1000))",
    "real_clock": "@chaos.settings(clock='real')\nmlchaos.pipeline(job.loads)",
}


HEAD = """
import asyncio, contextlib, importlib, time
from pathlib import Path
import digest, job, pandas, pyarrow, pytest
SEEN = {}

def test_subjects(tmp_path):
    job.train(tmp_path); job.clean(job.filled(tmp_path)); job.remote(); job.loads(); asyncio.run(job.handle(1))
    for name in ("httpx", "trio.testing"):  # what the plugin's dependencies import late
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
"""
LAST = """
def test_the_digest_sees_a_patch(monkeypatch):
    import sys, threading, types
    before = digest.digest()
    monkeypatch.setattr(time, "sleep", print)
    monkeypatch.setattr(threading.Condition, "wait", print)
    monkeypatch.setitem(sys.modules, "a_new_one", types.ModuleType("a_new_one"))
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, None])
    changed = digest.differences(before, digest.digest())
    assert sorted(changed) == ["sys", "sys.modules['a_new_one']", "threading.Condition.wait", "time.sleep"]
"""


def _judged(body):
    """Look at the result of an entry point, and at its golden run where the entry says so."""
    if not body.startswith("mlchaos."):
        return body
    look = (
        "assert result.outcomes"
        if "explore_crashes" in body
        else "assert result.faults is not None"
    )
    golden = "; result.golden" if body.endswith(".golden") else ""
    return f"result = {body.removesuffix('.golden')}{golden}; {look}"


ENTRY = """
def test_before_{name}():
    SEEN.update(digest.digest())

{decorators}
def test_{name}(mlchaos, tmp_path):
    {body}

def test_after_{name}():
    changed = digest.differences(dict(SEEN), digest.digest())
    assert not changed, " ".join(changed)
"""


@pytest.mark.slow
def test_no_entry_point_leaves_a_trace(example):
    """Attributes of modules and classes, hooks and ``sys.modules`` are the same objects; the
    subjects' imports were done before.
    """
    tests = [HEAD]
    for name, text in ENTRIES.items():
        *decorators, body = text.split("\n")
        tests.append(ENTRY.format(name=name, decorators="\n".join(decorators), body=_judged(body)))
    example = (
        example.with_file("job.py", JOB)
        .with_file("digest.py", DIGEST)
        .with_tests("".join([*tests, LAST]))
    )
    example = example.with_file(
        "script.py",
        "import sys\nfrom pathlib import Path\nPath(sys.argv[1], 'done').write_text('x')\n",
    )
    example.run("--mlchaos-timeout=300", interpreter=True, passed=3 * len(ENTRIES) + 2)

"""Send a journal by every export whose library is installed, and print what they send.

The live page is one of them.

``python -m tests.export_all JOURNAL FOLDER``. It is a process of its own, because these libraries
leave threads and import hooks.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from pytest_mlchaos import export

__all__: list[str] = []


def has(*modules):
    """Return True if all modules are installed."""
    return all(map(importlib.util.find_spec, modules))


def sent(journal: Path, folder: Path) -> Iterator[str]:
    """Yield all texts and the files of all stores."""
    # MLflow and Weights & Biases write artifacts to the current directory.
    journal, folder = journal.absolute(), folder.absolute()
    os.chdir(folder)
    if has("prometheus_client"):
        from prometheus_client import generate_latest

        yield generate_latest(export.prometheus.registry(journal)).decode()
    if has("opentelemetry", "opentelemetry.sdk"):
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

        memory, provider = InMemorySpanExporter(), TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(memory))
        export.otel.export(journal, tracer_provider=provider)
        yield from (span.to_json() for span in memory.get_finished_spans())
    if has("mlflow", "sqlalchemy", "alembic"):
        export.mlflow.export(journal, tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")
    if has("wandb"):
        for name in ("DIR", "CACHE_DIR", "DATA_DIR", "CONFIG_DIR"):
            os.environ[f"WANDB_{name}"] = str(folder)
        os.environ["WANDB_MODE"] = "offline"
        export.wandb.export(journal)
    if has("jinja2", "vl_convert"):
        from pytest_mlchaos.reports.html.live import LivePage

        yield LivePage(journal).current()[0].decode()
    files = [path for path in folder.rglob("*") if path.is_file()]
    yield from (path.read_bytes().decode("utf-8", "replace") for path in files)


if __name__ == "__main__":
    for text in sent(*map(Path, sys.argv[1:])):
        sys.stdout.write(f"{text}\n")

"""Leave out the projects whose packages are not installed."""

from importlib.util import find_spec

NEEDED = {
    "nanogpt": ("torch",),
    "trainer": ("torch", "transformers", "accelerate"),
    "lightning_job": ("torch", "pytorch_lightning"),
    "tabular": ("sklearn", "joblib"),
    "service": ("fastapi", "httpx"),
    "etl": ("pandas",),
    "script_job": (),
    "tuning": ("optuna",),
    "suite": (),
}

collect_ignore = [
    f"test_{kind}.py" for kind, packages in NEEDED.items() if not all(map(find_spec, packages))
]

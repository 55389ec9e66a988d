"""Measure one flipped bit by the size of the model, and a call with a flip that is armed but not
due.

``python benchmarks/bitflips.py [--quick] [--json FILE]`` measures PyTorchFI and MRFI too, on the
same models and at the same time. ``nox -s peers`` installs them.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import functools
import importlib.metadata
import itertools
import json
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from timing import Figure, Samples, Spread, compare, interleaved

from pytest_mlchaos import Schedule
from pytest_mlchaos.core.faults import EVERY, create
from pytest_mlchaos.engine.controller import Controller
from pytest_mlchaos.engine.patching import Patches
from pytest_mlchaos.engine.trial import trial
from pytest_mlchaos.faults import load as load_faults
from pytest_mlchaos.sites import load as load_sites

NEEDS = "torch"
LAYERS = 53
"""The number of convolutions, as in a ResNet-50."""
MILLION = 10**6
SIZES = (1 * MILLION, 25 * MILLION, 100 * MILLION)
FLIPS = 20
WARM_CALLS = 30
"""Calls that are not measured, because the interpreter first adapts to the patches."""
BUDGET = 50.0
FAR = 10**9
BIT = 30
PACKAGES = ("pytorchfi", "MRFI")
MRFI_CONFIG = """
faultinject:
  - type: weight
    name: [weight]
    enabled: True
    selector: {{method: FixPosition, position: {position}}}
    error_mode: {{method: FloatFixedBitFlip, floattype: float32, bit: 30}}
    module_fullname: ['{layer}']
"""
Flip = Callable[[], None]
"""A function that flips one bit of a weight."""


def model_of(parameters: int) -> Any:
    """Return convolutions and batch norms with about this number of parameters in all."""
    import torch

    width = round(math.sqrt(parameters / LAYERS / 9))
    layers = [
        torch.nn.Sequential(
            torch.nn.Conv2d(width, width, 3, padding=1), torch.nn.BatchNorm2d(width)
        )
        for _ in range(LAYERS)
    ]
    return torch.nn.Sequential(*layers).eval()


@contextlib.contextmanager
def ours(model: Any) -> Iterator[Flip]:
    """Yield a visit at which ``bit_flip`` strikes, from the call of the model to the flipped
    weight.

    It is undone when the process ends.
    """
    with (
        Controller(Schedule((create("bit_flip", bit=BIT, at=EVERY),), 1)) as controller,
        controller.process,
    ):

        def flip() -> None:
            gate = controller.begin("model.forward", model)
            assert gate is not None
            gate.close()

        yield flip


@contextlib.contextmanager
def pytorchfi(model: Any) -> Iterator[Flip]:
    """Yield ``declare_weight_fi`` with a function that flips. It works on a copy of the model."""
    import numpy as np
    import torch
    from pytorchfi.core import fault_injection

    width = model[0][0].in_channels
    with torch.no_grad():
        injection = fault_injection(
            model, 1, input_shape=[width, 1, 1], layer_types=[torch.nn.Conv2d]
        )

    def flipped(weight: Any, place: Any) -> float:
        value = np.array([weight[place].item()], dtype=np.float32)
        value.view(np.int32)[0] ^= 1 << BIT
        return float(value[0])

    numbers = itertools.count()

    def flip() -> None:
        layer = next(numbers) % LAYERS
        injection.declare_weight_fi(
            function=flipped, layer_num=[layer], k=[0], dim1=[0], dim2=[1], dim3=[1]
        )
        injection.fi_reset()

    yield flip


@contextlib.contextmanager
def mrfi(model: Any) -> Iterator[Flip]:
    """Do what its hook on one layer does before each call: restore the weight from a copy, then
    flip it.
    """
    import torch
    from mrfi import MRFI, EasyConfig

    model = copy.deepcopy(model)  # MRFI can use a model only once
    MRFI(model, EasyConfig.load_string(MRFI_CONFIG.format(layer="0.0", position=5)))
    layer = model[0][0]
    (hook,) = layer._forward_pre_hooks.values()
    inputs = (torch.ones(1, layer.in_channels, 1, 1),)
    numbers = itertools.count()

    def flip() -> None:
        layer.FI_config.weights[0].selector.args["position"] = next(numbers) % 9
        with torch.no_grad():
            hook(layer, inputs)

    yield flip


def _seconds(flip: Flip, times: int) -> float:
    start = time.perf_counter()
    for _ in range(times):
        flip()
    return (time.perf_counter() - start) / times


def _first(tool: Callable[[Any], contextlib.AbstractContextManager[Flip]], model: Any) -> float:
    """Return the seconds of a first flip in a new model."""
    import torch

    fresh = torch.nn.Sequential(*model)
    start = time.perf_counter()
    with tool(fresh) as flip:
        flip()
        return time.perf_counter() - start


def flips(quick: bool, tools: dict[str, Any]) -> dict[int, tuple[Samples, Samples]]:
    """Return the seconds of a flip for each tool (and of nothing), and of the first one, by model
    size.
    """
    found = {}
    for size in SIZES[: 2 if quick else 3]:
        model = model_of(size)
        with contextlib.ExitStack() as stack:
            sides = {
                name: functools.partial(
                    _seconds, stack.enter_context(tool(model)), FLIPS if name == "mlchaos" else 1
                )
                for name, tool in tools.items()
            }
            sides["nothing"] = functools.partial(_seconds, lambda: None, FLIPS)
            known = interleaved(5 if quick else 15, sides)
        first = interleaved(
            3 if quick else 7,
            {name: functools.partial(_first, tool, model) for name, tool in tools.items()},
        )
        found[size] = known, first
    return found


def measure(quick: bool) -> list[Figure]:
    """Measure ours alone: a flip by model size, and a call before which one is armed but not due."""
    import torch

    torch.set_num_threads(1)
    load_faults()
    load_sites()
    figures = []
    for size, (known, first) in flips(quick, {"mlchaos": ours}).items():
        note = f"the first one in a model: {Spread.of(first['mlchaos']).median * 1e3:.2f} ms"
        what = f"bit flip: {size // MILLION}M parameters"
        figures.append(
            compare(
                what, known, "mlchaos", "nothing", _microseconds, "µs", budget=BUDGET, note=note
            )
        )
    samples, calls = armed(quick, {"mlchaos": _armed_ours})
    note = f"a call takes {calls * 1e6:.0f} µs"
    return [
        *figures,
        compare(
            "call of a model: bit_flip armed, not due",
            samples,
            "mlchaos",
            "bare",
            _percent,
            "%",
            budget=1,
            note=note,
        ),
    ]


def _microseconds(one: float, other: float) -> float:
    return (one - other) * 1e6


def _percent(one: float, other: float) -> float:
    return (one / other - 1) * 100


# -- armed, but not due ----------------------------------------------------------------------------


@contextlib.contextmanager
def _armed_ours(model: Any) -> Iterator[Any]:
    with trial(Schedule((create("bit_flip", at=FAR),)), Patches()):
        yield model


@contextlib.contextmanager
def _armed_pytorchfi(model: Any) -> Iterator[Any]:
    """Install its hooks on a copy of the model, with a layer that never comes."""
    import torch
    from pytorchfi.core import fault_injection

    injection = fault_injection(
        model, 1, input_shape=[model[0][0].in_channels, 1, 1], layer_types=[torch.nn.Conv2d]
    )
    hooked = injection.declare_neuron_fi(
        batch=[0], layer_num=[0], dim1=[0], dim2=[0], dim3=[0], value=[1.0]
    )
    injection.corrupt_layer = [-1]

    def call(x: Any) -> Any:
        injection.current_layer = 0
        return hooked(x)

    yield call


@contextlib.contextmanager
def _armed_mrfi(model: Any) -> Iterator[Any]:
    """Install its hooks on a copy of the model, with nothing selected."""
    from mrfi import MRFI, EasyConfig

    model = copy.deepcopy(model)
    config = MRFI_CONFIG.format(layer="0.0", position=0).replace("enabled: True", "enabled: False")
    MRFI(model, EasyConfig.load_string(config))
    yield model


def armed(quick: bool, tools: dict[str, Any]) -> tuple[Samples, float]:
    """Return the seconds of a call with each tool armed, and of a bare call."""
    import torch

    model = model_of(1 * MILLION)
    x = torch.ones(1, model[0][0].in_channels, 4, 4)

    def call(tool: Any) -> float:
        with torch.no_grad(), tool(model) as called:
            for _ in range(WARM_CALLS):
                called(x)
            return min(_seconds(lambda: called(x), 1) for _ in range(20))

    sides = {"bare": functools.partial(call, contextlib.nullcontext)}
    sides |= {name: functools.partial(call, tool) for name, tool in tools.items()}
    samples = interleaved(10 if quick else 40, sides)
    return samples, Spread.of(samples["bare"]).median


# -- side by side ----------------------------------------------------------------------------------


def peers(quick: bool = False) -> list[dict[str, Any]]:
    """Print and return one table: each tool's flips by model size, and its costs when it is armed."""
    import torch

    torch.set_num_threads(1)
    load_faults()
    load_sites()
    print(", ".join(f"{package} {importlib.metadata.version(package)}" for package in PACKAGES))
    rows = []
    print(
        f"\n{'flips':<16} {'tool':<10} {'one, µs':>12} {'of ours':>9} {'the first, ms':>14} "
        f"{'of ours':>9}"
    )
    for size, (known, first) in flips(
        quick, {"mlchaos": ours, "PyTorchFI": pytorchfi, "MRFI": mrfi}
    ).items():
        mine, mine_first = (Spread.of(samples["mlchaos"]).median for samples in (known, first))
        for tool in first:
            one, at_first = Spread.of(known[tool]).median, Spread.of(first[tool]).median
            row = {"parameters": size, "tool": tool, "flip s": one, "first flip s": at_first}
            rows.append(row)
            times = f"{one / mine:>8.1f}x {at_first * 1e3:>14.2f} {at_first / mine_first:>8.1f}x"
            print(
                f"{f'{size // MILLION}M parameters':<16} {tool:<10} {one * 1e6:>12.1f} {times}",
                flush=True,
            )
    samples, bare = armed(
        quick, {"mlchaos": _armed_ours, "PyTorchFI": _armed_pytorchfi, "MRFI": _armed_mrfi}
    )
    print(f"\narmed, but not due: a call of a model takes {bare * 1e6:.0f} µs")
    for tool in ("mlchaos", "PyTorchFI", "MRFI"):
        figure = compare(tool, samples, tool, "bare", _percent, "%")
        rows.append({"tool": tool, "armed %": figure.measured.median})
        print(
            f"{'':<16} {tool:<10} {figure.measured.median:>+11.2f}% ± {figure.measured.margin:.2f} "
            f"  (quiet: {figure.quiet:+.2f} %)"
        )
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Flipped bits, beside PyTorchFI and MRFI.")
    parser.add_argument("--quick", action="store_true", help="fewer rounds: a first look")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows to FILE")
    arguments = parser.parse_args()
    table = peers(arguments.quick)
    if arguments.json:
        arguments.json.write_text(json.dumps({"rows": table}, indent=2) + "\n", encoding="utf-8")

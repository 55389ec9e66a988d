"""Define the fault of adversarial inputs: small changes that a model decides wrongly."""

from __future__ import annotations

import dataclasses
import inspect
import pkgutil
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ...core.faults import is_drawn, register
from ...core.privacy import error_text
from ...core.sites import Key, Visit
from ...core.validation import format_value
from ...errors import BadArgument, Inconclusive, PayloadMismatch
from ...oracles.robustness.attack import Attack, make_attack
from ...oracles.robustness.boundary import attack_by_decisions
from ...oracles.robustness.controls import check_decisions_control, check_gradient_control
from ...oracles.robustness.gradients import attack_inputs, model_inside, undisturbed
from ...oracles.robustness.objectives import is_one_sample, main_output, make_objective
from ...oracles.robustness.robust import decisions_of
from ..batches.base import Batch, field_name, wanted_fields
from ..batches.pytree import Leaf, describe, is_array, is_tensor, rebuilt
from ..data_fault import RESULT, DataFault

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

__all__ = ["Adversarial"]
LAYER = "Models"
CALL = "model.call"
BATCH = "data.batch"
CHANNEL = 1 / 255
"""One step of an 8-bit channel, of images from 0 to 1."""


MOST_WITHOUT_GRADIENT = 0.1
"""The largest share of samples that may have no gradient. The attack does not move these."""


@dataclasses.dataclass(frozen=True)
class _Input:
    """The fields that an attack changes, and the call that they go into.

    Attributes:
        batch: All fields.
        chosen: The fields to change.
        call: A function of the batch that calls the model.
        labels: The true labels, or None if they are not known.
        first: The arguments by position, if a call is struck.
    """

    batch: Batch
    chosen: list[Leaf]
    call: Callable[[Any], Any]
    labels: Any
    first: Sequence[Any] = ()

    def replaced(self, values: Sequence[Any]) -> Any:
        """Return the batch with other values in these fields."""
        hits = {leaf.path: one for leaf, one in zip(self.chosen, values, strict=True)}
        return rebuilt(self.batch.payload, hits)


@register
class Adversarial(DataFault):
    """A model gets inputs with small changes that were made to mislead it.

    The attack follows the gradients of the model on its input (``"fgsm"``, ``"pgd"``), or needs
    nothing but decisions (``"boundary"``). Each sample gets a change of its own of at most
    ``epsilon``. Shape, dtype and device of the input stay. The model's parameters, gradients,
    buffers, mode and random numbers, and your autograd graph stay as they are.

    Without ``model``, it strikes the input of a model when it is called: of any torch module that
    is called by your code, or of the one that ``target`` names. The model and its mode are those of
    this call. With ``model``, it strikes data on their way to that model: the batches of a loader,
    or what ``target`` returns, with the labels of the batch.

    Before its first strike, the attack must break a planted weak model with the same settings. If
    it cannot, the test is inconclusive. A model without gradients, or with an unknown loss, is an
    error.

    Args:
        method: ``"pgd"``, ``"fgsm"`` (one step), or ``"boundary"`` (HopSkipJump) for any function.
        epsilon: The largest change, in the unit of the input.
        norm: ``"inf"`` limits the change of each number, ``"2"`` the Euclidean length of the change.
        steps: The number of steps of PGD, 10 without it.
        step_size: The length of a step, ``2.5 * epsilon / steps`` without it.
        random_start: False to start PGD at the input itself.
        targeted: The class that the model shall give, instead of any wrong one.
        clip: The lowest and the highest value of the input, for example ``(0, 1)``.
        loss: A function of the model's output and the labels, which the attack increases. Without
            it, the loss that the model returns itself, or the cross-entropy of its logits or
            probabilities.
        model: A torch module, any function of a batch (for ``"boundary"``), or the name of one of
            them: ``"app:model"``.
        target: The called model (``"app:model"``, ``"app:Model.predict"``), or with ``model`` a
            function whose result is struck.
        fields: Names, positions or dotted paths of the fields to change. Without it, all fields of
            floats, but not the labels.
        queries: The number of queries for each sample with ``"boundary"``, 2,000 without it.

    Imitates: an attacker who sends inputs that look right and are decided wrongly.

    Fidelity: at a model's call, the labels are the model's own predictions, unless its arguments
    hold labels and it returns its loss. So a sample that was wrong before may become right. The
    attack does not adapt to a defence outside of the model. Values of 16-bit floats may exceed
    epsilon by their rounding. Lists that a call of the model extends are not restored. Forward
    hooks run once more for each step. Sharded parameters (FSDP) and tables are not supported.

    Source: Goodfellow et al., Explaining and harnessing adversarial examples, 2015. Madry et al.,
    Towards deep learning models resistant to adversarial attacks, 2018. Chen et al.,
    HopSkipJumpAttack, 2020.

    Example: @chaos.adversarial(method="pgd", epsilon=0.1, at=0)
    """

    random = True
    changes_result = True
    scales: ClassVar = {"epsilon": (CHANNEL, 2 * CHANNEL, 4 * CHANNEL, 8 * CHANNEL, 16 * CHANNEL)}
    method: Literal["pgd", "fgsm", "boundary"] = "pgd"
    epsilon: float = 8 * CHANNEL
    norm: Literal["inf", "2"] = "inf"
    steps: int | None = None
    step_size: float | None = None
    random_start: bool | None = None
    targeted: int | None = None
    clip: Any = None
    loss: Any = None
    model: Any = None
    fields: Any = None
    queries: int | None = None

    def check(self) -> None:
        """Check the parameters."""
        if self.clip is not None and not is_drawn(self.clip):
            object.__setattr__(self, "clip", tuple(self.clip) if _is_pair(self.clip) else self.clip)
        object.__setattr__(self, "fields", wanted_fields(self.name, self.fields))
        if not any(map(is_drawn, vars(self).values())):
            self._attack(self.epsilon)
        if self.loss is not None and (not callable(self.loss) or self.method == "boundary"):
            raise BadArgument(
                f"adversarial: loss must be a function of the output and the labels, for "
                f"method='pgd' or 'fgsm', got {format_value(self.loss)}"
            )
        if self.model is not None and not callable(self.model) and not _is_name(self.model):
            raise BadArgument(
                f"adversarial: model must be a torch module, a function or a name such as "
                f"'app:model', got {format_value(self.model)}"
            )
        if self.severity is not None and self.norm != "inf":
            raise BadArgument("adversarial: severity= needs norm='inf'. Give epsilon=")

    @property
    def site(self) -> str:  # type: ignore[override]  # it follows from the parameters
        """Return the site: calls of a model, batches of a loader, or results of a function."""
        if self.model is None:
            return CALL
        return BATCH if self.target is None else RESULT

    @property
    def key(self) -> Key:
        """Count the visits of the site, or those of the target."""
        return self.site if self.target is None else (self.site, self.target)

    def _attack(self, epsilon: float) -> Attack:
        return make_attack(
            self.name,
            self.method,
            epsilon,
            self.norm,
            steps=self.steps,
            step_size=self.step_size,
            random_start=self.random_start,
            targeted=self.targeted,
            clip=self.clip,
            queries=self.queries,
        )

    def apply(self, visit: Visit) -> Any:
        """Return perturbed copies of the fields."""
        attack, given = self._attack(self.scaled("epsilon")), self._input(visit)
        strike = self._by_gradients if attack.is_white_box else self._by_decisions
        values = strike(visit, attack, given)
        hits = dict(zip((leaf.path for leaf in given.chosen), values, strict=True))
        if all(Leaf((), hits[leaf.path]).same_bits(leaf) for leaf in given.chosen):
            raise given.batch.mismatch("left its input as it was", "")
        visit.note(
            method=attack.method,
            epsilon=attack.epsilon,
            norm=attack.norm,
            fields={field_name(leaf): leaf.shape_and_type() for leaf in given.chosen},
        )
        fresh = given.replaced(values)
        if self.model is not None:
            return fresh
        args, kwargs = visit.payload
        return tuple(fresh.get(place, one) for place, one in enumerate(args)), {
            name: fresh.get(name, one) for name, one in kwargs.items()
        }

    # -- what is attacked --------------------------------------------------------------------------

    def _input(self, visit: Visit) -> _Input:
        """Return the fields to change, and the call of the model."""
        if self.model is not None:
            return self._of_batch(visit.payload)
        function = visit.attributes.get("function")
        if function is None:
            raise PayloadMismatch(
                f"adversarial: a visit of {visit.site} must be the call of a model. Name the model "
                f"with model="
            )
        args, kwargs = visit.payload
        # An object, such as the model itself, may hold arrays that are not input.
        values = {**dict(enumerate(args)), **kwargs}
        arrays = {name: one for name, one in values.items() if _is_input(one)}
        batch = Batch(f"adversarial(method={self.method!r})", arrays)

        def call(fresh: Any) -> Any:
            given = {**values, **fresh}
            return function(
                *(given[place] for place in range(len(args))),
                **{name: given[name] for name in kwargs},
            )

        return _Input(batch, self._chosen(batch), call, None, args)

    def _of_batch(self, payload: Any) -> _Input:
        """Return the fields of a batch on its way to the model that is named."""
        batch = Batch(f"adversarial(method={self.method!r})", payload)
        labels = [leaf for leaf in batch.told_labels() if len(batch.leaves) > 1]
        truth = labels[0].value if len(labels) == 1 else None
        model = self._model()
        paths = {leaf.path for leaf in labels}

        def call(fresh: Any) -> Any:
            args, kwargs = _arguments(batch, fresh, paths, model)
            return model(*args, **kwargs)

        return _Input(batch, self._chosen(batch), call, truth)

    def _model(self) -> Callable[..., Any]:
        if not isinstance(self.model, str):
            found = self.model
        else:
            try:
                found = pkgutil.resolve_name(self.model)
            except (ImportError, AttributeError, ValueError) as error:
                raise BadArgument(
                    f"adversarial: model={self.model!r} was not found: {error_text(error)}"
                ) from None
        if not callable(found):
            raise BadArgument(
                f"adversarial: model={format_value(self.model)} must be a torch module or a "
                f"function, got {type(found).__name__}"
            )
        return found  # type: ignore[no-any-return]

    def _chosen(self, batch: Batch) -> list[Leaf]:
        """Return the fields to change: those that are named, or all floats that are not labels."""
        if self.fields is not None:
            found = batch.checked(batch.named(self.fields))
        else:
            labels = {leaf.path for leaf in batch.told_labels()} if len(batch.leaves) > 1 else set()
            found = [
                leaf
                for leaf in batch.leaves
                if leaf.is_float
                and not (leaf.record or leaf.is_complex or leaf.problem())
                and leaf.size
                and leaf.has_axes()
                and leaf.path not in labels
            ]
            size = max((leaf.length() for leaf in found), default=0)
            found = [leaf for leaf in found if leaf.length() == size]
        for leaf in found:
            if not leaf.is_float or leaf.record:
                raise batch.refuse(leaf, "is not floating-point, so it has no small changes")
        if not found:
            raise batch.mismatch(
                "found no arrays of floats",
                ". Whole numbers (tokens, 8-bit images) have no small changes: strike after they "
                "have become floats, with target= and model=, or use chaos.corrupt_text",
            )
        return found

    # -- attacks -----------------------------------------------------------------------------------

    def _by_gradients(self, visit: Visit, attack: Attack, given: _Input) -> list[Any]:
        import torch

        function = self._model() if self.model is not None else visit.attributes["function"]
        # A method that is named by its class gets the model as its first argument.
        module = _module_of(function) or _module_of(next(iter(given.first), None))
        if module is None:
            raise BadArgument(
                f"adversarial: method={self.method!r} needs a torch module, for its gradients, got "
                f"{_name_of(function)}. Name the module with target= or model=, or use "
                f"method='boundary'"
            )
        weight = next(module.parameters(), None) if self.model is not None else None
        inner = model_inside(module)
        with undisturbed(inner):
            values = [torch.as_tensor(leaf.value) for leaf in given.chosen]
            values = [one.detach().clone() for one in values]
            values = [one if weight is None else one.to(weight) for one in values]
            self._check_values(given, values)

            def call(fresh: Sequence[Any]) -> Any:
                return given.call(given.replaced(fresh))

            with torch.no_grad():
                clean = call(values)
            single = _is_single(clean, values[0])
            check_gradient_control(
                self.name, attack, [one[None] for one in values] if single else values
            )
            objective = make_objective(
                self.name,
                clean,
                values[0],
                loss=self.loss,
                labels=given.labels,
                targeted=self.targeted,
            )
            found = attack_inputs(
                self.name, call, values, objective, attack, seed=visit.seed, single=single
            )
        hidden, total = int(found.without_gradient.sum()), len(found.without_gradient)
        if hidden > MOST_WITHOUT_GRADIENT * total:
            raise Inconclusive(
                f"adversarial: the gradient of {hidden:,} of {total:,} samples is 0 (the model "
                f"rounds, or its output is saturated), so that these are not misled says nothing. "
                f"Give loss= on the logits, or use method='boundary'"
            )
        if hidden:
            visit.note(without_gradient=hidden)
        return [_like(leaf, fresh) for leaf, fresh in zip(given.chosen, found.inputs, strict=True)]

    def _by_decisions(self, visit: Visit, attack: Attack, given: _Input) -> list[Any]:
        import numpy as np

        if len(given.chosen) > 1:
            names = ", ".join(map(field_name, given.chosen))
            raise BadArgument(
                f"adversarial: method='boundary' changes one field, got {names}. Name one with "
                f"fields="
            )
        (leaf,) = given.chosen
        values = leaf.numpy().astype(np.float32 if leaf.is_torch else leaf.value.dtype)
        self._check_values(given, [values])

        def decide(rows: Array) -> Array:
            return decisions_of(
                self.name, lambda rows: given.call(given.replaced([leaf.like(rows)])), rows
            )

        function = self._model() if self.model is not None else visit.attributes["function"]
        if inspect.iscoroutinefunction(function):
            raise BadArgument(
                f"adversarial: method='boundary' needs a plain function, got the coroutine function "
                f"{_name_of(function)}. Name the function of the model that it calls"
            )
        module = _module_of(function) or _module_of(next(iter(given.first), None))
        with _left_alone(module):
            truth = decide(values) if given.labels is None else np.asarray(given.labels)
            check_decisions_control(self.name, attack, values)

            def is_wrong(points: Array, samples: Array) -> Array:
                found = decide(points)
                wanted = found == self.targeted
                return np.asarray(found != truth[samples] if self.targeted is None else wanted)

            fresh, used = attack_by_decisions(is_wrong, values, attack, visit.seed)
        visit.note(queries=int(used.sum()))
        return [leaf.like(fresh)]

    def _check_values(self, given: _Input, values: Sequence[Any]) -> None:
        """Refuse values that are not finite, or outside of ``clip``."""
        for leaf, one in zip(given.chosen, values, strict=True):
            low, high = float(one.min()), float(one.max())
            if not abs(low) + abs(high) < float("inf"):
                raise given.batch.refuse(leaf, "has values that are NaN or infinite")
            if self.clip is not None and (low < self.clip[0] or high > self.clip[1]):
                raise BadArgument(
                    f"adversarial: clip must contain the values of the field "
                    f"{field_name(leaf)!r}, got {self.clip}. Give the range of what the model gets, "
                    f"after it has been normalised"
                )


def _is_pair(value: object) -> bool:
    return isinstance(value, (list, tuple)) and len(value) == 2


def _is_name(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_input(value: object) -> bool:
    """Return True for an array, or for a container that may hold some."""
    return is_tensor(value) or is_array(value) or isinstance(value, (Mapping, list, tuple))


def _module_of(function: Any) -> Any:
    """Return the torch module that is called, or None."""
    torch = sys.modules.get("torch")
    if torch is None:
        return None
    for one in (function, getattr(function, "__self__", None)):
        if isinstance(one, torch.nn.Module):
            return one
    return None


def _name_of(function: Any) -> str:
    return getattr(function, "__qualname__", None) or type(function).__name__


def _left_alone(module: Any) -> Any:
    """Return the context in which calls of a torch module change nothing that stays."""
    import contextlib

    return contextlib.nullcontext() if module is None else undisturbed(model_inside(module))


def _is_single(clean: Any, inputs: Any) -> bool:
    """Return True if the input is one sample. An output without a known tensor does not say."""
    try:
        return is_one_sample(main_output("adversarial", clean), inputs)
    except BadArgument:
        return False


def _like(leaf: Leaf, fresh: Any) -> Any:
    """Return a perturbed tensor as a value of the field, which keeps its place in the graph."""
    if not leaf.is_torch:
        return leaf.like(fresh.detach().cpu().numpy())
    value = leaf.value
    fresh = fresh.detach().to(value)
    if not value.requires_grad:
        return fresh
    if value.is_leaf:
        return fresh.requires_grad_()
    return value - value.detach() + fresh


def _arguments(
    batch: Batch, fresh: Any, labels: set[tuple[Any, ...]], model: Any
) -> tuple[Sequence[Any], Mapping[str, Any]]:
    """Return the arguments for a batch: by name if the model takes these names, or by position.

    Raises:
        BadArgument: It is not clear how the model gets the batch.
    """
    device = getattr(next(iter(getattr(model, "parameters", tuple)()), None), "device", None)

    def moved(value: Any) -> Any:
        if device is None:
            return value
        torch = sys.modules["torch"]
        value = torch.as_tensor(value) if is_array(value) else value
        return value.to(device) if is_tensor(value) else value

    if is_tensor(fresh) or is_array(fresh):
        return (moved(fresh),), {}
    if isinstance(fresh, Mapping):
        whole = {name: moved(one) for name, one in fresh.items()}
        rest = {name: one for name, one in whole.items() if (name,) not in labels}
        for some in (whole, rest):
            if _takes(model, some):
                return (), some
        if len(rest) == 1:
            return tuple(rest.values()), {}
    elif isinstance(fresh, (tuple, list)):
        return [moved(one) for place, one in enumerate(fresh) if (place,) not in labels], {}
    raise BadArgument(
        f"adversarial: it is not clear how the model gets the batch {describe(batch.payload)}. "
        f"Leave out model=, so that the model's call is struck"
    )


def _takes(model: Any, given: Mapping[Any, Any]) -> bool:
    """Return True if a model has parameters of these names."""
    if not all(isinstance(name, str) for name in given):
        return False
    try:
        signature = inspect.signature(getattr(model, "forward", model))
        signature.bind(**given)
    except (TypeError, ValueError):
        return False
    return True

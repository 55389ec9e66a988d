"""The faults of batches, on what batches are made of and come from. (needs torch)"""

from __future__ import annotations

import collections.abc
import dataclasses
import importlib.util
import textwrap
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from pytest_mlchaos import assert_same_state, batches, faults, sites
from pytest_mlchaos.core.faults import EVERY, create
from pytest_mlchaos.core.schedule import Schedule
from pytest_mlchaos.engine.controller import Controller
from pytest_mlchaos.engine.patching import Patches
from pytest_mlchaos.engine.trial import trial
from pytest_mlchaos.errors import PayloadMismatch

faults.load()
sites.load()

Pair = collections.namedtuple("Pair", "x y")


@dataclasses.dataclass
class Record:
    """A batch as a dataclass."""

    x: Any
    y: Any


class Plain:
    """A batch as an object of some class, as torch's documentation has them."""

    def __init__(self, x, y):
        # A reference to itself does not belong to the batch.
        self.x, self.y, self.owner = (x, y, self)


class Slotted:
    """One without a ``__dict__``."""

    __slots__ = ("x", "y")

    def __init__(self, x, y):
        self.x, self.y = x, y


class Graph:
    """Work like a mapping without being one, as batches of graphs do, with names in any order."""

    def __init__(self, **fields):
        self._fields = fields

    def keys(self):
        return set(self._fields)

    def __getitem__(self, name):
        return self._fields[name]

    def __setitem__(self, name, value):
        self._fields[name] = value


class Table(Graph, collections.abc.MutableMapping):
    """A mapping of one's own, which keeps its items in a dict."""

    def __len__(self):
        return len(self._fields)

    def __iter__(self):
        return iter(self._fields)

    def __delitem__(self, name):
        del self._fields[name]


class Sparse:
    """An array of an unknown library. Its content must not count as samples."""

    shape = (3, 3)

    def __init__(self):
        self.data = self.indices = np.arange(2)


class Encoding(collections.UserDict):
    """A batch as tokenizers return it."""


def x():
    """Six samples that say which they are."""
    return torch.arange(18.0).reshape(6, 3)


def y():
    """Their classes."""
    return torch.tensor([0, 1, 2, 0, 1, 2])


CONTAINERS = {
    "tuple": lambda a, b: (a, b),
    "list": lambda a, b: [a, b],
    "dict": lambda a, b: {"x": a, "y": b},
    "namedtuple": Pair,
    "dataclass": Record,
    "UserDict": lambda a, b: Encoding({"x": a, "y": b}),
    "object": Plain,
    "slots": Slotted,
    "like a mapping": lambda a, b: Graph(x=a, y=b),
    "MutableMapping": lambda a, b: Table(x=a, y=b),
    "objects in a dict": lambda a, b: {"inputs": [Plain(a, 3.5)], "labels": b},
    "nested": lambda a, b: {"inputs": {"deep": [a, "text", None]}, "labels": b, "id": 7},
    "numpy": lambda a, b: {"x": a.numpy(), "y": b.numpy()},
}


def struck(name, batch, seed=0, **keywords):
    """The batch behind one strike."""
    with Controller(Schedule((create(name, at=0, **keywords),), seed)) as controller:
        return controller.visit("data.batch", batch)


def armed(*declared, seed=0, clock="real"):
    """A trial with these faults."""
    return trial(Schedule(declared, seed), Patches(), clock=clock)


def numbers(fault, *, count=8, size=2, epochs=1, clock="real", **loader):
    """The first number of each batch that a DataLoader hands out."""
    dataset = TensorDataset(torch.arange(float(count)), torch.arange(count))
    with armed(fault, clock=clock) as controller:
        made = DataLoader(dataset, batch_size=size, **loader)
        found = [[int(batch[0][0]) for batch in made] for _ in range(epochs)]
    return (found if epochs > 1 else found[0]), controller


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (create("drop_batch", at=1), [0, 4, 6]),
        (create("drop_batch", count=2, at=0), [4, 6]),
        (create("drop_batch", at=3), [0, 2, 4]),
        (create("duplicate_batch", at=1), [0, 2, 2, 4, 6]),
        (create("duplicate_batch", copies=3, at=3), [0, 2, 4, 6, 6, 6, 6]),
        (create("stale_batch", at=[1, 3]), [0, 0, 4, 4]),
        (create("stale_batch", age=3, at=EVERY), [0, 2, 4, 0]),
        (create("stream_interruption", at=2), [0, 2]),
        (create("stream_interruption", resume_after=2, at=1), [0, 6]),
        (create("stream_interruption", resume_after=9, at=1), [0]),
    ],
)
def test_what_a_loader_hands_out_is_lost_repeated_or_late(fault, expected, workers):
    """On a DataLoader, its workers included."""
    assert numbers(fault, num_workers=workers)[0] == expected


def test_every_epoch_has_its_own_stream():
    """Also where workers persist and one iterator serves all epochs."""
    fault = create("stream_interruption", at=1)
    assert numbers(fault, epochs=2)[0] == [[0], [0, 2, 4, 6]]
    assert numbers(fault, epochs=2, num_workers=1, persistent_workers=True)[0] == [
        [0],
        [0, 2, 4, 6],
    ]


def test_reordered_batches_are_all_there():
    """In another order, within the window; a shorter rest is reordered too, and a single one is
    none.
    """
    for seed in range(5):
        with armed(create("reorder_batches", window=3, at=1), seed=seed):
            found = [int(batch) for batch in batches(torch.arange(6))]
        assert sorted(found) == list(range(6))
        assert found[0] == 0
        assert found[1:4] != [1, 2, 3]
        assert found[4:] == [4, 5]
    assert numbers(create("reorder_batches", window=9, at=2))[0] == [0, 2, 6, 4]
    found, controller = numbers(create("reorder_batches", at=3))
    assert found == [0, 2, 4, 6]
    assert not controller.journal


def test_a_loader_that_fails_behind_reordered_batches_fails_behind_them():
    """None is lost with it."""

    def loader():
        yield from (torch.tensor(number) for number in range(3))
        raise OSError("gone")

    found = []
    with armed(create("reorder_batches", window=9, at=0)), pytest.raises(OSError, match="gone"):
        for batch in batches(loader()):
            found.append(int(batch))
    assert sorted(found) == [0, 1, 2]


@pytest.mark.parametrize("container", CONTAINERS)
def test_copies_share_no_memory_whatever_a_batch_is_made_of(container):
    """An in-place change of a batch by the loop does not show in the copy."""
    with armed(create("duplicate_batch", at=0)):
        first, second = batches([CONTAINERS[container](x(), y())])
    for array in arrays(first):
        array[...] = 7
    assert_same_state(torch.as_tensor(arrays(second)[0]), x())


def test_copies_share_no_memory():
    """An in-place change of a batch by the loop does not show in the copy, nor in a stale one."""
    for fault in (create("duplicate_batch", at=0), create("stale_batch", at=1)):
        with armed(fault):
            found = []
            for batch in batches([torch.ones(2), torch.ones(2)]):
                found.append(batch.clone())
                batch.mul_(5)
        assert all(torch.equal(batch, torch.ones(2)) for batch in found)


def test_a_batch_is_late():
    """In virtual time, which it does not take."""
    with armed(create("delay_batch", delay="1h", at=1), clock="virtual") as controller:
        list(batches([1, 2]))
        assert controller.clock.now() >= 3600


@pytest.mark.parametrize("container", CONTAINERS)
def test_samples_go_from_all_fields_alike(container):
    """Types stay; the first samples are left, or none."""
    batch = CONTAINERS[container](x(), y())
    for name, keywords, left in (
        ("short_batch", {"size": 2}, 2),
        ("short_batch", {"fraction": 0.5}, 3),
        ("empty_batch", {}, 0),
    ):
        after = struck(name, batch, **keywords)
        assert type(after) is type(batch)
        a, b = arrays(after)
        assert_same_state(torch.as_tensor(a), x()[:left])
        assert_same_state(torch.as_tensor(b), y()[:left])
        assert after is not batch
    for before, now in zip((x(), y()), arrays(batch), strict=True):
        assert_same_state(torch.as_tensor(now), before)


def arrays(value):
    """The arrays in a batch."""
    if isinstance(value, (torch.Tensor, np.ndarray)):
        return [value]
    if isinstance(value, (dict, Encoding)):
        value = list(value.values())
    elif isinstance(value, Graph):
        value = [value["x"], value["y"]]
    elif isinstance(value, (Record, Plain, Slotted)):
        value = [value.x, value.y]
    return (
        [found for child in value for found in arrays(child)]
        if isinstance(value, (list, tuple))
        else []
    )


def test_texts_and_numbers_of_the_samples_go_with_them():
    """Strings are collated by a loader. A number for the whole batch stays."""
    batch = {
        "x": x(),
        "text": [*"abcdef"],
        "ids": (1, 2, 3, 4, 5, 6),
        "scale": torch.tensor(3.0),
        "classes": ["a", "b"],
    }
    after = struck("short_batch", batch, size=2)
    assert (after["text"], after["ids"], after["scale"], after["classes"]) == (
        ["a", "b"],
        (1, 2),
        batch["scale"],
        ["a", "b"],
    )


def image(*shape):
    """An image, with its channels in front."""
    return torch.rand(3, *(shape or (16, 16)))


@pytest.mark.parametrize(
    "kind", ["class_imbalance", "distribution_shift", "short_batch", "empty_batch"]
)
def test_lists_of_whatever_go_with_their_samples(kind):
    """Dicts, objects, tokens, None and tensors stay with the labels that they came with."""
    things = [object() for _ in range(6)]
    places = {id(thing): place for place, thing in enumerate(things)}
    batch = {
        "image": things,
        "meta": [{"id": place} for place in range(6)],
        "tokens": [["a"] * (place + 1) for place in range(6)],
        "none": [None] * 6,
        "boxes": [torch.full((place + 1, 4), float(place)) for place in range(6)],
        "y": y(),
    }
    keywords = {
        "class_imbalance": {"label": 0, "keep": 0.0},
        "distribution_shift": {"kind": "label"},
    }.get(kind, {})
    after = struck(kind, batch, **keywords)
    order = [places[id(thing)] for thing in after["image"]]
    assert order != list(range(6))
    assert [item["id"] for item in after["meta"]] == order
    assert [len(item) - 1 for item in after["tokens"]] == order
    assert [len(item) - 1 for item in after["boxes"]] == order
    assert len(after["none"]) == len(order)
    assert after["y"].tolist() == y()[order].tolist()


def target(boxes):
    """Return the target of an image for detection."""
    return {"boxes": torch.rand(boxes, 4), "labels": torch.arange(boxes)}


@pytest.mark.parametrize(
    "batch",
    [
        [image() for _ in range(4)],
        ([image() for _ in range(4)], [target(2 + place) for place in range(4)]),
        tuple(zip(*[(image(20 + place, 9), target(2)) for place in range(4)], strict=True)),
        [(image(), place) for place in range(4)],
        [{"x": image(), "y": torch.tensor(place)} for place in range(4)],
        ([image() for _ in range(4)], torch.arange(4)),
        ([torch.ones(place + 1) for place in range(4)], torch.arange(4)),
    ],
)
def test_a_list_of_samples_loses_samples_and_not_their_channels(batch):
    """Collate functions of detection return such lists."""
    for name, keywords, left in (("short_batch", {"size": 2}, 2), ("empty_batch", {}, 0)):
        after = struck(name, batch, **keywords)
        assert type(after) is type(batch)
        expected = (
            batch[:left] if isinstance(batch, list) else tuple(field[:left] for field in batch)
        )
        assert_same_state(after, expected)


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ({"image": [object()] * 5, "y": y()}, "the lengths of image (5), y (6) differ"),
        (
            {"boxes": [torch.ones(2, 4), torch.ones(3, 4)], "y": y()},
            "the lengths of boxes.0 (2), boxes.1 (3), y (6) differ",
        ),
        ([torch.ones(5, 2)] * 3, "cannot tell whether the batch is a list of samples or of fields"),
        ([image(), image()], "cannot tell whether the batch is a list of samples or of fields"),
        (
            {"x": [torch.ones(6, 2)] * 6, "y": y()},
            "cannot tell whether x (6) is a list of samples or of fields of 6 samples",
        ),
        (([image()] * 2, [target(3), target(3)]), "is a list of samples or of fields"),
        ([torch.ones(3), torch.ones(4)], "the lengths of 0 (3), 1 (4) differ"),
    ],
)
def test_a_batch_whose_samples_cannot_be_told_is_refused(batch, message):
    """It names the fields and their lengths."""
    with pytest.raises(PayloadMismatch) as caught:
        struck("empty_batch", batch)
    assert message in str(caught.value)


def test_whole_samples_of_a_list_are_corrupted():
    """All of the items drawn, and nothing of the others."""
    after = struck("corrupt_batch", [image() for _ in range(8)], pattern="samples", fraction=0.5)
    assert sorted(float(item.isnan().float().mean()) for item in after) == [0.0] * 4 + [1.0] * 4


@pytest.mark.parametrize(
    ("batch", "labels"),
    [
        ({"label_ids": y(), "idx": torch.arange(6)}, "label_ids"),
        ({"targetClass": y(), "target_mask": torch.ones(6, 2)}, "targetClass"),
        ({"labels": y(), "label_ids": y(), "x": x()}, "labels"),
        ({"kind": y(), "x": x(), "digit": y()}, "digit"),
        ({"x": x(), "rows": torch.eye(6)}, "rows"),
        ([x(), torch.rand(6, 2)], 1),
    ],
)
def test_labels_are_found_by_name_and_else_by_what_they_look_like(batch, labels):
    """All other fields are the same objects."""
    after = struck("label_noise", batch, fraction=1.0)
    for name, value in enumerate(batch) if isinstance(batch, list) else batch.items():
        assert (after[name] is value) == (name != labels)


@pytest.mark.parametrize(
    "batch",
    [
        {
            "input_ids": torch.ones(6, 3, dtype=torch.long),
            "attention_mask": torch.ones(6, 3, dtype=torch.long),
        },
        [torch.ones(6, 3, dtype=torch.long), torch.ones(6, 3, dtype=torch.long)],
        {"x": x(), "idx": torch.arange(6)},
        {"x": x(), "z": x()},
        {"x": x(), "z": y(), "label": ["cat", "dog"] * 3},
        [image() for _ in range(4)],
    ],
)
def test_a_batch_without_labels_is_refused(batch):
    """Rather than anything else being struck, with a hint at ``fields=``."""
    for name, keywords in (("label_noise", {}), ("corrupt_batch", {"kind": "shuffle_labels"})):
        with pytest.raises(
            PayloadMismatch, match=r"found no labels in the batch .*\. Name them with fields="
        ):
            struck(name, batch, **keywords)


def test_labels_become_other_classes():
    """Exactly the share; the features are the same objects; ignored positions stay."""
    for seed in range(20):
        batch = (x(), y())
        after = struck("label_noise", batch, seed, fraction=0.5)
        assert after[0] is batch[0]
        assert int((after[1] != y()).sum()) == 3
        assert set(after[1].tolist()) <= {0, 1, 2}
    ignored = torch.tensor([[-100, 3, -100], [4, -100, 5]])
    after = struck("label_noise", (x(), ignored), fraction=1.0, classes=7)[1]
    assert torch.equal(after < 0, ignored < 0)
    assert int((after != ignored).sum()) == 3


@pytest.mark.parametrize(
    ("labels", "kept"),
    [
        (torch.tensor([0.0, 1.0, 1.0, 0.0]), lambda new: bool(((new == 0) | (new == 1)).all())),
        (torch.tensor([True, False, True, True]), lambda new: new.dtype == torch.bool),
        (torch.eye(4), lambda new: bool((new.sum(1) == 1).all())),
        (
            torch.tensor([0.1, 2.5, -3.0, 4.0], dtype=torch.float64),
            lambda new: new.dtype == torch.float64,
        ),
        (np.array([1, 2, 3, 3], dtype=np.uint8), lambda new: new.dtype == np.uint8),
    ],
)
def test_labels_of_each_form_stay_of_that_form(labels, kept):
    """Truth values, one-hot rows and targets of a regression."""
    batch = {"x": torch.ones(4, 2), "labels": labels}
    after = struck("label_noise", batch, fraction=1.0)["labels"]
    assert kept(after)
    before, after = torch.as_tensor(labels), torch.as_tensor(after)
    assert bool((before != after).reshape(4, -1).any(1).all())


def test_a_class_is_nearly_absent_and_others_are_repeated_in_its_place():
    """In all fields alike."""
    features = torch.arange(100.0)
    batch = (features, (features % 4).long())
    after = struck("class_imbalance", batch, label=1, keep=0.2)
    assert int((after[1] == 1).sum()) == 5
    assert torch.equal((after[0] % 4).long(), after[1])
    assert after[0].shape == features.shape
    assert (
        int((struck("class_imbalance", batch, keep=0.0)[1].bincount(minlength=4) == 0).sum()) == 1
    )


def test_a_batch_without_the_class_is_spared():
    """And the fault strikes where there are some."""
    with armed(create("class_imbalance", label=1, keep=0.0, at=EVERY)) as controller:
        pair = [(torch.ones(3), torch.tensor([0, 0, 2])), (torch.ones(3), torch.tensor([0, 1, 2]))]
        assert [1 in batch[1] for batch in batches(pair)] == [False, False]
    assert [strike.visit for strike in controller.journal] == [1]


def test_each_kind_of_shift_moves_what_it_names():
    """Features up, in the same way at each strike; classes rarer; labels that mean another class."""
    batch = {
        "x": torch.randn(1000, 3, generator=torch.Generator().manual_seed(0)),
        "y": torch.arange(1000) % 3,
    }
    with Controller(
        Schedule((create("distribution_shift", magnitude=2.0, at=[0, 1]),))
    ) as controller:
        first, second = (
            controller.visit("data.batch", {**batch, "x": batch["x"] * scale}) for scale in (1, 7)
        )
    assert torch.equal(first["y"], batch["y"])
    assert float((first["x"] - batch["x"]).mean()) == pytest.approx(
        2.0 * float(batch["x"].std()), rel=0.01
    )
    assert torch.allclose(second["x"] - batch["x"] * 7, first["x"] - batch["x"], atol=1e-4)
    counts = struck("distribution_shift", batch, kind="label", magnitude=1.0)["y"].bincount()
    assert [
        round(float(counts[1] / counts[0]), 1),
        round(float(counts[2] / counts[1]), 1),
    ] == pytest.approx([0.37, 0.37], abs=0.1)
    assert torch.equal(
        struck("distribution_shift", batch, kind="concept")["y"], (batch["y"] + 1) % 3
    )
    partly = struck("distribution_shift", batch, kind="concept", magnitude=0.5)["y"]
    assert [int(partly[batch["y"] == number].unique()) for number in range(3)] == [1, 0, 2]


def test_types_and_shapes_are_wrong():
    """The copy has the requested type or shape."""
    images = torch.arange(2 * 3 * 4 * 5.0).reshape(2, 3, 4, 5)
    shapes = {
        "transposed": (2, 3, 5, 4),
        "extra_dim": (2, 3, 4, 5, 1),
        "missing_dim": (3, 4, 5),
        "flattened": (2, 60),
        "channels_last": (2, 4, 5, 3),
        "channels_first": (2, 5, 3, 4),
    }
    for kind, shape in shapes.items():
        for value in (images, images.numpy()):
            after = struck("wrong_shape", {"x": value}, kind=kind)["x"]
            assert after.shape == shape
            assert type(after) is type(value)
            after[...] = -1
    assert float(images.min()) == 0
    assert torch.equal(
        struck("wrong_shape", images, kind="channels_last"), images.permute(0, 2, 3, 1)
    )
    assert struck("wrong_shape", (images, y()), kind="extra_dim", fields=1)[1].shape == (6, 1)
    assert struck("wrong_dtype", images, dtype="int64").dtype == torch.int64
    assert struck("wrong_dtype", {"x": images.numpy()}, dtype="object")["x"].dtype == object


def test_more_kinds_of_corruption():
    """Sensors at their limit, and defects that have a shape."""
    field = torch.arange(1.0, 25).reshape(4, 3, 2)
    assert bool((struck("corrupt_batch", field, kind="saturate") == 24).all())
    dead = struck("corrupt_batch", field, kind="zero", pattern="channels", fraction=0.1)
    assert [int((dead[:, channel] == 0).all()) for channel in range(3)].count(1) == 1
    rows = struck("corrupt_batch", field, kind="nan", pattern="samples", fraction=0.5)
    assert sorted(rows.isnan().flatten(1).all(1).tolist()) == [False, False, True, True]
    assert int(rows.isnan().sum()) == 12
    block = (
        struck("corrupt_batch", field, kind="nan", pattern="block", fraction=0.25)
        .flatten()
        .isnan()
        .nonzero()
        .flatten()
    )
    assert block.tolist() == list(range(int(block[0]), int(block[0]) + 6))
    counts = [
        int(struck("corrupt_batch", torch.ones(1000), severity=severity).isnan().sum())
        for severity in range(1, 6)
    ]
    assert counts == [10, 50, 200, 500, 1000]


def test_a_worker_that_died_stays_dead_for_its_epoch():
    """The error is torch's; a dataset's own error costs one batch."""
    with armed(create("loader_failure", at=1)):
        loader = DataLoader(torch.arange(6.0), batch_size=2, num_workers=1)
        iterator = iter(loader)
        next(iterator)
        for _ in range(3):
            with pytest.raises(
                RuntimeError, match=r"DataLoader worker \(pid\(s\) \d+\) exited unexpectedly"
            ):
                next(iterator)
        assert len(list(loader)) == 3
    with armed(create("loader_failure", error=OSError(5, "Input/output error"), at=1)):
        iterator = iter(batches([0, 1, 2]))
        assert next(iterator) == 0
    with armed(create("loader_failure", error=OSError(5, "Input/output error"), at=1)):
        iterator = iter(DataLoader(torch.arange(6.0), batch_size=2))
        next(iterator)
        with pytest.raises(OSError, match="Input/output error"):
            next(iterator)
        assert next(iterator).tolist() == [4, 5]


@pytest.mark.parametrize(
    ("name", "keywords", "batch", "message"),
    [
        (
            "short_batch",
            {},
            (x(), torch.ones(5)),
            "cannot tell the samples, because the lengths of 0 (6), 1 (5) differ, in the batch",
        ),
        (
            "short_batch",
            {"size": 9},
            x(),
            "cannot leave 9 of 6 samples in the batch float32[6, 3]. empty_batch leaves none",
        ),
        ("short_batch", {}, torch.ones(1, 3), "cannot leave 1 of 1 samples"),
        ("short_batch", {}, torch.eye(3).to_sparse(), "it is a tensor of layout torch.sparse_coo"),
        (
            "short_batch",
            {},
            torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
            "it is a nested tensor",
        ),
        ("short_batch", {}, torch.ones(4, 2, device="meta"), "it is on the meta device"),
        ("empty_batch", {}, Sparse(), "found no arrays that hold samples in the batch Sparse"),
        (
            "empty_batch",
            {},
            {"text": "none"},
            "found no arrays that hold samples in the batch dict(text: str)",
        ),
        (
            "label_noise",
            {"fields": "label"},
            {"x": x(), "labels": y()},
            "no field 'label' with numbers in the batch dict(x: float32[6, 3]",
        ),
        ("label_noise", {"fields": "label"}, {"x": x(), "labels": y()}, "(did you mean 'labels'?)"),
        (
            "label_noise",
            {},
            (x(), torch.zeros(6, dtype=torch.long)),
            "holds a single class. Give the number of classes with classes=",
        ),
        (
            "label_noise",
            {"classes": 2, "fraction": 1.0},
            (x(), y()),
            "holds classes beyond classes=2",
        ),
        (
            "class_imbalance",
            {"label": 0},
            (x(), torch.zeros(6)),
            "found no samples of a different class",
        ),
        ("class_imbalance", {}, (x(), torch.rand(6)), "it has no class for each of the 6 samples"),
        ("distribution_shift", {"kind": "label"}, (x(), torch.zeros(6)), "found a single class"),
        ("distribution_shift", {"fields": 1}, (x(), y()), "it is not floating-point"),
        ("distribution_shift", {}, torch.full((8, 2), torch.nan), "so nothing was changed"),
        (
            "distribution_shift",
            {"kind": "concept"},
            (x(), torch.full((6,), -100)),
            "cannot change the field",
        ),
        ("wrong_dtype", {"dtype": "str"}, x(), "it is a tensor, and torch does not have this type"),
        ("wrong_dtype", {"dtype": "float32"}, x(), "it has that type already"),
        (
            "wrong_dtype",
            {"dtype": "bfloat16"},
            np.ones(3),
            "it is a NumPy array, and NumPy does not have this type",
        ),
        (
            "wrong_shape",
            {"kind": "channels_last"},
            x(),
            "it has 2 axes, but 'channels_last' needs 3",
        ),
        (
            "corrupt_batch",
            {"kind": "zero"},
            torch.zeros(3),
            "it already has these values, so nothing was changed",
        ),
        ("corrupt_batch", {"pattern": "channels"}, torch.ones(3), "it has no axis of channels"),
    ],
)
def test_a_batch_that_a_fault_cannot_work_on_is_an_error_that_says_why(
    name, keywords, batch, message
):
    """It names the fault, shapes and types: never a silent nothing."""
    with pytest.raises(PayloadMismatch) as caught:
        struck(name, batch, **keywords)
    assert message in str(caught.value)
    assert name in str(caught.value)


def test_read_only_and_mapped_arrays_are_copied(tmp_path):
    """The file stays as it was."""
    np.save(tmp_path / "x.npy", np.arange(1.0, 13).reshape(4, 3))
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    before = (tmp_path / "x.npy").read_bytes()
    for name in (
        "corrupt_batch",
        "short_batch",
        "empty_batch",
        "wrong_shape",
        "distribution_shift",
    ):
        after = struck(name, {"x": mapped})["x"]
        assert after is not mapped
    assert (tmp_path / "x.npy").read_bytes() == before


TRAINERS = {
    "pytorch_lightning": """
        import pytorch_lightning as lightning
        import torch
        from torch.utils.data import DataLoader, TensorDataset

        class Model(lightning.LightningModule):
            def __init__(self):
                super().__init__()
                self.layer = torch.nn.Linear(2, 3)
                self.seen, Model.sums = [], []

            def training_step(self, batch, index):
                x, y = batch
                self.seen.append([tuple(x.shape), y.tolist()])
                self.sums.append(float(x.sum()))
                return torch.nn.functional.cross_entropy(self.layer(x), y)

            def configure_optimizers(self):
                return torch.optim.SGD(self.parameters(), lr=0.1)

        def train(folder, workers=0):
            model = Model()
            data = TensorDataset(torch.ones(8, 2), torch.arange(8) % 3)
            trainer = lightning.Trainer(max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False,
                                        enable_progress_bar=False, enable_model_summary=False, default_root_dir=folder)
            trainer.fit(model, DataLoader(data, batch_size=2, num_workers=workers))
            return model.seen
    """,
    "transformers": """
        import torch
        import transformers

        class Model(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.layer = torch.nn.Linear(2, 3)
                self.seen, Model.sums = [], []

            def forward(self, x, labels):
                self.seen.append([tuple(x.shape), labels.tolist()])
                self.sums.append(float(x.sum()))
                return {"loss": torch.nn.functional.cross_entropy(self.layer(x), labels)}

        def train(folder, workers=0):
            model = Model()
            data = [{"x": torch.ones(2), "labels": torch.tensor(number % 3)} for number in range(8)]
            given = transformers.TrainingArguments(output_dir=str(folder), per_device_train_batch_size=2, num_train_epochs=1,
                                                   use_cpu=True, report_to=[], save_strategy="no", disable_tqdm=True,
                                                   train_sampling_strategy="sequential",
                                                   dataloader_num_workers=workers, logging_strategy="no")
            transformers.Trainer(model=model, args=given, train_dataset=data).train()
            return model.seen
    """,
}


@pytest.mark.slow
@pytest.mark.parametrize("library", TRAINERS)
def test_an_unmodified_trainer_meets_them_all(example, library):
    """Broken, short, empty, dropped, duplicated, shifted, late, interrupted, and a loader that
    fails; with workers too.
    """
    if importlib.util.find_spec(library) is None:
        # Not imported here: pytester would forget half of it.
        pytest.skip(f"needs {library}")
    example.with_file("subject.py", textwrap.dedent(TRAINERS[library])).with_tests("""
        import pytest
        from subject import Model, train

        WHOLE = [[(2, 2), [0, 1]], [(2, 2), [2, 0]], [(2, 2), [1, 2]], [(2, 2), [0, 1]]]

        @chaos.corrupt_batch(kind="scale", magnitude=1000, at=1)
        def test_corrupt(mlchaos, tmp_path):
            assert train(tmp_path, workers=2) == WHOLE
            assert Model.sums == [4, 4000, 4, 4]

        @chaos.corrupt_batch(at=1)
        def test_no_number(mlchaos, tmp_path):
            train(tmp_path)
            assert [number == number for number in Model.sums] == [True, False, True, True]

        @chaos.empty_batch(at=1)
        def test_empty(mlchaos, tmp_path):
            assert train(tmp_path) == [WHOLE[0], [(0, 2), []], *WHOLE[2:]]

        @chaos.class_imbalance(label=1, keep=0.0, at=chaos.EVERY)
        def test_a_class_is_missing(mlchaos, tmp_path):
            assert [labels for _, labels in train(tmp_path)] == [[0, 0], [2, 0], [2, 2], [0, 0]]

        @chaos.distribution_shift(kind="concept", classes=3, at=range(2, 4))
        def test_labels_mean_something_else(mlchaos, tmp_path):
            assert [labels for _, labels in train(tmp_path)] == [[0, 1], [2, 0], [2, 0], [1, 2]]

        @chaos.distribution_shift(magnitude=3.0, at=range(2, 4))
        def test_features_are_higher(mlchaos, tmp_path):
            assert train(tmp_path) == WHOLE
            assert Model.sums == [4, 4, 16, 16]

        @chaos.wrong_shape(kind="extra_dim", at=1)
        def test_shape(mlchaos, tmp_path):
            with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
                train(tmp_path)

        @chaos.delay_batch(delay="1h", at=1)
        def test_late(mlchaos, tmp_path):
            start = mlchaos.clock.now()
            assert train(tmp_path) == WHOLE
            assert mlchaos.clock.now() - start >= 3600

        @chaos.worker_death(at=2)
        def test_death(mlchaos, tmp_path):
            with pytest.raises(RuntimeError, match="DataLoader worker"):
                train(tmp_path, workers=2)

        @chaos.drop_batch(at=1)
        def test_drop(mlchaos, tmp_path):
            assert train(tmp_path) == [WHOLE[0], *WHOLE[2:]]

        @chaos.duplicate_batch(at=0)
        def test_duplicate(mlchaos, tmp_path):
            assert train(tmp_path)[:3] == [WHOLE[0], WHOLE[0], WHOLE[1]]

        @chaos.stale_batch(at=2)
        def test_stale(mlchaos, tmp_path):
            assert train(tmp_path) == [*WHOLE[:2], WHOLE[1], WHOLE[3]]

        @chaos.reorder_batches(window=2, at=0)
        def test_reorder(mlchaos, tmp_path):
            assert train(tmp_path, workers=2) == [WHOLE[1], WHOLE[0], *WHOLE[2:]]

        @chaos.short_batch(size=1, at=1)
        def test_short(mlchaos, tmp_path):
            assert train(tmp_path) == [WHOLE[0], [(1, 2), [2]], *WHOLE[2:]]

        @chaos.label_noise(fraction=1.0, classes=3, at=3)
        def test_labels(mlchaos, tmp_path):
            seen = train(tmp_path)
            assert seen[:3] == WHOLE[:3]
            assert all(a != b for a, b in zip(seen[3][1], WHOLE[3][1]))

        @chaos.stream_interruption(at=2)
        def test_interruption(mlchaos, tmp_path):
            assert train(tmp_path) == WHOLE[:2]

        @chaos.loader_failure(at=2)
        def test_failure(mlchaos, tmp_path):
            with pytest.raises(RuntimeError, match="exited unexpectedly"):
                train(tmp_path, workers=2)

        @chaos.wrong_dtype(dtype="float64", at=1)
        def test_dtype(mlchaos, tmp_path):
            with pytest.raises(RuntimeError, match="dtype"):
                train(tmp_path)
    """).run("-p", "no:warnings", fresh=True, passed=18)

"""Images as they pass through loops that people write. (needs torch)"""

from __future__ import annotations

import copy

import pytest
import torch

from pytest_mlchaos import assert_same_state, faults
from pytest_mlchaos.core.faults import create
from pytest_mlchaos.errors import PayloadMismatch
from pytest_mlchaos.testing import strike
from tests.cases_images import pictures

faults.load()


def images():
    """Channels first, 0 to 1."""
    return torch.from_numpy(pictures().copy()).permute(0, 3, 1, 2).float() / 255


def corrupted(batch, kind="gaussian_noise", **keywords):
    """Return the batch after one strike. Raise the error of a refusal."""
    outcome = strike(create("corrupt_image", kind=kind, at=0, **keywords), [batch]).outcomes[0]
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.uint8]
)
@pytest.mark.parametrize("kind", ["gaussian_noise", "fog", "brightness"])
def test_a_tensor_keeps_shape_dtype_strides_and_gradient(kind, dtype):
    """And the one that was given is not modified."""
    scale = 255 if dtype == torch.uint8 else 1
    given = (
        (images() * scale)
        .to(dtype)
        .contiguous(memory_format=torch.channels_last)
        .requires_grad_(dtype == torch.float32)
    )
    batch = {"pixel_values": given, "labels": torch.arange(3)}
    before = copy.deepcopy(batch)
    fresh = corrupted(batch, kind)
    assert_same_state(batch, before)
    found = fresh["pixel_values"]
    assert (found.shape, found.dtype, found.device) == (given.shape, given.dtype, given.device)
    assert (found.stride(), found.requires_grad) == (given.stride(), given.requires_grad)
    assert fresh["labels"] is batch["labels"]
    assert not torch.equal(found, given)


def test_tensors_and_arrays_are_struck_alike():
    """One seed, one result."""
    assert torch.equal(corrupted(images()), torch.from_numpy(corrupted(images().numpy())))


def test_normalised_images_need_their_range():
    """A number or one for each channel; the error says so."""
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    normalised = (images() - mean[:, None, None]) / std[:, None, None]
    with pytest.raises(
        PayloadMismatch,
        match=r"values outside 0 to 1 \(or not finite\)\. Give value_range=\(low, high\)",
    ):
        corrupted(normalised)
    ends = tuple(tuple(end.tolist()) for end in (-mean / std, (1 - mean) / std))
    fresh = corrupted(normalised, value_range=ends) * std[:, None, None] + mean[:, None, None]
    assert float((fresh - corrupted(images())).abs().max()) < 1e-4


def test_sparse_tensors_are_refused():
    """By name."""
    with pytest.raises(PayloadMismatch, match=r"it is a tensor of layout torch\.sparse_coo"):
        corrupted({"x": images().to_sparse()}, fields="x")


LOADER = """
    import torch
    from torch.utils.data import DataLoader, Dataset

    class Photos(Dataset):
        def __len__(self):
            return 32

        def __getitem__(self, number):
            return torch.full((3, 32, 32), 0.5), number % 2

    def brightest(loader):
        return [float((images - 0.5).abs().mean()) for images, labels in loader]

    def evaluate(model, loader):
        right = [(model(images).argmax(1) == labels).float() for images, labels in loader]
        return float(torch.cat(right).mean())
"""


@pytest.mark.slow
def test_batches_of_a_loader_with_workers_are_corrupted(example):
    """An unmodified loop over a DataLoader: the second and third batch are noisy, the others are
    not.
    """
    example.with_file("photos.py", LOADER).with_tests(
        """
        from photos import DataLoader, Photos, brightest

        @chaos.corrupt_image(kind="gaussian_noise", severity=5, at=[1, 2])
        def test_it():
            seen = brightest(DataLoader(Photos(), batch_size=8, num_workers=2))
            assert [amount > 0.2 for amount in seen] == [False, True, True, False]
            assert seen[0] == seen[3] == 0
        """
    ).run(fresh=True, passed=1)


@pytest.mark.slow
def test_the_severity_that_a_loop_survives_is_found(example):
    """Drawn severities are shrunk to the least that breaks a bound on what the loop sees."""
    outcome = (
        example.with_file("photos.py", LOADER)
        .with_tests(
            """
            from photos import DataLoader, Photos, brightest

            @chaos.settings(max_trials=30)
            @chaos.corrupt_image(kind="gaussian_noise", severity=chaos.one_of(1, 2, 3, 4, 5))
            def test_it():
                assert max(brightest(DataLoader(Photos(), batch_size=8))) < 0.12
            """
        )
        .run(fresh=True, failed=1)
    )
    assert outcome.reproduce
    # 3 is the default.
    assert "severity" not in outcome.reproduce[-1] or "severity=3" in outcome.reproduce[-1]


@pytest.mark.slow
def test_a_lightning_trainer_gets_corrupted_images(example):
    """Its loss at the struck step is another than in a run without; its code is unmodified."""
    pytest.importorskip("pytorch_lightning")
    example.with_file("photos.py", LOADER).with_tests(
        """
        import pytorch_lightning as pl
        import torch
        from photos import DataLoader, Photos

        class Classifier(pl.LightningModule):
            def __init__(self):
                super().__init__()
                self.layer = torch.nn.Linear(3 * 32 * 32, 2)
                self.spread = []

            def training_step(self, batch, number):
                images, labels = batch
                self.spread.append(float(images.std()))
                return torch.nn.functional.cross_entropy(self.layer(images.flatten(1)), labels)

            def configure_optimizers(self):
                return torch.optim.SGD(self.parameters(), lr=0.01)

        @chaos.corrupt_image(kind="impulse_noise", severity=4, at=2)
        def test_it(tmp_path):
            model = Classifier()
            quiet = dict(logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False)
            pl.Trainer(max_epochs=1, accelerator="cpu", default_root_dir=tmp_path, **quiet).fit(model, DataLoader(Photos(), batch_size=8))
            assert [spread > 0.05 for spread in model.spread] == [False, False, True, False]
        """
    ).run(fresh=True, passed=1)


@pytest.mark.slow
def test_pictures_that_a_function_returns_are_corrupted(example):
    """A decoder of one's own, as a target; PIL images stay PIL images."""
    pytest.importorskip("PIL")
    example.with_file(
        "photos.py",
        """
        from PIL import Image

        def load(name):
            return Image.new("RGB", (40, 30), (90, 120, 150))
        """,
    ).with_tests(
        """
        import photos

        @chaos.corrupt_image(kind="shot_noise", severity=3, target="photos:load", at=1)
        def test_it():
            colors = [len(photos.load(name).getcolors(10_000)) for name in "abc"]
            assert colors[0] == colors[2] == 1 < colors[1]
        """
    ).run(fresh=True, passed=1)

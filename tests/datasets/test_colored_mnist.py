"""Colored MNIST: which digits go where, on stand-in digits always and on MNIST where it is."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch

from invlearn.datasets import Problem, colored_mnist, load_benchmark
from invlearn.datasets.download import mnist_available
from invlearn.errors import OptionError
from invlearn.features import ChannelImages, Features


def stand_in(part: str) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Images whose first kept pixels spell the number of the row (base 256) and its part."""
    n = {"train": 60_000, "test": 10_000}[part]
    images = np.zeros((n, 28, 28), dtype=np.uint8)
    images[:, 0, 0] = np.arange(n) % 256
    images[:, 0, 2] = np.arange(n) // 256
    images[:, 0, 4] = 255 * (part == "test")
    images[:, 1, 1] = 77
    return images, np.arange(n) % 10


def numbers(x: Features) -> torch.Tensor:
    """Numbers of the rows, those of the test file from 100,000."""
    assert isinstance(x, ChannelImages)
    pixels = (x.pixels * 255).round().long()
    return pixels[:, 0] + 256 * pixels[:, 1] + 100_000 * (pixels[:, 2] == 255)


@pytest.fixture
def _stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(colored_mnist, "read_mnist", stand_in)


@pytest.mark.usefixtures("_stand_in")
def test_official_protocol() -> None:
    benchmark = load_benchmark("colored-mnist", seed=0)
    assert benchmark.train.names == ("p_e=0.1", "p_e=0.2")
    assert benchmark.train.sizes == (25_000, 25_000)
    assert torch.equal(numbers(benchmark.train.x).sort().values, torch.arange(50_000))
    assert benchmark.validation is not None
    assert benchmark.validation.names == benchmark.train.names
    assert benchmark.validation.sizes == (5_000, 5_000)
    held = numbers(benchmark.validation.x).sort().values
    assert torch.equal(held, torch.arange(50_000, 60_000))
    assert torch.equal(numbers(benchmark.test.x)[:10_000], torch.arange(100_000, 110_000))
    assert benchmark.test.names == tuple(f"p_e=0.{k}" for k in range(1, 10))
    assert (benchmark.target, benchmark.loss, benchmark.n_outputs) == ("p_e=0.9", "logistic", 1)
    assert benchmark.train.x.dtype == torch.float32
    assert isinstance(benchmark.train.x, ChannelImages)
    assert benchmark.train.x.n_features == 2 * 14 * 14
    assert benchmark.without_shortcut is not None
    assert benchmark.without_shortcut(benchmark.train.x) is benchmark.train.x.pixels
    assert dict(benchmark.description) == {
        "test_set": "official",
        "image_size": 14,
        "rows_per_environment": 25_000,
        "validation_rows_per_environment": 5_000,
        "test_rows": 10_000,
        "label_noise": 0.25,
        "training_p": "0.1,0.2",
    }


@pytest.mark.usefixtures("_stand_in")
def test_irm_code_protocol() -> None:
    benchmark = load_benchmark("colored-mnist", seed=0, test_set="irm-code")
    assert benchmark.validation is None
    assert torch.equal(numbers(benchmark.test.x)[:10_000], torch.arange(50_000, 60_000))
    assert benchmark.description["test_set"] == "irm-code"
    assert benchmark.description["validation_rows_per_environment"] == 0


@pytest.mark.usefixtures("_stand_in")
def test_options() -> None:
    benchmark = load_benchmark(
        "colored-mnist",
        seed=3,
        image_size="28",
        rows_per_environment="6250",
        label_noise="0",
        training_p="0.1,0.2,0.45",
    )
    assert benchmark.train.sizes == (6250,) * 3
    assert isinstance(benchmark.train.x, ChannelImages)
    assert benchmark.train.x.pixels.shape[1] == 784
    assert "p_e=0.45" in benchmark.test.names
    assert benchmark.description["rows_per_environment"] == 6250
    assert benchmark.description["label_noise"] == 0.0


@pytest.mark.usefixtures("_stand_in")
def test_seeds() -> None:
    first, again, other = (
        load_benchmark("colored-mnist", seed=s, rows_per_environment=500) for s in (4, 4, 5)
    )
    assert same(first, again)
    assert not torch.equal(numbers(first.train.x), numbers(other.train.x))
    assert not torch.equal(first.test.targets[0], other.test.targets[0])


def same(a: Problem, b: Problem) -> bool:
    assert isinstance(a.train.x, ChannelImages)
    assert isinstance(b.train.x, ChannelImages)
    return (
        torch.equal(a.train.x.pixels, b.train.x.pixels)
        and torch.equal(a.train.x.channel, b.train.x.channel)
        and torch.equal(a.train.y, b.train.y)
        and all(torch.equal(x, y) for x, y in zip(a.test.rows, b.test.rows, strict=True))
    )


@pytest.mark.usefixtures("_stand_in")
@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        (
            "image_size",
            20,
            "Expected option 'image_size' to be one of 14, 28, got 20. Choose one of them.",
        ),
        (
            "test_set",
            "mine",
            "Expected option 'test_set' to be one of 'official', 'irm-code', got 'mine'. "
            "Choose one of them.",
        ),
        (
            "rows_per_environment",
            25_001,
            "Expected option 'rows_per_environment' between 0 and 25000, got 25001. "
            "Choose a value in that range.",
        ),
        (
            "label_noise",
            -0.1,
            "Expected option 'label_noise' between 0 and 1, got -0.1. "
            "Choose a value in that range.",
        ),
    ],
)
def test_bad_options(option: str, value: object, message: str) -> None:
    with pytest.raises(OptionError) as caught:
        colored_mnist.build(seed=0, **{option: value})  # type: ignore[arg-type]
    assert str(caught.value) == message


@pytest.mark.skipif(not mnist_available(), reason="MNIST is not here; set INVLEARN_DATA")
def test_real_mnist() -> None:
    benchmark = load_benchmark("colored-mnist", seed=0)
    assert benchmark.train.sizes == (25_000, 25_000)
    assert isinstance(benchmark.train.x, ChannelImages)
    pixels = benchmark.train.x.pixels
    assert (pixels.min().item(), pixels.max().item()) == (0.0, 1.0)
    # The usual mean brightness of MNIST's training images.
    assert pixels.mean().item() == pytest.approx(0.1307, abs=0.002)
    agreement = [(x.channel == y).double().mean().item() for _, x, y in benchmark.train]  # type: ignore[union-attr]
    assert agreement == pytest.approx([0.9, 0.8], abs=0.02)
    rows, y = benchmark.test.rows[-1], benchmark.test.targets[-1]
    assert (rows // 10_000 == y).double().mean().item() == pytest.approx(0.1, abs=0.02)

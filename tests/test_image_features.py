"""What describes images: against a loop over pixels, and what a model's record keeps of it."""

import math

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from invlearn import image_features as module
from invlearn.image_features import ImageFeatures, ImageInput, StandardFeatures


def pixels(n=3, channels=3, height=16, width=24):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (n, channels, height, width), generator=generator).byte()


def slow(image):
    """Pixel by pixel, of one image whose sides are multiples of eight."""
    image = image.double().numpy()
    found = [_cells(channel[None])[0] for channel in image]
    half = image.reshape(len(image), image.shape[1] // 2, 2, image.shape[2] // 2, 2).mean((2, 4))
    for x in (image, half):
        _, height, width = x.shape
        edges = np.zeros((6, height, width))
        for i in range(height):
            for j in range(width):
                across = x[:, i, min(j + 1, width - 1)] - x[:, i, max(j - 1, 0)]
                down = x[:, min(i + 1, height - 1), j] - x[:, max(i - 1, 0), j]
                c = np.argmax(across**2 + down**2)
                size, angle = np.hypot(across[c], down[c]), np.arctan2(down[c], across[c])
                for k in range(6):
                    edges[k, i, j] = size * np.cos(angle - math.pi * k / 6) ** 8
        found += list(np.sqrt(_cells(edges)))
    return np.stack(found).reshape(-1)


def _cells(x):
    n, height, width = x.shape
    return x.reshape(n, 4, height // 4, 4, width // 4).mean((2, 4))


@pytest.mark.parametrize("channels", [1, 3])
def test_against_a_loop_over_pixels(channels):
    images = pixels(channels=channels)
    found = ImageFeatures()(images)
    assert found.shape == (3, 16 * (channels + 12))
    for row, image in zip(found, images, strict=True):
        np.testing.assert_allclose(row.numpy(), slow(image), rtol=1e-4, atol=1e-3)


def test_pieces_change_nothing_and_an_empty_image_has_no_edges(monkeypatch):
    whole = ImageFeatures()(pixels(7))
    monkeypatch.setattr(module, "_AT_ONCE", 2 * 3 * 16 * 24)
    assert torch.equal(ImageFeatures()(pixels(7)), whole)
    flat = ImageFeatures()(torch.full((1, 1, 8, 8), 77.0))
    assert flat[0, :16].tolist() == [77.0] * 16
    assert not flat[0, 16:].any()


def test_standard_features_are_clipped_and_hold_no_weights():
    found = ImageFeatures()(pixels())
    mean, scale = found.mean(0), found.std(0)
    image = ImageInput(
        height=16, width=24, channels=3, mean=tuple(mean.tolist()), scale=tuple(scale.tolist())
    )
    standard = StandardFeatures(image)
    torch.testing.assert_close(standard(pixels()), (found - mean) / scale)
    assert not standard.state_dict()
    narrow = image.model_copy(update={"scale": (1e-9,) * 240})
    assert StandardFeatures(narrow)(pixels()).abs().max() == 10


def test_the_record_of_an_input_needs_a_mean_and_a_scale_per_feature():
    ones = [1.0] * 224
    fields = {"height": 8, "width": 9, "channels": 2, "mean": [0.5, *ones[1:]], "scale": ones}
    assert ImageInput(**fields).mean[:2] == (0.5, 1.0)
    assert ImageInput(**fields).n_features == 224
    for change, problem in [
        ({"mean": [0.5]}, "a mean and a scale for each of 224 features, got 1 and 224"),
        ({"scale": [1.0, 2.0, 3.0]}, "got 224 and 3"),
        ({"scale": [0.0, *ones[1:]]}, "greater than 0"),
        ({"mean": [float("nan"), *ones[1:]]}, "finite number"),
        ({"mean": ["x"] * 10**6}, "1 validation error"),
        ({"height": 1025}, "less than or equal to 1024"),
        ({"height": 7}, "greater than or equal to 8"),
        ({"channels": 65}, "less than or equal to 64"),
        ({"channels": 2.0}, "valid integer"),
        ({"extra": 1}, "not permitted"),
    ]:
        with pytest.raises(ValidationError) as caught:
            ImageInput(**fields | change)
        assert problem in str(caught.value)

"""Patches and channels lie where their names say, and cover every image once."""

import pytest
import torch

from invlearn.diagnostics.pieces import channel_means, image_shape, pieces_of
from invlearn.environments import Environments
from invlearn.features import ChannelImages


def images(*shape):
    x = torch.randn(4, *shape, generator=torch.Generator().manual_seed(0))
    return Environments.from_arrays(x, [0, 1, 0, 1], list("aabb"))


@pytest.mark.parametrize(
    ("shape", "patches"),
    [((3, 32, 32), 64), ((1, 28, 28), 49), ((3, 12, 20), 15), ((2, 3, 5), 1), ((100, 70), 64)],
)
def test_patches_cover_every_pixel_once_and_channels_every_value(shape, patches):
    found = pieces_of(images(*shape), None)
    values = torch.arange(torch.Size(shape).numel())
    assert torch.equal(torch.cat([p.columns for p in found[:patches]]).sort().values, values)
    channels = shape[0] if len(shape) == 3 and shape[0] > 1 else 0
    assert len(found) == patches + channels
    if channels:
        assert torch.equal(torch.cat([p.columns for p in found[patches:]]), values)
    assert len({piece.name for piece in found}) == len(found)


def test_a_name_says_where_the_patch_is():
    envs = images(3, 30, 50)
    marked = torch.zeros(3, 30, 50)
    by_name = {piece.name: piece for piece in pieces_of(envs, None)}
    marked.view(-1)[by_name["rows 1-4, columns 45-50 (upper right)"].columns] = 1.0
    assert marked[:, :4, 44:].all()
    assert marked.sum() == 3 * 4 * 6
    words = {name.split("(")[1][:-1] for name in by_name if "(" in name}
    assert words == {
        "upper left", "upper middle", "upper right", "middle left", "center", "middle right",
        "lower left", "lower middle", "lower right",
    }  # fmt: skip
    assert list(by_name)[-3:] == ["channel red", "channel green", "channel blue"]


def test_columns_and_their_names():
    envs = images(2)
    assert [piece.name for piece in pieces_of(envs, ["age", "dose"])] == ["age", "dose"]
    assert channel_means(envs) is None


def test_channel_means():
    envs, names = channel_means(images(3, 4, 4))
    assert names == ["average red", "average green", "average blue"]
    torch.testing.assert_close(envs.x.float(), images(3, 4, 4).x.mean((2, 3)))
    assert channel_means(images(4, 4))[1] == ["average gray"]


def test_shapes():
    assert image_shape(ChannelImages(torch.zeros(2, 9), torch.zeros(2).long(), 2)) == (2, 3, 3)
    assert image_shape(ChannelImages(torch.zeros(2, 8), torch.zeros(2).long(), 2)) is None
    assert image_shape(torch.zeros(2, 3)) is None
    assert image_shape(torch.zeros(2, 3, 4)) == (1, 3, 4)

"""Groups of rows beside their environments."""

from __future__ import annotations

import pytest
import torch

from invlearn.environments import Environments, by_label, with_groups
from invlearn.errors import EnvironmentsError


def test_groups_follow_their_rows():
    envs = by_label(Environments.from_arrays([[0.0]] * 6, [0, 1, 0, 1, 1, 0], list("bababa")))
    names = [f"{int(y)} in {envs.names[e]}" for y, e in zip(envs.y, envs.index, strict=True)]
    assert [envs.group_names[g] for g in envs.groups] == names
    some = envs.take([torch.tensor([1]), torch.tensor([0, 2])])
    assert [some.group_names[g] for g in some.groups] == [names[1], names[3], names[5]]
    turned = envs.select(["b", "a"])
    assert [turned.group_names[g] for g in turned.groups] == [*names[3:], *names[:3]]
    assert torch.equal(envs.to("cpu").groups, envs.groups)


def test_groups_of_another_length_and_of_numbers_are_refused():
    envs = Environments.from_arrays([[0.0], [1.0]], [0.5, 1.5], ["a", "a"])
    with pytest.raises(EnvironmentsError, match="a group for each of 2 rows, got 3 labels"):
        with_groups(envs, [1, 2, 3])
    with pytest.raises(EnvironmentsError, match=r"classes to group by, got .*Use with_groups"):
        by_label(envs)

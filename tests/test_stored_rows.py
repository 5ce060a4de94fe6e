"""Rows on disk read as a tensor's do, leave nothing behind, and pass through environments."""

from __future__ import annotations

import errno
import os
import shutil
from collections import namedtuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from invlearn.environments import Environments, EvaluationSet
from invlearn.errors import EnvironmentsError, OutputError
from invlearn.evaluation import evaluate, forward
from invlearn.features import width
from invlearn.losses import get_loss
from invlearn.models import MLP
from invlearn.stored_rows import RowStore, StoredRows
from invlearn.training import Settings
from invlearn.training.settings import draw_batch

VALUES = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
TENSOR = torch.from_numpy(VALUES)


@pytest.fixture
def stored():
    with RowStore(40, 3) as store:
        store.put(np.arange(40), VALUES)
        yield StoredRows.of(store)


@pytest.fixture
def reads(monkeypatch):
    """Every read's (bytes, place)."""
    seen = []
    real = os.pread

    def pread(descriptor, count, place):
        seen.append((count, place))
        return real(descriptor, count, place)

    monkeypatch.setattr(os, "pread", pread)
    return seen


def environments(x):
    y = torch.arange(40) % 2
    return Environments(x, y, ("a", "b", "c"), (0, 10, 25, 40))


@given(st.lists(st.integers(0, 39), max_size=60), st.permutations(range(40)))
@settings(max_examples=40, deadline=None)
def test_rows_come_back_whatever_order_they_were_put_and_are_taken_in(wanted, order):
    with RowStore(40, 3) as store:
        for part in np.array_split(np.array(order), 3):
            store.put(part, VALUES[part])
        got = StoredRows.of(store)[torch.tensor(wanted, dtype=torch.int64)]
    assert torch.equal(got, TENSOR[wanted])
    assert got.dtype == torch.float32


@pytest.mark.parametrize(
    "rows",
    [slice(None), slice(3, 9), slice(38, 50), slice(30, 2, -4), slice(-5, None), slice(9, 3)],
)
def test_slices_are_those_of_a_list(stored, rows):
    assert stored[rows].tolist() == TENSOR.tolist()[rows]


def test_masks_pick_where_they_are_true(stored):
    mask = TENSOR[:, 0] > 0
    assert torch.equal(stored[mask], TENSOR[mask])


def test_what_is_read_is_the_readers_own(stored):
    stored[:].zero_()
    assert torch.equal(stored[:], TENSOR)


@pytest.mark.parametrize(("rows", "got"), [([0, 40], "0 to 40"), ([-1, 3], "-1 to 3")])
def test_positions_outside_are_refused(stored, rows, got):
    message = f"Expected positions from 0 to 39 of stored rows, got {got}."
    with pytest.raises(IndexError, match=message):
        stored[torch.tensor(rows)]


def test_neighbors_are_read_at_once(stored, reads):
    stored[4:30]
    assert reads == [(26 * 12, 4 * 12)]
    reads.clear()
    stored[torch.tensor([7, 8, 9, 1, 2, 39])]
    assert reads == [(36, 84), (24, 12), (12, 468)]


def test_shape_type_and_device_are_told(stored):
    assert (stored.row_shape, len(stored), stored.n_features) == ((3,), 40, 3)
    assert (stored.dtype, stored.device) == (torch.float32, torch.device("cpu"))
    assert width(stored) == 3


def test_rows_are_read_to_another_device(stored):
    moved = environments(stored).to("meta")
    assert moved.x.device == moved.y.device == moved.x[:2].device == torch.device("meta")
    back = environments(stored).to("cpu").x
    assert torch.equal(back[:], TENSOR)


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), min_size=1, max_size=4))
@settings(max_examples=40, deadline=None)
def test_stretches_and_their_joins_are_those_of_a_list(bounds):
    with RowStore(40, 3) as store:
        store.put(np.arange(40), VALUES)
        rows = StoredRows.of(store)
        joined = rows.joined([rows.stretch(a, b) for a, b in bounds])
        expected = [row for a, b in bounds for row in TENSOR.tolist()[a:b]]
        assert joined[:].tolist() == expected
        assert len(joined) == len(expected)
        assert joined.stretch(2, 7)[:].tolist() == expected[2:7]


def test_rows_of_two_files_are_not_joined(stored):
    with (
        RowStore(1, 3) as other,
        pytest.raises(EnvironmentsError, match=r"one file to be joined, got several files\. Store"),
    ):
        stored.joined([stored, StoredRows.of(other)])


def test_nothing_is_in_the_folder_even_while_it_is_open(tmp_path):
    with RowStore(1000, 3, tmp_path) as store:
        store.put(np.arange(1000), np.ones((1000, 3)))
        assert list(tmp_path.iterdir()) == []
    assert list(tmp_path.iterdir()) == []


def test_a_closed_file_says_so(stored):
    stored.store.close()
    text = (
        "Expected stored rows that are open, their file was closed and is gone. Use them inside "
        "the with-block."
    )
    for use in (lambda: stored[:2], lambda: stored.store.put(np.array([0]), VALUES[:1])):
        with pytest.raises(EnvironmentsError) as caught:
            use()
        assert str(caught.value) == text


def test_rows_that_were_never_written_are_no_zeros():
    with RowStore(9, 3) as store:
        store.put(np.arange(4), VALUES[:4])
        text = "Expected 9 stored rows, row 4 was never written. Write all of them first."
        with pytest.raises(EnvironmentsError, match=text):
            store.take(np.array([3, 4, 5]))


def test_parts_of_reads_and_writes_are_gone_on_with(monkeypatch):
    read, write = os.pread, os.pwrite
    monkeypatch.setattr(os, "pread", lambda f, count, place: read(f, min(count, 5), place))
    monkeypatch.setattr(os, "pwrite", lambda f, data, place: write(f, data[:7], place))
    with RowStore(40, 3) as store:
        store.put(np.arange(40), VALUES)
        assert torch.equal(StoredRows.of(store)[:], TENSOR)


def test_too_little_room_is_said_before_anything_is_written(monkeypatch, tmp_path):
    usage = namedtuple("usage", "free")(3 * 10**9)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(OutputError) as caught:
        RowStore(10**7, 100, tmp_path)
    assert str(caught.value) == (
        f"Expected 4.0 GB of room in '{tmp_path}' for the encoded rows, got 3.0 GB. Free some, or "
        "choose another folder (TMPDIR)."
    )


def test_a_disk_that_fills_up_meanwhile_is_said(monkeypatch, tmp_path):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with RowStore(40, 3, tmp_path) as store, pytest.raises(OutputError) as caught:
        store.put(np.arange(40), VALUES)
    assert str(caught.value) == (
        f"Cannot write encoded rows to '{tmp_path}': No space left on device. Choose another "
        "folder (TMPDIR)."
    )


def test_a_folder_that_is_not_there_is_said(tmp_path):
    with pytest.raises(OutputError, match=r"Cannot write encoded rows to '.*none': No such file"):
        RowStore(1, 1, tmp_path / "none")


def test_going_through_environments_reads_nothing(stored, reads):
    rows = environments(stored)
    parts = {name: x for name, x, _ in rows}
    chosen = rows.select(["c", "a"])
    assert reads == []
    assert torch.equal(parts["b"][:], TENSOR[10:25])
    assert isinstance(chosen.x, StoredRows)
    assert (chosen.names, chosen.sizes) == (("c", "a"), (15, 10))
    assert torch.equal(chosen.x[:], torch.cat([TENSOR[25:], TENSOR[:10]]))
    assert torch.equal(chosen.take([torch.tensor([1]), torch.tensor([9])]).x, TENSOR[[26, 9]])


def test_taken_rows_are_in_memory_and_the_same(stored):
    picks = [torch.tensor(p) for p in ([0, 4], [14, 3], [])]
    picks[2] = picks[2].to(torch.int64)
    got, expected = (environments(x).take(picks) for x in (stored, TENSOR))
    assert isinstance(got.x, torch.Tensor)
    assert torch.equal(got.x, expected.x)
    assert torch.equal(got.y, expected.y)


@pytest.mark.parametrize("batch_size", [None, 6])
def test_batches_are_in_memory_and_the_same(stored, batch_size):
    chosen = Settings(batch_size=batch_size)
    got, expected = (draw_batch(environments(x), chosen, 2, 5, 1) for x in (stored, TENSOR))
    assert isinstance(got.rows.x, torch.Tensor)
    assert torch.equal(got.rows.x, expected.rows.x)
    assert torch.equal(got.fold, expected.fold)


def test_splitting_is_refused_with_the_remedy(stored):
    with pytest.raises(EnvironmentsError) as caught:
        environments(stored).split(0.2, seed=0)
    assert str(caught.value) == (
        "Expected rows in memory to split, got rows on disk. Hold out rows before they are "
        "stored, as StreamedRows.validation does."
    )


def test_evaluation_goes_block_by_block(stored, reads, monkeypatch):
    model = MLP(3, (4,), generator=torch.Generator().manual_seed(0))
    whole = forward(model, TENSOR)
    monkeypatch.setattr("invlearn.evaluation.BATCH_ROWS", 7)
    torch.testing.assert_close(forward(model, stored), whole)
    assert max(count for count, _ in reads) == 7 * 12
    found = [
        evaluate(model, [EvaluationSet.from_environments(rows, "test")], get_loss("logistic"))
        for rows in (environments(stored), environments(TENSOR))
    ]
    assert found[0] == found[1]


def test_parts_of_a_wrong_length_are_refused(stored):
    with pytest.raises(EnvironmentsError, match="Expected equally many rows in environment 'a'"):
        Environments.from_parts({"a": (stored, torch.zeros(3))})

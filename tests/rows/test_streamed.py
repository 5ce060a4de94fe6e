"""What is streamed is what is read: rows, encoder, notes, errors and the network fitted to them."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from scipy.stats import chisquare

from invlearn.environments import Environments
from invlearn.errors import DataFileError, EnvironmentsError, InvlearnError
from invlearn.learning import EarlyStopping, fit, standard_plan
from invlearn.learning.plan import Layers
from invlearn.losses import get_loss
from invlearn.means import seeded_generator
from invlearn.rows import streamed
from invlearn.rows.inputs import TableInputs
from invlearn.rows.source import from_frame
from invlearn.rows.streamed import stream_parquet, streams
from invlearn.rows.usable import set_aside
from invlearn.stored_rows import StoredRows
from invlearn.tables import Encoder, ParquetTable, read_table
from invlearn.training import Settings
from invlearn.training import settings as training_settings
from invlearn.training.settings import draw_batch

COLUMNS = {"target": "ill", "environment": "ward"}


def table(rows=400, seed=0, **columns):
    """Rows in no order: numbers, dates, a category, missing values, three wards of two sizes."""
    rng = np.random.default_rng(seed)
    ill = rng.integers(0, 2, rows)
    frame = pd.DataFrame(
        {
            "ward": rng.choice(["b", "a", "c"], rows, p=[0.6, 0.3, 0.1]),
            "dose": rng.normal(size=rows) + ill,
            "number": np.arange(rows),
            "color": rng.choice(["red", "green", None], rows),
            "age": np.where(rng.random(rows) < 0.2, np.nan, rng.integers(18, 90, rows)),
            "day": pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.integers(0, 300, rows), "D"),
            "ill": np.array(["no", "yes"])[ill],
        }
    )
    return frame.assign(**columns)


@pytest.fixture
def path(tmp_path):
    def write(frame):
        frame.to_parquet(tmp_path / "rows.parquet", row_group_size=150)
        return tmp_path / "rows.parquet"

    return write


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    monkeypatch.setattr(streamed, "_BATCH_ROWS", 37)


def in_memory(path, encoder, seed=0, **options):
    """Training and validation rows of the same file the usual way, and their source."""
    options = COLUMNS | options
    source = set_aside(from_frame(read_table(path), path.name, **options))
    y = source.y
    rows = Environments.from_arrays(encoder.transform(source.frame), y, source.environments)
    rows = Environments(rows.x, torch.as_tensor(y[_order(source)]), rows.names, rows.offsets)
    return *rows.split(0.2, seed=seed), source


def _order(source):
    return np.argsort(source.environments, kind="stable")


@pytest.mark.parametrize("seed", [0, 3])
def test_rows_are_those_of_the_table_in_memory(path, seed):
    file = path(table())
    with stream_parquet(file, **COLUMNS, seed=seed) as rows:
        assert isinstance(rows.train.x, StoredRows)
        train, validation, source = in_memory(file, rows.inputs.encoder, seed)
        assert rows.sizes == source.sizes
        assert rows.target == source.target
        for got, expected in ((rows.train, train), (rows.validation, validation)):
            assert (got.names, got.offsets) == (expected.names, expected.offsets)
            assert torch.equal(got.x[:], expected.x)
            assert torch.equal(got.y, expected.y)


def test_a_regressions_targets_are_standardized_by_training_rows(path):
    file = path(table(ill=np.random.default_rng(5).normal(50, 7, 400)))
    with stream_parquet(file, **COLUMNS) as rows:
        train, validation, _ = in_memory(file, rows.inputs.encoder)
        mean, scale = train.y.mean().item(), train.y.std(correction=0).item()
        assert rows.target.task == "regression"
        assert (rows.target_location, rows.target_scale) == pytest.approx((mean, scale))
        for got, expected in ((rows.train, train), (rows.validation, validation)):
            assert got.y.dtype == torch.float32
            torch.testing.assert_close(got.y, ((expected.y - mean) / scale).float())


def test_the_encoder_knows_training_rows_only(path):
    frame = table()
    file = path(frame)
    with stream_parquet(file, **COLUMNS, drop=["day"]) as rows:
        everything = np.arange(400)[:, None].astype(np.float64)
        labels = (frame["ill"] == "yes").to_numpy(dtype=np.int64)
        train, _ = Environments.from_arrays(everything, labels, frame["ward"]).split(0.2, seed=0)
        learned = frame.iloc[np.sort(train.x[:, 0].numpy().astype(int))].reset_index(drop=True)
        assert rows.inputs.encoder == Encoder.fit(learned.drop(columns=["ill", "ward", "day"]))
        assert rows.notes == ()


def test_an_encoder_of_a_sample_says_so(path, monkeypatch):
    monkeypatch.setattr(streamed, "_SAMPLE_ROWS", 100)
    with stream_parquet(path(table()), **COLUMNS) as rows:
        (note,) = rows.notes
        assert note.startswith("Columns are read as ")
        assert note.endswith(" rows spread over the file suggest.")
        assert 60 < int(note.split()[4]) <= 100


def test_at_most_so_many_rows_are_held_out(path, monkeypatch):
    monkeypatch.setattr(streamed, "HELD_OUT_ROWS", 11)
    with stream_parquet(path(table()), **COLUMNS) as rows:
        share = {name: round(0.2 * size) for name, size in rows.sizes.items()}
        assert rows.validation.sizes == tuple(min(11, count) for count in share.values())
        assert min(share.values()) < 11


def test_the_only_row_of_a_class_is_trained_on(path):
    ward = np.array(["a"] * 200 + ["b"] * 200)
    ill = np.array(["no", "yes"] * 100 + ["no"] * 200)
    ill[300] = "yes"
    file = path(table(ill=ill, ward=ward))
    held_out = 0
    for seed in range(12):
        with stream_parquet(file, **COLUMNS, seed=seed) as rows:
            assert [y.unique().tolist() for _, _, y in rows.train] == [[0, 1], [0, 1]]
            held_out += rows.validation.sizes[1] == 39
    assert held_out


@pytest.mark.parametrize(
    "ward",
    [
        np.where(np.arange(400) % 3 == 0, np.nan, np.arange(400) % 5),
        np.where(np.arange(400) % 3 == 0, 0.5, np.arange(400) % 5),
        np.arange(400) % 4 + 7,
        np.arange(400) % 2 == 0,
        np.array([" a", "a ", "b", "", "  "], dtype=object)[np.arange(400) % 5],
        pd.Timestamp("2024-01-01") + pd.to_timedelta(np.arange(400) % 3, "D"),
        pd.Categorical(np.array(["x", "y", "z"])[np.arange(400) % 3], categories=list("zyxw")),
    ],
    ids=["gaps", "fractions", "whole", "bool", "blanks", "dates", "categories"],
)
@pytest.mark.parametrize("ill", ["words", "numbers with gaps", "bool"])
def test_names_classes_and_notes_are_those_of_the_table_in_memory(path, ward, ill):
    code = np.random.default_rng(1).integers(0, 2, 400)
    values = {
        "words": np.array(["no", "yes"])[code],
        "numbers with gaps": np.where(np.arange(400) % 7 == 0, np.nan, code),
        "bool": code == 1,
    }
    file = path(table(ward=ward, ill=values[ill]))
    source = set_aside(from_frame(read_table(file), file.name, **COLUMNS))
    with stream_parquet(file, **COLUMNS) as rows:
        assert rows.train.names == rows.validation.names == source.names
        assert (rows.sizes, rows.target, rows.notes) == (source.sizes, source.target, source.notes)


def test_environments_that_are_too_small_or_of_one_class_are_set_aside_alike(path):
    frame = table()
    frame.loc[:4, "ward"] = "tiny"
    frame.loc[5, "ward"] = "single"
    frame.loc[6:40, ["ward", "ill"]] = ["same", "no"]
    file = path(frame)
    with stream_parquet(file, **COLUMNS) as rows:
        train, _, source = in_memory(file, rows.inputs.encoder)
        assert len(source.notes) == 3
        assert (rows.notes, rows.sizes) == (source.notes, source.sizes)
        assert torch.equal(rows.train.x[:], train.x)


EMPTY = np.full(400, None, dtype=object)
WRONG = {
    "one column twice": ({}, {"target": "ward"}),
    "unknown target": ({}, {"target": "il"}),
    "unknown environment": ({}, {"environment": "wards"}),
    "unknown dropped": ({}, {"drop": ["colour"]}),
    "unknown task": ({}, {"task": "regresion"}),
    "no environments": ({"ward": EMPTY}, {}),
    "no targets": ({"ill": EMPTY}, {}),
    "one target": ({"ill": "no"}, {}),
    "words for numbers": ({}, {"task": "regression"}),
    "many classes": ({"ill": [f"name {i}" for i in range(400)]}, {}),
    "nothing to learn": ({}, {"drop": ["dose", "number", "color", "age", "day"]}),
    "small environments": ({"ward": np.arange(400) % 100}, {}),
    "nothing of use": ({"dose": 1.0}, {"drop": ["number", "color", "age", "day"]}),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_errors_are_those_of_the_table_in_memory(path, wrong):
    columns, options = WRONG[wrong]
    file = path(table(**columns))
    with pytest.raises(InvlearnError) as expected:
        set_aside(from_frame(read_table(file), file.name, **COLUMNS | options)).learn_inputs()
    with pytest.raises(type(expected.value)) as caught:
        stream_parquet(file, **COLUMNS | options)
    assert str(caught.value) == str(expected.value)


def networks(rows, memory, options, loss="logistic", **given):
    strength = None if options["objective"] == "erm" else 1.0
    plan = standard_plan(network=Layers((8,)), strength=strength, steps=40, lr=0.03, **options)
    both = (fit(plan, r, get_loss(loss), 1, seed=4, **given) for r in (rows, memory))
    return [torch.cat([p.flatten() for p in fitted.network.parameters()]) for fitted in both]


@pytest.mark.parametrize("batch_size", [None, 16, "auto"])
@pytest.mark.parametrize("objective", ["vrex", "irmv1", "erm"])
def test_the_network_is_that_of_the_rows_in_memory(path, batch_size, objective):
    file = path(table())
    with stream_parquet(file, **COLUMNS) as rows:
        train, _, _ = in_memory(file, rows.inputs.encoder)
        options = {"objective": objective, "batch_size": batch_size}
        mine, theirs = networks(rows.train, train, options)
    torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)


def test_early_stopping_reads_the_validation_rows_that_are_given(path):
    file = path(table())
    with stream_parquet(file, **COLUMNS) as rows:
        train, validation, _ = in_memory(file, rows.inputs.encoder)
        options = {"objective": "vrex", "batch_size": 16, "early_stopping": EarlyStopping()}
        mine, theirs = networks(rows.train, train, options, validation=validation)
        with pytest.raises(EnvironmentsError, match="Expected rows in memory to split"):
            networks(rows.train, train, options)
    torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_no_file_is_left_whatever_happens(path, tmp_path, monkeypatch, error):
    stores = []

    class Watched(streamed.RowStore):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            stores.append(self)

    def matrix(self, frame, pixels):
        raise error

    monkeypatch.setattr(streamed, "RowStore", Watched)
    monkeypatch.setattr(TableInputs, "matrix", matrix)
    folder = tmp_path / "stored"
    folder.mkdir()
    with pytest.raises(error):
        stream_parquet(path(table()), **COLUMNS, folder=folder)
    assert len(stores) == 1
    assert stores[0].folder == folder
    assert stores[0]._file.closed
    assert list(folder.iterdir()) == []


def test_the_file_is_gone_after_the_block(path):
    with stream_parquet(path(table()), **COLUMNS) as rows:
        pass
    with pytest.raises(EnvironmentsError, match="their file was closed"):
        rows.train.x[:2]


def test_neither_file_nor_matrix_is_ever_whole_in_memory(tmp_path, monkeypatch):
    held_by_arrow = []

    def batches(table, columns=None, rows=65_536, real=ParquetTable.batches):
        for batch in real(table, columns, rows):
            if rows == 1000:
                held_by_arrow.append(pa.total_allocated_bytes())
            yield batch

    monkeypatch.setattr(ParquetTable, "batches", batches)
    monkeypatch.setattr(streamed, "_BATCH_ROWS", 1000)
    monkeypatch.setattr(streamed, "_SAMPLE_ROWS", 1000)
    monkeypatch.setattr(streamed, "HELD_OUT_ROWS", 100)
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(60_000, 60)).astype(np.float32)).add_prefix("x")
    frame = frame.assign(ill=rng.integers(0, 2, 60_000), ward=rng.choice(list("ab"), 60_000))
    file = tmp_path / "rows.parquet"
    frame.to_parquet(file, row_group_size=5_000)
    del frame
    before = pa.total_allocated_bytes()
    tracemalloc.start()
    try:
        with stream_parquet(file, **COLUMNS) as rows:
            stored = 4 * len(rows.train.x) * rows.train.x.n_features
            draw_batch(rows.train, Settings(batch_size=500), 1, 0, 0)
            _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert stored > 14e6
    assert peak < stored / 2
    assert len(held_by_arrow) == 60
    assert max(held_by_arrow) - before < stored / 2


def test_large_parquet_files_are_streamed(path, tmp_path, monkeypatch):
    file = path(table())
    (tmp_path / "rows.csv").write_text("a,b\n1,2\n")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 and no more")
    assert not streams(file)
    monkeypatch.setattr(streamed, "STREAMED_BEYOND", 10_000)
    assert streams(file)
    assert streams(str(file))
    assert not streams(tmp_path / "rows.csv")
    assert not streams(tmp_path / "none.parquet")
    assert not streams(tmp_path)
    with pytest.raises(DataFileError, match="broken"):
        streams(tmp_path / "broken.parquet")


def numbered(*sizes):
    n = sum(sizes)
    offsets = tuple(np.cumsum([0, *sizes]).tolist())
    names = tuple(f"e{e}" for e in range(len(sizes)))
    return Environments(torch.arange(n)[:, None].double(), torch.zeros(n), names, offsets)


def drawn(rows, batch_size, seed, step):
    return draw_batch(rows, Settings(batch_size=batch_size), 1, seed, step).rows.x[:, 0].tolist()


def test_up_to_a_million_rows_are_drawn_as_ever():
    n = training_settings.MANY_ROWS
    assert n == 1_000_000
    generator = seeded_generator(7, 0, 3)
    expected = [torch.randperm(n, generator=generator)[:20].sort().values for _ in range(2)]
    got = drawn(numbered(n, n), 20, 7, 3)
    assert got == [*expected[0].tolist(), *(expected[1] + n).tolist()]


def test_of_more_rows_distinct_ones_are_drawn_in_order(monkeypatch):
    monkeypatch.setattr(training_settings, "MANY_ROWS", 50)
    rows = numbered(400, 20, 400)
    got = drawn(rows, 18, 1, 2)
    assert got == sorted(set(got))
    assert [sum(a <= row < b for row in got) for a, b in ((0, 400), (400, 420), (420, 820))] == [
        18,
        18,
        18,
    ]
    assert got == drawn(rows, 18, 1, 2)
    assert got != drawn(rows, 18, 1, 3)
    assert got != drawn(rows, 18, 2, 2)
    assert [row - 420 for row in got[36:]] != got[:18]
    assert drawn(rows, 400, 1, 2) == list(range(820))


def test_every_row_is_drawn_as_often(monkeypatch):
    monkeypatch.setattr(training_settings, "MANY_ROWS", 50)
    rows = numbered(200)
    steps = 2000
    counts = np.zeros(200)
    pairs = 0
    for step in range(steps):
        got = np.array(drawn(rows, 10, 0, step), dtype=int)
        counts[got] += 1
        pairs += int((np.diff(got) == 1).sum())
    assert counts.sum() == 10 * steps
    # Draws without replacement vary less than independent ones: by the factor 1 - 10 / 200.
    assert chisquare(counts).statistic / (1 - 10 / 200) < 265  # 0.1 % of cases are above.
    assert pairs == pytest.approx(steps * 199 * (10 / 200) * (9 / 199), rel=0.1)


def test_drawing_of_very_many_rows_shuffles_none_of_them():
    positions = training_settings.drawn_positions(10**12, 1000, torch.Generator().manual_seed(0))
    assert len(positions.unique()) == 1000
    assert positions.tolist() == sorted(positions.tolist())
    assert 0.4e12 < positions.double().mean() < 0.6e12

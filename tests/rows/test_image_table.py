"""Images as rows of features: a file's or a callable's, from comparison to diagnosis."""

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from invlearn import DataFileError, EnvironmentsError, FitRequest, OptionError, RowsModel
from invlearn.cli import app
from invlearn.rows.files import diagnose_file, fit_file, predict_file
from invlearn.rows.image_table import image_table

PLACES, LABELS = ("lima", "oslo", "rome"), ("dark", "light")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images") / "photos"
    rng = np.random.default_rng(0)
    for place in PLACES:
        for label in LABELS:
            (folder / place / label).mkdir(parents=True)
            for k in range(12):
                pixels = rng.integers(0, 150, (10, 10, 3)) + 100 * (label == "light")
                image = Image.fromarray(pixels.astype(np.uint8))
                image.save(folder / place / label / f"{k}.png")
    return folder


class Extractor:
    """A small random convolution, in place of a pretrained network."""

    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        self.weight = torch.randn(5, 3, 3, 3, generator=generator)
        self.sizes = []

    def __call__(self, images):
        assert images.dtype == torch.uint8
        assert images.shape[1:] == (3, 16, 16)
        self.sizes.append(len(images))
        return torch.conv2d(images / 255, self.weight).relu().mean((2, 3))


@pytest.fixture(scope="module")
def table(root):
    return image_table(root, Extractor(), size=16)


@pytest.fixture
def file(table, tmp_path):
    stored = table.drop(columns=["class", "environment"]).reset_index()
    stored.sample(frac=1, random_state=0).to_parquet(tmp_path / "features.parquet")
    return tmp_path / "features.parquet"


def test_rows_carry_what_the_folders_say(table, root, monkeypatch):
    assert list(table.columns) == [*(f"feature {j}" for j in range(1, 6)), "class", "environment"]
    assert len(table) == 72
    assert table.index[0] == "lima/dark/0.png"
    assert [f"{e}/{c}" for e, c in zip(table["environment"], table["class"], strict=True)] == [
        name.rpartition("/")[0] for name in table.index
    ]
    monkeypatch.setattr("invlearn.images.BATCH_IMAGES", 50)
    extractor = Extractor()
    again = image_table(root, extractor, labeled=False, size=16)
    assert extractor.sizes == [50, 22]
    pd.testing.assert_frame_equal(again, table.iloc[:, :5], atol=1e-6)


def test_a_file_in_any_order_gives_the_same_table(table, file, root):
    pd.testing.assert_frame_equal(image_table(root, file), table)


def test_the_command_line_goes_all_the_way(file, root, tmp_path):
    def run(*words):
        done = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.output

    out, model = tmp_path / "report", tmp_path / "model"
    run("compare", root, "--features", file, "--objectives", "vrex", "--steps", 3,
        "--jobs", 1, "--out", out)  # fmt: skip
    assert f"--features {file}" in (out / "summary.json").read_text()
    methods = set(pd.read_csv(out / "results.csv")["method"])
    assert {"linear", "boosting", "vrex"} <= methods
    run("fit", root, "--features", file, "--penalty-weight", 1, "--steps", 60, "--output", model)
    output = tmp_path / "predictions.csv"
    said = run("predict", model, root, "--features", file, "--output", output)
    assert "Wrote 72 predictions" in said
    found = pd.read_csv(output)
    assert list(found.columns)[:2] == ["file", "prediction"]
    assert (found["file"].str.split("/").str[1] == found["prediction"]).mean() > 0.9
    assert "feature 1" in run("diagnose", model, root, "--features", file)
    with pytest.raises(OptionError) as caught:
        predict_file(RowsModel.load(model), root, output)
    assert str(caught.value) == (
        f"Expected a table, or features of the images in '{root}': this model was fitted to "
        "columns. Give the features it was fitted to with --features (features=)."
    )


def test_a_callable_goes_all_the_way(root, tmp_path):
    def features(images):
        return images.numpy().mean((2, 3))

    model, _ = fit_file(root, FitRequest(steps=60, penalty_weight=1.0), features=features)
    (tmp_path / "new").mkdir()
    (root / "lima/light/0.png").rename(tmp_path / "new/0.png")
    try:
        count, _ = predict_file(model, tmp_path / "new", tmp_path / "p.csv", features=features)
    finally:
        (tmp_path / "new/0.png").rename(root / "lima/light/0.png")
    assert count == 1
    assert pd.read_csv(tmp_path / "p.csv")["prediction"].tolist() == ["light"]
    findings, _ = diagnose_file(model, root, None, features=features)
    assert {finding.name for finding in findings} >= {"feature-reliance", "feature-effects"}


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda f: f.rename(columns={"file": "path"}), OptionError,
         "Expected a column 'file' in '{file}', got path, feature 1, feature 2, feature 3, "
         "feature 4. Write there each image's path relative to '{root}', such as "
         "'lima/dark/0.png'."),
        (lambda f: f.iloc[2:], DataFileError,
         "Expected a row for each image below '{root}' in '{file}', got nothing for "
         "'lima/dark/0.png' (2 in all). Add them, or move the images elsewhere."),
        (lambda f: pd.concat([f, f.iloc[[3]]]), DataFileError,
         "Expected one row for each image below '{root}' in '{file}', got one too many for "
         "'lima/dark/11.png' (1 in all). Remove all but one."),
        (lambda f: pd.concat([f, f.iloc[[3]].assign(file="lima/dark/x.png")]), DataFileError,
         "Expected rows of images that are there below '{root}' in '{file}', got one too many for "
         "'lima/dark/x.png' (1 in all). Remove them."),
        (lambda f: f.assign(**{"feature 2": [float("nan"), *[1.0] * 71]}), EnvironmentsError,
         "Expected finite numbers as features, got nan in 'feature 2' of 'lima/dark/0.png' "
         "(1 image(s) in all). Compute them anew, or leave the images out."),
        (lambda f: f.assign(note="x"), OptionError,
         "Expected numbers beside 'file' in '{file}', column 'note' holds {kind}. Drop it."),
        (lambda f: f[["file"]], OptionError,
         "Expected columns of numbers beside 'file' in '{file}', got none."),
        (lambda f: f.rename(columns={"feature 1": "class"}), OptionError,
         "Expected features under other names than 'class', which the folders say. Rename the "
         "column."),
    ],
)  # fmt: skip
def test_files_that_do_not_fit_are_refused(change, error, message, table, root, tmp_path):
    file = tmp_path / "features.parquet"
    changed = change(table.drop(columns=["class", "environment"]).reset_index())
    changed.to_parquet(file)
    kind = changed["note"].dtype if "note" in changed else ""
    with pytest.raises(error) as caught:
        image_table(root, file)
    assert str(caught.value) == message.format(file=file, root=root, kind=kind)


@pytest.mark.parametrize(
    ("features", "got"),
    [
        (lambda images: images.float().mean(), "float32 of shape ()"),
        (lambda images: images.float().mean((2, 3))[:-1], "float32 of shape (71, 3)"),
        (lambda images: images, "uint8 of shape (72, 3, 224, 224)"),
        (lambda images: np.array([["a"]] * len(images)), "<U1 of shape (72, 1)"),
    ],
)
def test_callables_that_give_something_else_are_refused(features, got, root, monkeypatch):
    monkeypatch.setattr("invlearn.images.BATCH_BYTES", 2**24)
    with pytest.raises(OptionError) as caught:
        image_table(root, features)
    assert str(caught.value) == (
        f"Expected numbers [72, d] as features of 72 images, got {got}. Return a row of d "
        "numbers for every image."
    )


def test_features_of_a_table_and_for_a_model_of_images_are_refused(root, file, tmp_path):
    table = tmp_path / "rows.csv"
    table.write_text("y,e,x\n0,a,1\n1,a,2\n")
    with pytest.raises(OptionError) as caught:
        fit_file(table, FitRequest(), target="y", environment="e", features=file)
    assert str(caught.value) == (
        "Expected a folder of images with features, got a table. Leave the features out, or join "
        "them to the table."
    )
    model, _ = fit_file(root, FitRequest(steps=2, penalty_weight=1.0))
    for call in (predict_file, diagnose_file):
        with pytest.raises(OptionError) as caught:
            call(model, root, tmp_path / "p.csv", features=file)
        assert str(caught.value) == (
            "Expected images without features: this model was fitted to the images themselves. "
            "Leave the features out."
        )

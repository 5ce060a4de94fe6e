"""Models of images: predictions in any layout, diagnoses of folders with a class or more."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from invlearn import DataFileError, EnvironmentsError, OutputError, UnknownNameError
from invlearn.rows.files import diagnose_file, predict_file
from invlearn.rows.fit import FitRequest, fit_rows
from invlearn.rows.source import read_rows

LEVELS = {"dark": 0, "light": 180}
SHARES = ["probability of dark", "probability of light"]


def draw(path, label, seed, channels=3):
    shape = (12, 12, 3) if channels == 3 else (12, 12)
    pixels = np.random.default_rng(seed).integers(0, 70, shape) + LEVELS[label]
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(path)


def photos(root, channels=3, labels=("dark", "light"), places=("lima", "oslo", "rome"), n=6):
    for i, place in enumerate(places):
        for j, label in enumerate(labels):
            for k in range(n):
                draw(root / place / label / f"{k}.png", label, 100 * i + 10 * j + k, channels)
    return root


def fitted(root):
    request = FitRequest(steps=60, penalty_weight=1.0)
    return fit_rows(read_rows(root, image_size=12), request, provenance={})[0]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return fitted(photos(tmp_path_factory.mktemp("photos")))


def predicted(model, rows, output):
    count, notes = predict_file(model, rows, output)
    found = pd.read_csv(output)
    assert count == len(found)
    assert notes == []
    return found


def test_flat_folders_single_images_and_one_class_are_predicted(model, tmp_path):
    labels = ["dark", "light", "light", "dark", "dark"]
    names = ["0.png", "1.png", "a/2.png", "b/c/d/3.png", "b/e/4.png"]
    for seed, (name, label) in enumerate(zip(names, labels, strict=True)):
        draw(tmp_path / "new" / name, label, seed)
    found = predicted(model, tmp_path / "new", tmp_path / "p.csv")
    assert list(found.columns) == ["file", "prediction", *SHARES]
    assert found["file"].tolist() == names
    assert found["prediction"].tolist() == labels
    for row, name in enumerate(names):
        alone = predicted(model, str(tmp_path / "new" / name), tmp_path / "q.csv")
        assert alone["file"].tolist() == [name.split("/")[-1]]
        np.testing.assert_allclose(alone.loc[0, SHARES].astype(float), found.loc[row, SHARES]
                                   .astype(float), atol=1e-6)  # fmt: skip
    one = photos(tmp_path / "one", labels=["light"])
    assert set(predicted(model, one, tmp_path / "o.csv")["prediction"]) == {"light"}


def test_labelled_folders_are_predicted_as_they_are_read_for_fitting(model, tmp_path):
    root = photos(tmp_path / "photos")
    found = predicted(model, root, tmp_path / "p.csv")
    source = read_rows(root, image_size=12)
    expected = model.predict(source.pixels)
    assert found["prediction"].tolist() == expected["prediction"].tolist()
    np.testing.assert_allclose(found[SHARES], expected[SHARES], atol=1e-6)
    assert [name.split("/")[0] for name in found["file"]] == source.environments.tolist()


@pytest.mark.parametrize("ending", ["csv", "parquet", "feather"])
def test_batches_change_nothing(ending, model, tmp_path, monkeypatch):
    root = photos(tmp_path / "photos", places=["a"], n=5)
    expected = predicted(model, root, tmp_path / "p.csv")
    seen = []
    predict = type(model).predict

    def counted(self, pixels):
        seen.append(len(pixels))
        return predict(self, pixels)

    monkeypatch.setattr("invlearn.images.BATCH_IMAGES", 4)
    monkeypatch.setattr(type(model), "predict", counted)
    output = tmp_path / f"q.{ending}"
    assert predict_file(model, root, output) == (10, [])
    assert seen == [4, 4, 2]
    read = {"csv": pd.read_csv, "parquet": pd.read_parquet, "feather": pd.read_feather}[ending]
    found = read(output)
    assert found.index.tolist() == list(range(10))
    pd.testing.assert_frame_equal(found, expected, check_dtype=False, atol=1e-6)


def test_a_file_is_written_whole_or_not_at_all(model, tmp_path, monkeypatch):
    root = photos(tmp_path / "photos", places=["a"])
    (root / "z.png").write_bytes(b"no image")
    monkeypatch.setattr("invlearn.images.BATCH_IMAGES", 2)
    output = tmp_path / "out" / "p.csv"
    output.parent.mkdir()
    for before in (None, "what was there"):
        if before is not None:
            output.write_text(before)
        with pytest.raises(DataFileError, match=r"z\.png' is none of PNG"):
            predict_file(model, root, output)
        assert [path.name for path in output.parent.iterdir()] == ([] if before is None else
                                                                   ["p.csv"])  # fmt: skip
    assert output.read_text() == "what was there"
    (root / "z.png").unlink()
    (tmp_path / "d.csv").mkdir()
    with pytest.raises(OutputError, match="is a folder"):
        predict_file(model, root, tmp_path / "d.csv")
    with pytest.raises(UnknownNameError, match=r"\.txt"):
        predict_file(model, root, tmp_path / "p.txt")
    with pytest.raises(DataFileError, match="Expected an image or a folder of images at"):
        predict_file(model, output, tmp_path / "p.csv")


@pytest.mark.parametrize(("fitted_to", "given"), [(1, 3), (3, 1)])
def test_gray_and_colored_images_serve_either_model(fitted_to, given, tmp_path):
    model = fitted(photos(tmp_path / "photos", fitted_to))
    assert model.inputs.image.channels == fitted_to
    found = predicted(model, photos(tmp_path / "new", given), tmp_path / "p.csv")
    right = [name.split("/")[1] for name in found["file"]] == found["prediction"]
    assert right.mean() > 0.9
    findings, _ = diagnose_file(model, tmp_path / "new", None, seed=0)
    assert findings


def test_one_class_is_diagnosed_as_the_class_it_is(model, tmp_path):
    for label in LEVELS:
        root = photos(tmp_path / label, labels=[label], places=["lima", "new"], n=20)
        findings, notes = diagnose_file(model, root, None, seed=0)
        assert notes == []
        (profile,) = (finding for finding in findings if finding.name == "risk-profile")
        accuracy = profile.table.set_index("environment")["accuracy"]
        assert accuracy.to_dict() == pytest.approx({"lima": 1, "new": 1})


def test_class_folders_are_known_by_number_however_it_is_written(tmp_path):
    root = photos(tmp_path / "photos", places=["lima", "new"])
    for place in ("lima", "new"):
        (root / place / "dark").rename(root / place / "1")
        (root / place / "light").rename(root / place / "2")
    model = fitted(root)
    expected = diagnose_file(model, root, None, seed=0)[0]
    (root / "new/2").rename(root / "new/02")
    for finding, before in zip(diagnose_file(model, root, None, seed=0)[0], expected, strict=True):
        assert finding.level == before.level
        if finding.name != "feature-reliance":  # It permutes rows, whose order is another.
            assert finding.sentence == before.sentence


def test_folders_of_unknown_classes_are_not_diagnosed(model, tmp_path):
    root = photos(tmp_path / "photos")
    draw(root / "lima/gray/1.png", "light", 0)
    with pytest.raises(EnvironmentsError) as caught:
        diagnose_file(model, root, None, seed=0)
    assert str(caught.value) == (
        "Expected images of dark, light, got gray too. Leave them out, or fit a model with them."
    )

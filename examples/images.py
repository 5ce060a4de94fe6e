"""Images end to end: a folder, a comparison, a model, its predictions and its diagnosis."""

from pathlib import Path
from tempfile import mkdtemp

import numpy as np
from PIL import Image

from invlearn import RowsModel, RowsRequest, compare, image_table
from invlearn.rows.files import diagnose_file, fit_file, predict_file
from invlearn.rows.request import FitRequest

folder = Path(mkdtemp())
rng = np.random.default_rng(0)

# Disks and squares; most disks are red and most squares blue, but in Rome it is the other way.
for place, share in {"lima": 0.95, "oslo": 0.8, "bern": 0.7, "rome": 0.1}.items():
    for shape in ("disk", "square"):
        (folder / "photos" / place / shape).mkdir(parents=True)
        for k in range(20):
            down, across = abs(np.mgrid[-16:16, -16:16] + rng.uniform(-4, 4, (2, 1, 1)))
            inside = np.hypot(down, across) < 8 if shape == "disk" else np.maximum(down, across) < 7
            pixels = rng.normal(100, 15, (32, 32, 3)) + 60 * inside[..., None]
            pixels[..., 0 if (shape == "disk") == (rng.random() < share) else 2] += 40
            image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
            image.save(folder / "photos" / place / shape / f"{k}.png")

request = RowsRequest(folder / "photos", methods=["vrex"], steps=20)
print(compare(request, folder / "report", jobs=1).answer.headline)

model, notes = fit_file(folder / "photos", FitRequest(steps=20))
model.save(folder / "model")
predict_file(RowsModel.load(folder / "model"), folder / "photos", folder / "predictions.csv")
findings, notes = diagnose_file(model, folder / "photos", folder / "diagnosis.json")
print(next(finding for finding in findings if finding.name == "feature-reliance").sentence)

# With features of a network of your own; here the mean color.
frame = image_table(folder / "photos", lambda images: images.float().mean((2, 3)), size=32)
request = RowsRequest(frame, "class", "environment", ["vrex"], steps=20)
print(compare(request, jobs=1).answer.headline)

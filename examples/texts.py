"""Texts from several shops: TF-IDF, a pipeline and a grid, with metadata routing off and on."""

import numpy as np
import sklearn
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.model_selection import GridSearchCV, LeaveOneGroupOut
from sklearn.pipeline import Pipeline

from invlearn import InvariantClassifier

rng = np.random.default_rng(0)
shop = np.repeat(["books", "games", "tools"], 100)
liked = rng.integers(0, 2, 300)
face = np.where(shop == "tools", 1 - liked, liked)  # There a smile means the opposite.
texts = [
    " ".join(rng.choice(["good", "fine"] if yes else ["bad", "poor"], 2))
    + f" {rng.choice(['it', 'was', 'very', 'the', 'so'])} {'smile' if smiles else 'frown'}"
    for yes, smiles in zip(liked, face, strict=True)
]

model = InvariantClassifier(network="linear", steps=60, random_state=0)
pipeline = Pipeline([("words", TfidfVectorizer()), ("model", model)])
grids = [
    {"model__objective": ["erm"]},
    {"model__objective": ["vrex"], "model__penalty_weight": [10.0, 100.0]},
]
search = GridSearchCV(pipeline, grids, cv=LeaveOneGroupOut())

# Without routing a pipeline's step is named.
search.fit(texts, liked, groups=shop, model__environments=shop)
print(search.best_params_, f"{search.best_score_:.2f}")

# With routing nothing is named, and nothing has to be requested.
with sklearn.config_context(enable_metadata_routing=True):
    search.fit(texts, liked, groups=shop, environments=shop)
print(search.best_estimator_["model"].choices_)

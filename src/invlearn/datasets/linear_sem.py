"""Linear structural equations: causes of the target, and effects of it that tempt a regression."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from invlearn.datasets.base import Dataset, Option
from invlearn.datasets.options import require_choice
from invlearn.environments import Environments, EvaluationSet
from invlearn.features import Features, as_rows
from invlearn.problem import Problem

Array = npt.NDArray[np.float64]

_CODES = tuple(f"{h}{v}{s}" for h in "FP" for v in "OE" for s in "US")
SETTINGS = ("appendix-d", *_CODES)


@dataclass(frozen=True)
class StructuralModel:
    """Y = X + H W_hy + noise, Z = Y + H W_hz + noise; features [X, Z] S; target the sum of Y.

    Attributes
    ----------
    scales : tuple of float
        e of the training environments.
    new_scale : float
        e of the environment nobody trains on.
    rows : int
        Rows of every environment.
    target_noise_follows : bool
        Whether e scales the noise of Y (and that of Z is 1), or the other way round.
    hidden : tuple of 3 arrays [d, d], or None
        Weights of the hidden H ~ N(0, e^2) in X, Y and Z; None for no H at all.
    mixing : array [2d, 2d] or None
        The orthogonal S; None for features as they are.
    dimensions : int
        d, of X and of Z.
    """

    scales: tuple[float, ...]
    new_scale: float
    rows: int
    target_noise_follows: bool
    hidden: tuple[Array, Array, Array] | None
    mixing: Array | None
    dimensions: int

    def sample(self, scale: float, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Rows of the environment with this e: features [n, 2d] and targets [n], float32."""
        shape = (self.rows, self.dimensions)
        noise_y, noise_z = (scale, 1.0) if self.target_noise_follows else (1.0, scale)
        x = scale * rng.standard_normal(shape)
        y = noise_y * rng.standard_normal(shape)
        z = noise_z * rng.standard_normal(shape)
        if self.hidden is not None:
            h = scale * rng.standard_normal(shape)
            into_x, into_y, into_z = self.hidden
            x += h @ into_x
            y += h @ into_y
            z += h @ into_z
        y += x
        z += y
        features = np.concatenate([x, z], axis=1)
        if self.mixing is not None:
            features = features @ self.mixing
        return (
            torch.from_numpy(features).to(torch.float32),
            torch.from_numpy(y.sum(axis=1)).to(torch.float32),
        )


def structural_model(setting: str, seed: int) -> StructuralModel:
    """Model of a setting; its random weights, if any, are drawn from the seed.

    In the codes of the IRM paper's section 5.1 the first letter says whether everything is
    observed (F) or a hidden H acts on X, Y and Z (P); the second whether the noise of Y is the
    same in every environment (O) or follows e (E); the third whether features are as they are
    (U) or scrambled (S). One seed gives one S and one set of hidden weights for all codes.
    """
    require_choice("setting", setting, SETTINGS)
    if setting == "appendix-d":
        return StructuralModel((0.1, 1.0), 3.0, 10_000, True, None, None, 2)
    d = 5
    rng = np.random.default_rng([seed, 0])
    q, r = np.linalg.qr(rng.standard_normal((2 * d, 2 * d)))
    # Signs by R's diagonal make Q one and the same on every machine, and uniform.
    mixing = q * np.sign(np.diag(r))
    # The published code divides by the number of features, 2d, and lets a fully observed X keep
    # the noise H of its own, which doubles its variance and confounds nothing.
    none = np.zeros((d, d))
    hidden = (np.eye(d), none, none)
    if setting[0] == "P":
        into_x, into_y, into_z = rng.standard_normal((3, d, d)) / (2 * d)
        hidden = (into_x, into_y, into_z)
    return StructuralModel(
        scales=(0.2, 2.0, 5.0),
        new_scale=10.0,
        rows=1000,
        target_noise_follows=setting[1] == "E",
        hidden=hidden,
        mixing=mixing if setting[2] == "S" else None,
        dimensions=d,
    )


def true_weights(setting: str, seed: int) -> Tensor:
    """Weights of the features in the equation of the target: 1 for X, 0 for Z, in seen coordinates.

    Parameters
    ----------
    setting : str
        'appendix-d' or a code such as 'FOU'.
    seed : int
        The seed of the benchmark; matters for scrambled settings only.

    Returns
    -------
    Tensor [2d], float32

    Raises
    ------
    OptionError
        A setting that does not exist.

    Examples
    --------
    >>> true_weights("appendix-d", seed=0).tolist()
    [1.0, 1.0, 0.0, 0.0]
    """
    model = structural_model(setting, seed)
    weights = np.repeat([1.0, 0.0], model.dimensions)
    if model.mixing is not None:
        weights = model.mixing.T @ weights
    return torch.from_numpy(weights).to(torch.float32)


def build(*, seed: int, setting: str = "appendix-d") -> Problem:
    """Build a linear structural model.

    Parameters
    ----------
    seed : int
        Of the weights and the rows.
    setting : str
        'appendix-d' (2 + 2 features, e of 0.1 and 1, 10,000 rows each) or a code of section 5.1
        such as 'PEU' (5 + 5 features, e of 0.2, 2 and 5, 1,000 rows each).

    Returns
    -------
    Problem
        x [n, 2d], y [n] float32. The test has fresh rows of the training environments and of one
        with a larger e, the target. The shortcut, Z, can be left out unless it is scrambled.

    Raises
    ------
    OptionError
        A setting that does not exist.

    Examples
    --------
    >>> benchmark = build(seed=0, setting="FEU")
    >>> benchmark.test.names, benchmark.target
    (('e=0.2', 'e=2', 'e=5', 'e=10'), 'e=10')

    References
    ----------
    Arjovsky, Bottou, Gulrajani, Lopez-Paz (2019), Invariant Risk Minimization, section 5.1,
    appendix D and the published code,
    https://github.com/facebookresearch/InvariantRiskMinimization.
    """
    model = structural_model(setting, seed)
    d = model.dimensions

    def environments(scales: tuple[float, ...], stream: int) -> Environments:
        rng = np.random.default_rng([seed, stream])
        return Environments.from_parts({f"e={e:g}": model.sample(e, rng) for e in scales})

    def causes(x: Features) -> Features:
        return as_rows(x).values[:, :d]

    return Problem(
        name="linear-sem",
        train=environments(model.scales, 1),
        validation=environments(model.scales, 2),
        test=EvaluationSet.from_environments(
            environments((*model.scales, model.new_scale), 3), "test"
        ),
        target=f"e={model.new_scale:g}",
        loss="squared",
        without_shortcut=causes if model.mixing is None else None,
        description={
            "test_set": "fresh rows, and an environment with a larger e",
            "setting": setting,
            "features": 2 * d,
            "rows_per_environment": model.rows,
            "training_e": ",".join(f"{e:g}" for e in model.scales),
        },
    )


LINEAR_SEM = Dataset(
    name="linear-sem",
    summary="Linear regression on causes of the target and on effects of it that vary.",
    source="Arjovsky et al. (2019), Invariant Risk Minimization, section 5.1 and appendix D",
    build=build,
    options={
        "setting": Option(
            "appendix-d",
            "The example of appendix D, or a code of section 5.1: Fully or Partially observed, "
            "hOmoskedastic or hEteroskedastic target, Unscrambled or Scrambled.",
            SETTINGS,
        )
    },
)

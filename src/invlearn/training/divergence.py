"""The model to go back to where a run leaves the finite numbers."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from invlearn.training.recorder import Recorder
from invlearn.training.stopping import Stopper


class LastFinite:
    """The predictor as it was at the last evaluation at which all was finite."""

    def __init__(self, predictor: nn.Module, step: int) -> None:
        self.predictor = predictor
        self.kept, self.step = copied(predictor), step

    def restore(self, recorder: Recorder, stopper: Stopper | None) -> int:
        """Put it back and forget later measurements; the step of what is left.

        That is the one which a stopping rule chooses among the steps before, if there is one.
        """
        self.predictor.load_state_dict(self.kept)
        recorder.drop_after(self.step)
        if stopper is not None and recorder.steps:
            choice = stopper.choose(recorder)
            if stopper.restore(self.predictor):
                return choice.step
        return self.step


def finite(predictor: nn.Module, recorder: Recorder, step: int) -> bool:
    """Whether the parameters and the risks measured at a step are finite numbers."""
    last = [r for r in recorder.rows if r["step"] == step and r["metric"] == "risk"]
    return all(math.isfinite(row["value"]) for row in last) and all(
        bool(torch.isfinite(p).all()) for p in predictor.parameters()
    )


def copied(model: nn.Module) -> dict[str, Tensor]:
    """A model's state, in memory of its own."""
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}

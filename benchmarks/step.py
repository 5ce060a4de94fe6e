"""One exact full-batch IRMv1 step against the published loop and against bare products.

2 x 25,000 rows of 14 x 14 images in 2 colors, a 392-390-390-1 perceptron, Adam. The plain
side is what published codes do: dense images, each environment forwarded whole, the penalty by
double backward. The same again with ten classes in ten colors, softmax loss and ten outputs; the
plain side then multiplies images of 1,960 numbers, nine tenths of them zeros.

How much of the machine the step uses: the arithmetic it needs, of which each image's empty
channels are no part, as a fraction of the rate of bare products. That rate is the better of
torch's and this library's, at the step's own shapes in micro-batches that stay in cache; the rate
of torch's product of the whole batch is quoted beside it.

All run in this process, in turn, so that ratios hold when the machine's speed drifts; medians
are quoted, ratios are medians of each round's. The process keeps freed memory, as the command
line does, for all of them.

    python benchmarks/step.py [--rows 25000] [--repeats 10] [--threads N] [--out FILE]
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor

from common import (
    interleaved,
    make_environments,
    make_parser,
    median_ratio,
    source_of,
    update,
    write,
)
from invlearn.ground.machine import keep_freed_memory
from invlearn.kernels import linear
from invlearn.models import MLP
from invlearn.objectives import get_objective
from invlearn.training import PUBLISHED, Settings, Trainer
from invlearn.training.engine import DEFAULT_MICRO_BATCH
from plain import L2, LR, WEIGHT, dense_copy, dense_rows, plain_step

ROWS, PIXELS, HIDDEN = 25_000, 196, 390


class Problem:
    """One model and its rows, twice: for this library's step and for the published one."""

    def __init__(self, rows: int, classes: int) -> None:
        environments = make_environments(rows, n_channels=classes, n_classes=classes, pixels=PIXELS)
        outputs = 1 if classes == 2 else classes
        self.widths = (PIXELS, HIDDEN, HIDDEN, outputs)
        self.model = MLP(
            classes * PIXELS,
            (HIDDEN, HIDDEN),
            outputs,
            generator=torch.Generator().manual_seed(0),
        )
        self.dense_model = dense_copy(self.model)
        self.dense = dense_rows(environments, outputs)
        self.optimizer = torch.optim.Adam(self.dense_model.parameters(), lr=LR)
        objective = get_objective("irmv1", penalty_weight=WEIGHT)
        self.trainer = Trainer(
            self.model,
            environments,
            objective,
            "logistic" if outputs == 1 else "softmax",
            settings=Settings(
                steps=10**6, lr=LR, l2=L2, schedule=PUBLISHED["irm-paper"], evaluate_every=10**6
            ),
        )

    def exact(self) -> None:
        """Take the exact step, past the anneal step."""
        update(self.trainer, PUBLISHED["irm-paper"].start)

    def plain(self) -> None:
        """Take the published one."""
        plain_step(self.dense_model, self.optimizer, self.dense)

    def drift(self) -> float:
        """How far the two models' parameters lie apart, at most."""
        pairs = zip(self.model.parameters(), self.dense_model.parameters(), strict=True)
        return max(float((a - b).detach().abs().max()) for a, b in pairs)


def needed_operations(rows: int, widths: tuple[int, ...]) -> int:
    """Floating-point operations of a step's products, value and gradient.

    Each layer is multiplied forward, for its weights' gradient and, but for the first, for its
    inputs'. The first width is that of the one channel an image has.
    """
    layers = [2 * rows * a * b for a, b in pairwise(widths)]
    return 2 * layers[0] + 3 * sum(layers[1:])


def product_operations(rows: int) -> int:
    """Floating-point operations of `products`."""
    return needed_operations(rows, (PIXELS, HIDDEN, HIDDEN))


@torch.no_grad()
def products(multiply: Callable[[Tensor, Tensor], Tensor], rows: int) -> None:
    """As many products as a step's two large layers need, and nothing else.

    They are of the forward pass's shapes, with operands that stay in cache.
    """
    size = min(DEFAULT_MICRO_BATCH, rows)
    images, hidden = torch.ones(size, PIXELS), torch.ones(size, HIDDEN)
    first, middle = torch.ones(HIDDEN, PIXELS), torch.ones(HIDDEN, HIDDEN)
    for _ in range(rows // size):
        for _ in range(2):
            multiply(images, first)
        for _ in range(3):
            multiply(hidden, middle)


def torch_product(x: Tensor, weight: Tensor) -> Tensor:
    """Torch's own."""
    return x @ weight.t()


def main() -> None:
    """Time all in turn and print the record."""
    parser = make_parser(__doc__)
    parser.add_argument("--rows", type=int, default=ROWS, help="of each environment")
    args = parser.parse_args()
    source = source_of(__file__)
    keep_freed_memory()
    torch.set_num_threads(args.threads)

    two, ten = Problem(args.rows, 2), Problem(args.rows, 10)
    total = 2 * args.rows
    a, b = torch.randn(args.rows, HIDDEN), torch.randn(HIDDEN, HIDDEN)
    seconds = interleaved(
        {
            "plain": two.plain,
            "exact": two.exact,
            "ten plain": ten.plain,
            "ten exact": ten.exact,
            "torch": partial(products, torch_product, total),
            "library": partial(products, linear, total),
            "whole batch": lambda: a @ b,
        },
        args.repeats,
    )
    median = {name: statistics.median(values) for name, values in seconds.items()}
    ratios = [b / a for a, b in zip(seconds["exact"], seconds["plain"], strict=True)]
    done = product_operations(total - total % min(DEFAULT_MICRO_BATCH, total))
    needed = needed_operations(total, two.widths)
    best = min(("torch", "library"), key=lambda name: median[name])
    record = {
        "exact_step_seconds": median["exact"],
        "plain_step_seconds": median["plain"],
        "ratio_median": statistics.median(ratios),
        "ratio_min": min(ratios),
        "ratio_max": max(ratios),
        "largest_parameter_difference_after_the_steps": two.drift(),
        "gflops_needed": needed / 1e9,
        "product_gflops_per_second": done / median[best] / 1e9,
        "product_of": best,
        "torch_product_gflops_per_second": done / median["torch"] / 1e9,
        "library_product_gflops_per_second": done / median["library"] / 1e9,
        "matmul_gflops_per_second": 2 * len(a) * HIDDEN**2 / median["whole batch"] / 1e9,
        "fraction_of_product_rate": needed / done * median_ratio(seconds[best], seconds["exact"]),
        "ten_class_step_seconds": median["ten exact"],
        "ten_class_plain_step_seconds": median["ten plain"],
        "ten_class_over_two_class": median_ratio(seconds["ten exact"], seconds["exact"]),
        "ten_class_ratio_median": median_ratio(seconds["ten plain"], seconds["ten exact"]),
        "ten_class_largest_parameter_difference_after_the_steps": ten.drift(),
        "rows_per_environment": args.rows,
        "threads": args.threads,
        "repeats": args.repeats,
        **source,
    }
    print(json.dumps(record, indent=1))
    write(record, args.out)


if __name__ == "__main__":
    main()

"""What is taken where nothing is said; apart, so that '--help' can say it without loading torch."""

OBJECTIVE = "vrex"
HIDDEN = (16,)
STEPS = 200
MAX_ROWS = 100_000
SCORES = ("worst-group", "late-risk")

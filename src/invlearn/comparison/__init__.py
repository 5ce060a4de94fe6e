"""Methods on problems: one runner and one folder that keeps what is done; benchmarks, searches."""

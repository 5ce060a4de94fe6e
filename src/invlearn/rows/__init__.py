"""A user's own rows: read, compared, fitted, predicted, diagnosed."""

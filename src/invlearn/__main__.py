"""The command line, as ``python -m invlearn``."""

from invlearn.cli import app

if __name__ == "__main__":
    app(prog_name="invlearn")

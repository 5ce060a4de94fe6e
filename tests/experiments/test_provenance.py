"""Where a result comes from."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from invlearn.experiments.provenance import commit


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_the_commit_says_whether_the_sources_were_changed(tmp_path):
    def git(*arguments):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        command = ["git", "-C", str(tmp_path), *identity, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    assert commit(tmp_path) == ""
    git("init")
    assert commit(tmp_path) == ""  # No commit yet.
    source = tmp_path / "src" / "a.py"
    source.parent.mkdir()
    source.write_text("1")
    git("add", ".")
    git("commit", "-m", "first")
    assert git("rev-parse", "HEAD").startswith(commit(tmp_path))
    assert len(commit(tmp_path)) == 12
    (tmp_path / "result.json").write_text("{}")
    assert not commit(tmp_path).endswith("+")
    source.write_text("2")
    assert commit(tmp_path).endswith("+")

"""Work over processes, devices, and where a result comes from."""

from __future__ import annotations

import math
import operator
import shutil
import subprocess
from functools import partial

import pytest

from invlearn.errors import OptionError
from invlearn.ground.machine import check_device, commit, run_all


def test_every_item_is_done_once():
    done = []
    run_all(abs, [-1, -2, -3], processes=1, done=done.append)
    assert sorted(done) == [1, 2, 3]


class Large:
    """A function that counts how often it is sent."""

    sent = 0

    def __call__(self, item):
        return item

    def __reduce__(self):
        Large.sent += 1
        return partial, (operator.mul, -1)


def test_over_processes_every_item_is_done_once_and_the_function_is_pickled_once():
    Large.sent, done = 0, []
    run_all(Large(), list(range(6)), processes=2, done=done.append)
    assert sorted(done) == [-5, -4, -3, -2, -1, 0]  # Arrived as what stands for it there.
    assert Large.sent == 1


@pytest.mark.parametrize("processes", [1, 2])
def test_an_error_in_a_worker_reaches_the_caller(processes, request):
    if processes == 2:
        request.getfixturevalue("forked_workers")
    with pytest.raises(ValueError, match="math domain"):
        run_all(math.sqrt, [1.0, -1.0], processes=processes, done=lambda _: None)


def test_a_device_that_is_not_there():
    check_device("cpu")
    for name in ("cpu:1", "gpu", "cuda:99", "cuda:x"):
        with pytest.raises(OptionError, match=r"Expected a device of this machine \(cpu"):
            check_device(name)


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

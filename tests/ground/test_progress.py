"""How far long work has come: lines where there is no terminal, a bar where there is one."""

from __future__ import annotations

import io

from rich.console import Console

from invlearn.ground.progress import bar, lines, tracked


def written(times, total):
    """What is written when one thing after the other is done at these times."""
    clock, found = iter([0.0, *times]), []
    show = lines(found.append, lambda: next(clock))
    for done in range(len(times)):
        show(done, total, "ERM")
    return found


def test_a_line_at_the_start_and_at_every_tenth():
    assert written([0, 3, 6, 9], total=3) == [
        "ERM: 0 of 3, 0 s",
        "ERM: 1 of 3, 3 s",
        "ERM: 2 of 3, 6 s",
        "ERM: 3 of 3, 9 s",
    ]
    found = written([3.0 * i for i in range(1001)], total=1000)
    assert len([line for line in found if line.startswith("ERM: 100 of 1,000, ")]) == 1


def test_quick_work_writes_few_lines():
    assert written([0.01 * i for i in range(100)], total=100) == ["ERM: 0 of 100, 0 s"]


def test_slow_work_writes_a_line_every_ten_seconds():
    found = written([1.0 * i for i in range(31)], total=1_000_000)
    assert found == [f"ERM: {i} of 1,000,000, {i} s" for i in (0, 10, 20, 30)]


def test_nothing_to_do_is_no_error():
    assert written([0], total=0) == ["ERM: 0 of 0, 0 s"]


def test_without_a_terminal_a_bar_is_lines_of_plain_text():
    console = Console(file=io.StringIO(), width=20)
    with bar(console) as show:
        show(1, 2, "a [bold] method of a long name")
    assert console.file.getvalue() == "a [bold] method of a long name: 1 of 2, 0 s\n"


def test_on_a_terminal_a_bar_leaves_nothing_behind():
    console = Console(file=io.StringIO(), width=60, force_terminal=True)
    with bar(console) as show:
        show(1, 2, "IRMv1")
    assert "IRMv1" in console.file.getvalue()
    assert "1/2" in console.file.getvalue()
    assert console.file.getvalue().endswith("\x1b[2K")  # The line is erased.


def test_tracked_steps_are_the_steps(capsys):
    assert list(tracked(range(3, 6), "V-REx")) == [3, 4, 5]
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "V-REx: 0 of 3, 0 s\n")

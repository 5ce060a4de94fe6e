"""Random changes of a small valid table's bytes, as accidents make them."""

from __future__ import annotations

import numpy as np
import pandas as pd

ROWS = 24


def valid_table():
    rng = np.random.default_rng(7)
    return pd.DataFrame(
        {
            "age": rng.integers(18, 90, ROWS),
            "blood pressure": rng.normal(120, 15, ROWS).round(2),
            "color": rng.choice(["red", "green", "blue"], ROWS),
            "visit": pd.date_range("2021-03-01 08:00", periods=ROWS, freq="31h"),
            "note": [f"patient {i} has word{i % 5}, a fever and pain" for i in range(ROWS)],
            "site": rng.choice(["a", "b"], ROWS),
            "ill": rng.choice(["yes", "no"], ROWS),
        }
    )


def cut_line(data, rng):
    lines = data.splitlines(keepends=True)
    place = int(rng.integers(len(lines)))
    lines[place] = lines[place][: int(rng.integers(len(lines[place]) + 1))]
    return b"".join(lines)


def drop_line(data, rng):
    lines = data.splitlines(keepends=True)
    del lines[int(rng.integers(len(lines)))]
    return b"".join(lines)


def repeat_header_field(data, rng):
    header, _, rest = data.partition(b"\n")
    names = header.split(b",")
    names[int(rng.integers(len(names)))] = names[int(rng.integers(len(names)))]
    return b",".join(names) + b"\n" + rest


def swap_delimiters(data, rng):
    return data.replace(b",", bytes([rng.choice(list(b";\t|: \n"))]), int(rng.integers(1, 400)))


def flip(data, rng):
    changed = bytearray(data)
    for place in rng.integers(len(data), size=int(rng.integers(1, 4))):
        changed[place] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def delete(data, rng):
    place = int(rng.integers(len(data)))
    return data[:place] + data[place + int(rng.integers(1, 30)) :]


def truncate(data, rng):
    return data[: int(rng.integers(len(data)))]


def inserting(*pieces):
    def insert(data, rng):
        place = int(rng.integers(len(data) + 1))
        return data[:place] + pieces[int(rng.integers(len(pieces)))] + data[place:]

    return insert


def replace_field(data, rng):
    lines = [line.split(b",") for line in data.split(b"\n")]
    fields = lines[int(rng.integers(len(lines)))]
    odd = (b"1e308", b"-1e999", b"9" * 400, b"0x1F", b"NaN", b"inf", b"", b" ", b"9999-12-31")
    fields[int(rng.integers(len(fields)))] = odd[int(rng.integers(len(odd)))]
    return b"\n".join(b",".join(line) for line in lines)


def set_column(data, rng):
    lines = [line.split(b",") for line in data.split(b"\n")[:-1]]
    place = int(rng.integers(6))
    odd = (b"1e308", b"-1e300", b"1e-320", b"", b"inf", b"0000-01-01", b"True", b"x y z", b"9" * 30)
    for line in lines[1:]:
        if len(line) > place:
            line[place] = odd[int(rng.integers(len(odd)))]
    return b"\n".join(b",".join(line) for line in lines)


ANY_BYTES = (
    flip,
    flip,
    flip,
    delete,
    truncate,
    inserting(b"\0", b"\xff", b"\x80\x81", b"\r", b"\n", b"PAR1", b"\x7f" * 9),
)
TEXT_BYTES = (
    *ANY_BYTES,
    cut_line,
    drop_line,
    repeat_header_field,
    swap_delimiters,
    inserting(b'"', b'""', b'",', b'\n"', b"'", b"\\"),
    inserting(b"9" * 400, b"1e999", b"-", b"\xe2\x80\xa8", b"\xc3\x89", b",,,", b"\n\n \n", b";"),
    replace_field,
    set_column,
)


def changed(data, seed, changes=TEXT_BYTES, most=2):
    """One or two of the changes, as the seed draws them."""
    rng = np.random.default_rng(seed)
    out = data
    for _ in range(int(rng.integers(1, most + 1))):
        out = changes[int(rng.integers(len(changes)))](out or data, rng)
    return out

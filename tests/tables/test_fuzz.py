"""Whatever happens to a file, reading and encoding it ends in numbers or in one clear line."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from invlearn.errors import InvlearnError
from invlearn.tables import Encoder, ParquetTable, Target, read_table
from tables.mutations import ANY_BYTES, TEXT_BYTES, changed, valid_table


def numbers_or_one_line(path):
    """Whether the file ended in numbers; fails on anything but numbers or a one-line error."""
    try:
        frame = read_table(path)
        half = len(frame) // 2
        names = list(frame.columns)
        target = Target.recognize(frame[names[-1]])
        usable = frame[target.usable(frame[names[-1]])]
        codes = target.encode(usable[names[-1]])
        encoder = Encoder.fit(frame[names[:-1]].iloc[half:])
        features = encoder.transform(frame)
        encoder.notes(frame)
        again = Encoder.from_json(encoder.to_json()).transform(frame)
        if path.suffix == ".parquet":
            table = ParquetTable(path)
            pd.testing.assert_frame_equal(pd.concat(table.batches()), frame, check_dtype=False)
    except InvlearnError as error:
        message = str(error)
        assert len(message.splitlines()) == 1
        assert 20 < len(message) < 1000
        return False
    assert len(codes) == len(usable)
    assert np.isfinite(codes).all()
    assert features.shape == (len(frame), encoder.n_features)
    assert features.dtype == np.float32
    assert np.isfinite(features).all()
    np.testing.assert_array_equal(features, again)
    return True


@pytest.mark.parametrize(
    ("ending", "changes", "count"),
    [(".csv", TEXT_BYTES, 1000), (".parquet", ANY_BYTES, 200), (".feather", ANY_BYTES, 200)],
)
def test_any_change_of_a_file_ends_in_numbers_or_in_one_line(tmp_path, ending, changes, count):
    path = tmp_path / f"table{ending}"
    table = valid_table()
    if ending == ".csv":
        table.to_csv(path, index=False)
    elif ending == ".parquet":
        table.to_parquet(path, compression="none")
    else:
        table.to_feather(path, compression="uncompressed")
    data = path.read_bytes()
    assert numbers_or_one_line(path)

    ended_in_numbers = 0
    for seed in range(count):
        path.write_bytes(changed(data, seed, changes, most=2 if ending == ".csv" else 1))
        ended_in_numbers += numbers_or_one_line(path)
    # Neither end is the only one: the changes are neither all harmless nor all fatal.
    assert 0.05 * count < ended_in_numbers < 0.95 * count

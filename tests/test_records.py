"""Records and intervals."""

from pathlib import Path

import pytest

from spd_mini import records


def test_cells_are_read_where_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert records.cells("found.json") == []
    (tmp_path / "found.json").write_text('{"cells": [{"α": 1}]}', encoding="utf-8")
    assert records.cells("found.json") == [{"α": 1}]


@pytest.mark.parametrize("text", ["{", "[]", '{"runs": []}'])
def test_no_record(text: str, tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text(text)
    with pytest.raises(ValueError, match="bad.json is not a record: a JSON object with 'cells'"):
        records.cells(str(tmp_path / "bad.json"))


def test_interval_by_hand() -> None:
    """Mean 2, standard deviation 1, t(0.975; 2) = 4.3027: half is 4.3027 / √3 = 2.4842."""
    mean, half = records.mean_interval([1.0, 2.0, 3.0])
    assert mean == 2.0
    assert half == pytest.approx(2.4842, abs=1e-4)
    with pytest.raises(ValueError, match="an interval needs two or more values, got 1"):
        records.mean_interval([1.0])

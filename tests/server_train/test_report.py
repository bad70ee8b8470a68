import pytest

from server_train.report import (
    learning_curve,
    readable_bytes,
    readable_number,
    readable_percent,
    readable_tiny,
    short,
    weights,
)


@pytest.mark.parametrize(("count", "text"), [(0, "0 B"), (999, "999 B"), (52_345, "52.3 kB"), (1_400_000, "1.4 MB")])
def test_bytes_read_well(count, text):
    assert readable_bytes(count) == text


@pytest.mark.parametrize(
    ("share", "text"),
    [(0, "0 %"), (0.0004, "< 0.1 %"), (0.034, "3.4 %"), (0.0996, "10 %"), (0.5, "50 %"), (1, "100 %")],
)
def test_shares_read_well(share, text):
    assert readable_percent(share) == text


def test_numbers_read_well():
    assert readable_number(1234567) == "1,234,567"
    assert readable_number(0.12345, 3) == "0.123"
    assert readable_number(None) == "–"
    assert [readable_tiny(d) for d in (0.0, 1e-5, 3.21e-10)] == ["0", "1e-5", "3.2e-10"]
    assert short("a" * 64) == "aaaaaaaaaaaa…"


def test_figures_are_repeatable_images():
    training = {"curve": [[1, 0.6, 0.5], [2, 0.4, 0.41]], "best_epoch": 2, "loss_floor": 0.3}
    assert learning_curve(training) == learning_curve(training)
    assert learning_curve({**training, "curve": [[1, 0.6, 0.5]], "best_epoch": 1}).startswith(
        "data:image/svg+xml;base64,"
    )


def test_a_name_is_never_read_as_a_formula():
    member = {"institution": "Bank $\\frac{1}{0}$ of a very long name indeed", "row_share": 1.0, "head_share": 0.0}
    assert weights([member]).startswith("data:image/svg+xml;base64,")

"""Claims about what stands under a figure."""

import base64
import io
import re

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from vicarious import exhibits, figures


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def test_everything_that_is_drawn_can_be_read_back():
    fig, (left, right) = plt.subplots(1, 2)
    left.set_title("curves")
    left.plot([0, 1, 2], [0.1, 0.2, 0.3], color=figures.COLOURS["other"])
    left.fill_between([0, 1, 2], [0.0, 0.1, 0.2], [0.2, 0.3, 0.4], label="interval")
    left.axhline(0.05)
    right.hlines([0, 1], [-1, -2], [1, 2])
    right.plot(0.123456, 1, "o", label="estimate")
    right.scatter([5], [1])
    right.set_yticks([0, 1], ["conv", "slots"])
    table = exhibits.numbers(fig)
    kinds = table.groupby(["panel", "kind"]).size().to_dict()
    assert kinds == {
        ("curves", "line"): 3,
        ("curves", "band"): 3,
        ("panel 2", "segment"): 2,
        ("panel 2", "line"): 1,
        ("panel 2", "point"): 1,
    }, "and no guides"
    line = table[(table.panel == "curves") & (table.kind == "line")]
    assert line.y.tolist() == [0.1, 0.2, 0.3] and set(line.series) == {"other"}
    band = table[table.kind == "band"]
    assert (band.y.tolist(), band.y2.tolist()) == ([0.0, 0.1, 0.2], [0.2, 0.3, 0.4]) and set(band.series) == {
        "interval"
    }
    estimate = table[table.series == "estimate"].iloc[0]
    assert estimate.x == 0.1235 and estimate["y at"] == "slots"
    assert table[table.kind == "segment"][["x", "x2"]].to_numpy().tolist() == [[-1, 1], [-2, 2]]


def test_cells_of_a_map_are_read_at_their_centres():
    fig, ax = plt.subplots()
    ax.pcolormesh([0, 1, 2], [0, 1], np.array([[7.0, 8.0]]))
    table = exhibits.numbers(fig)
    assert table[["x", "y", "value"]].to_numpy().tolist() == [[0.5, 0.5, 7.0], [1.5, 0.5, 8.0]]


def test_the_note_carries_the_numbers_and_says_where_they_are_from():
    table = pd.DataFrame({"x": [1, 2], "y": [0.5, 0.25]})
    html = exhibits.note("commit <abc>", "03-similarity-1", table)
    assert "commit &lt;abc&gt;" in html and 'download="03-similarity-1.csv"' in html
    text = base64.b64decode(re.search(r"base64,([^\"]+)", html)[1]).decode()
    pd.testing.assert_frame_equal(pd.read_csv(io.StringIO(text)), table)


def row(name, estimate, verdict, bar=0.1, n=40, provisional=False):
    half = 0.05
    return {
        **{"id": name, "claim": f"{name} & more", "chapter": "03-similarity", "verdict": verdict, "n": n},
        **{"estimate": estimate, "ci_low": estimate - half, "ci_high": estimate + half, "provisional": provisional},
        "conditions": [{"bar": bar}],
    }


def test_a_forest_has_every_prediction_where_its_estimate_is():
    rows = [
        row("P1", -0.45, "contradicted"),
        row("P2", 0.0, "inconclusive"),
        row("P3", 0.45, "supported", None, 10, True),
    ]
    table = pd.DataFrame([*rows, row("F2", np.nan, "pending", n=0)])
    html = exhibits.forest(table)
    lines = re.findall(r"<tr class=\"(\w+)\">(.*?)</tr>", html)
    assert [verdict for verdict, _ in lines] == table.verdict.tolist()
    at = [float(re.search(r'class="dot" style="left:([\d.]+)%', line)[1]) for _, line in lines[:3]]
    assert at == pytest.approx([50 - 0.45 * 96, 50, 50 + 0.45 * 96], abs=0.1)
    assert [line.count('class="bar"') for _, line in lines] == [1, 1, 0, 0]
    assert "supported (provisional)" in lines[2][1] and "-0.45 [-0.50, -0.40]" in lines[0][1]
    assert "dot" not in lines[3][1] and "<a " not in lines[3][1] and "P1 &amp; more" in lines[0][1]

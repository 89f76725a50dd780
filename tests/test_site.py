"""Claims about what stands under a figure."""

import base64
import io
import re

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from vicarious.paper import plots, site


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def test_what_is_drawn_is_what_is_returned():
    y = np.random.default_rng(0).normal([0.1, 0.2, 0.4], 0.01, (12, 3))
    lines = [
        plots.Line("other", np.array([0.0, 0.5, 1.0]), y, panel="a"),
        plots.Line("self", np.ones(1), y[:, :1], panel="b"),
    ]
    table = plots.draw(lines, "similarity", axis=plots.similarity_axis(), scale=plots.turned)
    assert list(table) == ["panel", "series", "similarity", "rho", "low", "high"]
    assert table.similarity.tolist() == [0.0, 0.5, 1.0, 1.0] and table.panel.tolist() == ["a"] * 3 + ["b"]
    assert np.allclose(table.rho[:3], y.mean(0)) and ((table.low < table.rho) & (table.rho < table.high)).all()
    left, right = plt.gcf().axes
    drawn = next(line for line in left.get_lines() if line.get_label() == "other")
    assert drawn.get_xdata().tolist() == pytest.approx([-90, -60, 0], abs=1e-4) and np.allclose(
        drawn.get_ydata(), y.mean(0)
    )
    assert [right.get_title(), len(right.collections)] == ["b", 0], "one point has no band"


def test_levels_that_do_not_count_are_not_joined_and_gaps_are_not_numbers():
    y = np.random.default_rng(0).normal(0.3, 0.01, (12, 4))
    y[:, 3] = np.nan
    line = plots.Line("other", np.arange(4.0), y, counts=np.array([True, True, False, True]))
    table = plots.draw([line], "level")
    assert table.level.tolist() == [0, 1, 2], "what nobody has is no number"
    joined = next(drawn for drawn in plt.gcf().axes[0].get_lines() if drawn.get_label() == "other")
    assert joined.get_xdata().tolist() == [0, 1, 3]


def test_the_note_carries_the_numbers_and_says_where_they_are_from():
    table = pd.DataFrame({"x": [1, 2], "y": [0.5, 0.25]})
    html = site.note("commit <abc>", "03-similarity-1", table)
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
    table = pd.DataFrame([*rows, *(row(name, np.nan, "pending", n=0) for name in ("P5/width", "P5/depth", "F2"))])
    html = site.forest_table(table)
    lines = re.findall(r"<tr class=\"(\w+)\">(.*?)</tr>", html)
    assert [verdict for verdict, _ in lines] == [*table.verdict[:3], "pending"]
    at = [float(re.search(r'class="dot" style="left:([\d.]+)%', line)[1]) for _, line in lines[:3]]
    assert at == pytest.approx([50 - 0.45 * 96, 50, 50 + 0.45 * 96], abs=0.1)
    assert [line.count('class="bar"') for _, line in lines] == [1, 1, 0, 0]
    assert "supported (provisional)" in lines[2][1] and "-0.45 [-0.50, -0.40]" in lines[0][1]
    assert "dot" not in lines[3][1] and "P5, F2." in lines[3][1] and "P1 &amp; more" in lines[0][1]

"""Claims about the explorer's numbers; what its page does is tested in a browser, with the book."""

import json
import re

import numpy as np
import pytest
import scipy.stats
from test_verdicts import evidence

from vicarious import metrics
from vicarious.paper import site


def test_what_the_page_shows_is_what_the_evidence_holds():
    e = evidence(n=12)
    found = site.explorer_data(e)
    assert found["stages"] == ["converged"] and found["agents"] == {"converged": 12}
    assert set(found["kinds"]["value"]) == set(metrics.KINDS["value"])
    at = {tuple(s[:5]): s[5:] for s in found["series"]}
    levels, mean, half = at["reward", "empathy", 0.0, "converged", "other"]
    assert levels == sorted(levels)
    for s, m, h in zip(levels, mean, half, strict=True):
        own = e.rho("reward", list(range(12)), s=s)
        assert m == pytest.approx(own.mean(), abs=1e-3)
        assert h == pytest.approx(scipy.stats.sem(own) * scipy.stats.t.ppf(0.975, 11), abs=1e-3)
    assert all(np.isfinite(s[6]).all() and np.isfinite(s[7]).all() for s in found["series"])


def test_the_page_carries_its_data():
    html = site.explorer(evidence(n=3))
    content = json.loads(re.search(r'id="explorer-data">(.*?)</script>', html)[1])
    assert content == json.loads(json.dumps(site.explorer_data(evidence(n=3))))
    assert "http" not in html

"""Figures whose numbers are computed while drawing; pages show the others."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from spd_mini import plots

A, B, C = ([0.1, 0.001], [0.01, 0.01]), ([0.1, 0.1], [0.001, 0.001]), ([1.0, 1.0], [0.1, 0.1])


def test_fronts_by_hand() -> None:
    """Logs of A's x: -1, -3: mean -2, t(0.975; 1) = 12.706, half = 12.706 · √2 / √2."""
    fig = plots.fronts({"one": {"a": A, "b": B, "c": C}}, ("left", "lost"))
    (ax,) = fig.axes
    step = next(line for line in ax.lines if line.get_linestyle() == ":")
    assert np.allclose(step.get_xydata(), [(-2, -2), (-1, -3)]), "c is beaten by both"
    bars = {bar.get_label(): bar for bar in ax.containers}
    assert list(bars) == ["a", "b", "c"]
    along_x = bars["a"][2][0].get_segments()[0]
    assert np.allclose(along_x[:, 0], [-2 - 12.7062, -2 + 12.7062], atol=1e-4)
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_title()) == ("left", "lost", "one")
    plt.close(fig)


def test_fronts_leave_the_ideal_out_and_cut_off_what_is_tiny() -> None:
    panels = {"one": {"a": A, "best": ([0.0, 0.0], [0.0, 0.0])}, "two": {"a": A}}
    fig = plots.fronts(panels, ("left", "lost"), ideal="best", least=1e-3)
    step = next(line for line in fig.axes[0].lines if line.get_linestyle() == ":")
    assert np.allclose(step.get_xydata(), [(-2, -2)])
    drawn = {bar.get_label(): bar[0].get_xydata()[0] for bar in fig.axes[0].containers}
    assert np.allclose(drawn["best"], (-3, -3))
    labels = [t.get_text() for t in fig.axes[0].get_xticklabels()]
    assert labels == ["≤ $10^{-3}$", "$10^{-2}$", "$10^{-1}$", "$10^{0}$"]
    plt.close(fig)


@pytest.mark.parametrize("losses", [([0.1], [0.1]), ([0.1, 0.2], [0.1])])
def test_fronts_need_seeds(losses: tuple[list[float], list[float]]) -> None:
    with pytest.raises(ValueError, match="'a' needs two losses of the same two or more seeds; got"):
        plots.fronts({"one": {"a": losses}}, ("left", "lost"))
    plt.close("all")

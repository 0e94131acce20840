"""How the plots of the studies look."""

STYLE = {
    "svg.hashsalt": "serf-haproxy",
    "svg.fonttype": "none",
    "font.size": 9,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "axes.spines.top": False,
    "axes.spines.right": False,
}

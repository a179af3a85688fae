"""A backend of matplotlib that, as a notebook's does, changes settings when the first figure is made."""

import matplotlib
from matplotlib.backend_bases import FigureManagerBase as FigureManager
from matplotlib.backends.backend_agg import FigureCanvasAgg as FigureCanvas

__all__ = ["FigureCanvas", "FigureManager"]

matplotlib.interactive(True)
matplotlib.rcParams["figure.dpi"] = 123.0

"""Measurements, as ratios to a floor in the same run. Each is one command; README.md lists them."""

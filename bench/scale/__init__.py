"""Batchferry beside its peers, on one machine: `bench/scale/run --help`."""

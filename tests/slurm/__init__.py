"""Tests of slurm/, without a Slurm: pure functions, and fake commands on the path."""

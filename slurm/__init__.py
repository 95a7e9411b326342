"""All that the project knows about Slurm, and nothing about our jobs: `cluster.Slurm` is the scheduler that it makes of it."""

from __future__ import annotations

from scheduler import Traits

TRAITS = Traits(many_hosts=True, enforces_memory=True, elements_may_vanish=True, runs_commands=True)

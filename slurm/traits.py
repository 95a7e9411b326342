"""How Slurm differs from other schedulers; a file of its own, so that reading the site file does not load it."""

from __future__ import annotations

from scheduler import Traits

TRAITS = Traits(many_hosts=True, enforces_memory=True, elements_may_vanish=True, runs_commands=True)

"""All that the project knows about Slurm, and nothing about our jobs: `cluster.Slurm` is the scheduler that it makes of it."""

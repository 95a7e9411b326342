"""All that the project knows about our jobs, and nothing about Slurm."""

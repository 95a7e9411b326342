"""All that the project knows about our jobs, and nothing about Slurm."""

VERSION = "0.1.0"

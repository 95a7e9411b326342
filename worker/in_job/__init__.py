"""What runs inside a Slurm job: run, and its steps fetch, execute, pack and publish. Knows nothing of Slurm."""

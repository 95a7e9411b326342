"""Faults from every side, on real RabbitMQ and real Slurm: what the requester gets, how often, and how often the work ran."""

"""A world for the product's own code to live in: a clock, a scheduler, an API, a disk and a power supply that obey a test,
and books that don't ask the product."""

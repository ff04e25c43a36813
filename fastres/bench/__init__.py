"""What we claim about speed, measured beside the alternatives in the same run: `python -m fastres.bench views`."""

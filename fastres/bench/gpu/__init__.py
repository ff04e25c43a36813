"""`fastres gpu`: everything that a new GPU must show, in one command."""

"""Which kind of step a stage takes on this machine."""

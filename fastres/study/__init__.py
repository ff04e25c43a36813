"""Many schedules in, the paper's tables and figures out: every system of the paper beside what the paper reports."""

"""From finished runs to the study's tables, figures and verdicts."""

"""From a network and a split to scores of twelve views, and from scores to errors and mistakes."""

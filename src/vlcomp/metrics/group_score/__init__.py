"""The metric `group_score`."""

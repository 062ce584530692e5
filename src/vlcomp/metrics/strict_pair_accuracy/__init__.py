"""The metric `strict_pair_accuracy`."""

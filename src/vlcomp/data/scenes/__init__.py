"""Scenes: the built-in world of pictures and captions, and the benchmark made from it."""

from .loading import list_scenes, load_scenes
from .oracle import bag_of_words_score, true_words

__all__ = ["bag_of_words_score", "list_scenes", "load_scenes", "true_words"]

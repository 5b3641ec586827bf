"""Scores of learnt behaviour over runs and games, compared with intervals (arXiv 2108.13264)."""

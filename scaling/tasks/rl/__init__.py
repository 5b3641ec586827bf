"""Experts in reinforcement learning: environments, networks, learners, and what is measured inside a network."""

"""Rewards, data sets, training of the bundled pair, reinforcement, evaluation, registry and review."""

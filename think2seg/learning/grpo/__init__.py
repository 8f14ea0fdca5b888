"""Reinforcement of a prompter by mask-only rewards, on TRL's GRPOTrainer."""

from think2seg.learning.grpo.run import Reinforced, reinforce

__all__ = ["Reinforced", "reinforce"]

"""Imagery to learn from and to show: simulated scenes, real tiles, the questions asked of them."""

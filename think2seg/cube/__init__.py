"""The cube: masks of one question over time, appended and never rewritten."""

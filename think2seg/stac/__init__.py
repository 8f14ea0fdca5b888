"""Search, scenes, fingerprints: what a catalog says exists."""

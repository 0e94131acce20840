"""STAY: the resident process, which makes a pass whenever one is due."""

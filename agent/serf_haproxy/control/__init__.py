"""LOOP: one pass, which observes, decides, renders, compares and applies; and the report of it."""

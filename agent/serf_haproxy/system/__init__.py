"""Processes, durable files, locks and networks: what the operating system offers, with time limits."""

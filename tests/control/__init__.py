"""Tests of the pass with a real HAProxy."""

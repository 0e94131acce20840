"""Tests of the room that scales."""

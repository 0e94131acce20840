"""Tests of the room control."""

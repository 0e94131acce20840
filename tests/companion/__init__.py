"""Tests of the room that announces containers."""

"""Tests of the images with a real container engine."""

"""WEIGH: how much of its weight each server gets, by what HAProxy measures of it."""

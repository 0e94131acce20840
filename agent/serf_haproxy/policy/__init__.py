"""DECIDE: which members become servers, and why the others do not; pure."""

"""The command line: `main` has the parser and the exit codes, every other module is one command.

A command imports what it needs when it runs, so that a cheap command starts fast.
"""

"""The command line. Exit codes: 0 good, 1 findings, 2 could not run."""

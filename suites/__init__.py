"""The suites of the release gate: what a student has to pass before its release."""

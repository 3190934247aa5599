"""Mutation runs of semedit; see .github/mutants.md."""

"""Learners under one contract, on one store."""

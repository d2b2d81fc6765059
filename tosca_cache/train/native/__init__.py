"""The same training in compiled code, for CPUs: one call a model and task, nothing of it in Python.

Why it exists: on a CPU a step of PyTorch spends most of its time outside the matrix products, in passes over memory and
between small operations. Here gradients never leave the registers: what the product gives goes straight through the
optimizer into the parameters (backward.hpp). benchmarks/sweep_speed.py measures it against the plain loop.
"""

"""The NumPy interpreter of kernels, which defines them, and the backend that runs it."""

"""Kernels as machine code for CPUs, through LLVM."""

"""Code generation: kernels, compiled through Numba and LLVM into relocatable object code."""

"""Run time: loading of object code, the thread pool, the cache. Nothing here imports Numba."""

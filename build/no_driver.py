"""What the GPU image of GluonCV does before any program: without NVIDIA's driver it loads a stand-in for it (no_driver.c).

Installed as Python's sitecustomize. A job on the CPU then runs in that image too, on machines with and without a GPU.
"""

import ctypes

try:
    ctypes.CDLL("libcuda.so.1")
except OSError:
    ctypes.CDLL("/opt/no_driver/libcuda.so.1", mode=ctypes.RTLD_GLOBAL)

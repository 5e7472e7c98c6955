"""Takes out of an image what it never reads: tests, headers, OpenVINO's parts for other hardware and other formats, and packages named.

python trim.py [PACKAGE …]: runs in the layer that installed them, or nothing is saved.
"""

import shutil
import sys
import sysconfig
from pathlib import Path

PACKAGES = Path(sysconfig.get_path("purelib"))
NEVER_READ = (
    *("openvino/libs/libopenvino_intel_[gn]pu_plugin.so", "openvino/libs/cache.json", "openvino/include", "openvino/tools"),
    *(f"openvino/libs/libopenvino_{name}_frontend.so*" for name in ("tensorflow", "tensorflow_lite", "pytorch", "paddle", "gguf", "jax")),
    *("onnx/backend/test", "mxnet/include", "gluoncv/torch"),
    *("numpy/*/tests", "scipy/*/tests", "scipy/*/*/tests", "sympy/*/tests", "sympy/*/*/tests"),
)


def main() -> None:
    for pattern in (*NEVER_READ, *sys.argv[1:]):
        for path in PACKAGES.glob(pattern):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


if __name__ == "__main__":
    main()

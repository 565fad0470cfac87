"""Cost of `import hercules_fast` beside `import numpy`, each in a fresh interpreter, interleaved.

The claim: at most 1.3 times NumPy's import. The limit is the bare interpreter, which is subtracted from neither.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

ROUNDS = 15


def seconds(code: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - start


def test_import_cost(benchmark) -> None:
    codes = {
        "bare": "pass",
        "numpy": "import numpy",
        "hercules_fast": "import hercules_fast",
        "first use": "import hercules_fast as hf; hf.embedding_bag; hf.capabilities()",
    }
    times: dict[str, list[float]] = {name: [] for name in codes}
    for _ in range(ROUNDS):
        for name, code in codes.items():
            times[name].append(seconds(code))
    median = {name: statistics.median(values) for name, values in times.items()}
    benchmark.extra_info |= {f"{name}_s": value for name, value in median.items()}
    benchmark.extra_info["ratio_to_numpy"] = median["hercules_fast"] / median["numpy"]
    print(
        f"\nimport: bare {1e3 * median['bare']:.0f} ms, numpy {1e3 * median['numpy']:.0f} ms, "
        f"hercules_fast {1e3 * median['hercules_fast']:.0f} ms "
        f"({median['hercules_fast'] / median['numpy']:.2f}x numpy), "
        f"with the extension {1e3 * median['first use']:.0f} ms ({median['first use'] / median['numpy']:.2f}x)"
    )
    benchmark.pedantic(seconds, args=("import hercules_fast",), rounds=5)

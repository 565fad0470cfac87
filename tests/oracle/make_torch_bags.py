"""Write torch-bags.json, answers of PyTorch's embedding-bag operators, beside this script.

    python tests/oracle/make_torch_bags.py      (needs torch with its quantised CPU operators)

Floats are stored as the hexadecimal bytes of their little-endian form.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

ROWS, LENGTHS = 11, [3, 0, 1, 9, 5]
OPERATORS = {"int8": "byte", "int4": "4bit", "int2": "2bit"}


def text(array: np.ndarray) -> str:
    return array.tobytes().hex()


def main() -> None:
    rng = np.random.default_rng(20)
    ops = torch.ops.quantized
    cases = []
    for dim in (4, 20, 68):
        weight = (rng.standard_normal((ROWS, dim)) * 10.0 ** rng.integers(-3, 3, (ROWS, 1))).astype(np.float32)
        weight[0] = 0.0
        weight[1] = 1.0001
        weight[2] = 3e-8 * np.arange(dim)
        indices = rng.integers(0, ROWS, sum(LENGTHS))
        factors = rng.standard_normal(len(indices)).astype(np.float32)
        offsets = np.cumsum([0, *LENGTHS[:-1]])
        tensor, where, starts = torch.from_numpy(weight), torch.from_numpy(indices), torch.from_numpy(offsets)
        case = {"dim": dim, "weight": text(weight), "indices": indices.tolist(), "lengths": LENGTHS}
        case["factors"] = text(factors)
        for dtype, name in OPERATORS.items():
            packed = getattr(ops, f"embedding_bag_{name}_prepack")(tensor)
            bag = getattr(ops, f"embedding_bag_{name}_rowwise_offsets")
            plain = bag(packed, where, starts, False, 0, False, None)
            weighted = bag(packed, where, starts, False, 0, False, torch.from_numpy(factors))
            case[dtype] = {
                "packed": text(packed.numpy()),
                "unpacked": text(getattr(ops, f"embedding_bag_{name}_unpack")(packed).numpy()),
                "sum": text(plain.numpy()),
                "weighted_sum": text(weighted.numpy()),
            }
        for dtype, kind in (("float32", torch.float32), ("float16", torch.float16), ("bfloat16", torch.bfloat16)):
            table = tensor.to(kind)
            case[dtype] = {"table": text(table.view(torch.int16 if kind.itemsize == 2 else torch.int32).numpy())}
            for mode in ("sum", "mean", "max"):
                result = torch.nn.functional.embedding_bag(where, table, starts, mode=mode)
                case[dtype][mode] = text(result.float().numpy())
        cases.append(case)
    record = {"torch": torch.__version__.split("+")[0], "cases": cases}
    (Path(__file__).parent / "torch-bags.json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()

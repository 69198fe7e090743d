"""What the card can do: a product of two square matrices, timed."""

from __future__ import annotations

import time
from typing import Any

import torch

from scripts.check_gpu.checking import Asked, Clock, Found
from scripts.check_gpu.record import Device

REPEATS, SECONDS = 20, 1.0
"""The fastest of so many products counts, or of those that this time has room for."""

TYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}


def synchronize(device: Device) -> None:
    """Wait for what a GPU has been given to do."""
    if device == "cuda":
        torch.cuda.synchronize()


def flops(device: Device, side: int, dtype: torch.dtype) -> float:
    """Floating-point operations a second: 2 n^3 for each product of n x n matrices, over the fastest of some."""
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(side, side, generator=generator).to(device, dtype) for _ in range(2))
    fastest, clock = float("inf"), Clock(SECONDS)
    for _ in range(REPEATS):
        synchronize(device)
        began = time.perf_counter()
        a @ b
        synchronize(device)
        fastest = min(fastest, time.perf_counter() - began)
        if clock.out:
            break
    return 2 * side**3 / fastest


def check(asked: Asked) -> Found:
    """The product in bfloat16 and float32, and that it is right."""
    side = asked.sizes.product
    figures: dict[str, Any] = {name: flops(asked.device, side, dtype) for name, dtype in TYPES.items()}
    generator = torch.Generator().manual_seed(1)
    a, b = (torch.randn(256, 256, generator=generator) for _ in range(2))
    apart = float(((a.to(asked.device) @ b.to(asked.device)).cpu() - a @ b).abs().max())
    rate = ", ".join(f"{value / 1e12:.3g} TFLOP/s in {name}" for name, value in figures.items())
    found = Found(f"{side} x {side}: {rate}", {**figures, "side": side, "largest_difference": apart})
    if not apart < 1e-2:
        found.problems.append(f"a product of 256 x 256 float32 matrices is off by {apart:.2g} from the CPU's")
        found.remedy = "leave TF32 off (torch.backends.cuda.matmul.allow_tf32), or look for a broken card"
    return found

"""Matrix products and convolutions to measure, the same for every library.

    gemm       squares of 64 to 2048, float32 and float64, and a transposed one
    skinny     tall, short, long inner sizes; matrix times vector; outer product; attention's batched q @ k^T
    tiny       thousands of small matrices
    others     the layers of known networks: forward, gradient of the data, gradient of the weights

A convolution's shapes: x [N, C, *S], w [O, C/groups, *K]; a transposed one's w is [C, O/groups, *K].
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

DIRECTIONS = ("forward", "data", "weight")
SEED = 0


@dataclass(frozen=True)
class Product:
    """a @ b, with NumPy's broadcasting; `turned` operands are stored transposed."""

    name: str
    a: tuple[int, ...]
    b: tuple[int, ...]
    dtype: str = "float32"
    turned: str = ""

    @property
    def flops(self) -> int:
        if len(self.b) == 1:
            return 2 * math.prod(self.a)
        batch = math.prod(np.broadcast_shapes(self.a[:-2], self.b[:-2]))
        return 2 * batch * self.a[-2] * self.a[-1] * self.b[-1]

    @property
    def tolerance(self) -> float:
        return 1e-3 if self.dtype == "float32" else 1e-10


@dataclass(frozen=True)
class Conv:
    """One direction of a convolution."""

    name: str
    x: tuple[int, ...]
    w: tuple[int, ...]
    stride: int = 1
    padding: int = 0
    dilation: int = 1
    groups: int = 1
    transposed: bool = False
    direction: str = "forward"
    dtype: str = "float32"

    @property
    def axes(self) -> int:
        return len(self.x) - 2

    @property
    def y(self) -> tuple[int, ...]:
        """The result's shape."""
        reach = [self.dilation * (k - 1) + 1 for k in self.w[2:]]
        if self.transposed:
            size = [(n - 1) * self.stride - 2 * self.padding + r for n, r in zip(self.x[2:], reach, strict=True)]
            return (self.x[0], self.w[1] * self.groups, *size)
        size = [(n + 2 * self.padding - r) // self.stride + 1 for n, r in zip(self.x[2:], reach, strict=True)]
        return (self.x[0], self.w[0], *size)

    @property
    def flops(self) -> int:
        """Multiplications and additions; each direction has the same."""
        places = self.x[2:] if self.transposed else self.y[2:]
        return 2 * self.x[0] * math.prod(places) * math.prod(self.w)

    @property
    def tolerance(self) -> float:
        return 1e-3


Case = Product | Conv


def squares() -> list[Case]:
    sizes = (64, 128, 256, 384, 512, 768, 1024, 1536, 2048)
    found: list[Case] = [Product(f"gemm-{n}", (n, n), (n, n)) for n in sizes]
    found += [Product(f"gemm-f64-{n}", (n, n), (n, n), "float64") for n in (64, 128, 256, 512, 1024, 2048)]
    return found + [Product(f"gemm-{t}-512", (512, 512), (512, 512), "float32", t) for t in ("a", "b", "ab")]


def skinny() -> list[Case]:
    shapes = {
        "tall": ((8192, 64), (64, 64)), "short": ((32, 1024), (1024, 4096)), "wide": ((64, 64), (64, 8192)),
        "rank16": ((1024, 16), (16, 1024)), "long": ((64, 65536), (65536, 64)),
        "longer": ((16, 1000000), (1000000, 16)), "mlp": ((32, 784), (784, 512)), "row": ((1, 4096), (4096, 4096)),
        "outer": ((2048, 1), (1, 2048)), "matvec": ((4096, 4096), (4096,)),
        "attention": ((8, 8, 256, 64), (8, 8, 64, 256)), "broadcast": ((64, 32, 128), (128, 256)),
        "odd": ((511, 513), (513, 509)),
    }  # fmt: skip
    return [Product(f"skinny-{name}", a, b) for name, (a, b) in shapes.items()]


def tiny() -> list[Case]:
    counts = {2: 16384, 4: 16384, 8: 4096, 16: 2048}
    found: list[Case] = [Product(f"tiny-{k}x{n}", (k, n, n), (k, n, n)) for n, k in counts.items()]
    return [*found, Product("tiny-f64-4096x8", (4096, 8, 8), (4096, 8, 8), "float64")]


def layers() -> list[Conv]:
    def square(name: str, n: int, c: int, o: int, size: int, k: int, **more: Any) -> Conv:
        return Conv(name, (n, c, size, size), (o, c // more.get("groups", 1), k, k), **more)

    def each(network: str, n: int, rows: list[tuple[int, int, int, int, int]]) -> list[Conv]:
        return [
            square(f"{network}-{c}x{size}-{k}x{k}s{s}-{o}", n, c, o, size, k, stride=s, padding=k // 2)
            for c, o, size, k, s in rows
        ]

    lenet = [square("lenet-1", 64, 1, 6, 28, 5, padding=2), square("lenet-2", 64, 6, 16, 14, 5)]
    vgg = each("vgg11", 8, [
        (3, 64, 32, 3, 1), (64, 128, 16, 3, 1), (128, 256, 8, 3, 1), (256, 256, 8, 3, 1), (256, 512, 4, 3, 1),
        (512, 512, 4, 3, 1),
    ])  # fmt: skip
    resnet = each("resnet18", 8, [
        (3, 64, 112, 7, 2), (64, 64, 56, 3, 1), (64, 128, 56, 3, 2), (64, 128, 56, 1, 2), (128, 128, 28, 3, 1),
        (128, 256, 28, 3, 2), (256, 256, 14, 3, 1), (256, 512, 14, 3, 2), (512, 512, 7, 3, 1),
    ])  # fmt: skip
    pointwise = [(64, 256, 56, 1, 1), (256, 64, 56, 1, 1), (512, 128, 28, 1, 1), (1024, 256, 14, 1, 1)]
    resnet += each("resnet50", 8, pointwise)
    mobile = each("mobilenet", 8, [(16, 96, 56, 1, 1), (144, 24, 28, 1, 1), (96, 576, 14, 1, 1)])
    mobile += [
        square(f"mobilenet-dw-{c}x{size}s{s}", 8, c, c, size, 3, stride=s, padding=1, groups=c)
        for c, size, s in [(32, 56, 1), (96, 56, 2), (144, 28, 1), (192, 28, 2), (384, 14, 1), (960, 7, 1)]
    ]
    resnext = [  # 32 groups: of 4, 8, 16 and 32 channels
        square(f"resnext-{c}x{size}s{s}", 8, c, c, size, 3, stride=s, padding=1, groups=32)
        for c, size, s in [
            (128, 56, 1), (256, 56, 2), (256, 28, 1), (512, 28, 2), (512, 14, 1), (1024, 14, 2), (1024, 7, 1)
        ]
    ]  # fmt: skip
    depthwise = [
        square(f"{network}-dw{k}-{c}x{size}s{s}", 8, c, c, size, k, stride=s, padding=k // 2, groups=c)
        for network, c, size, k, s in [
            ("convnext", 96, 56, 7, 1), ("convnext", 384, 14, 7, 1),
            ("efficientnet", 240, 28, 5, 2), ("efficientnet", 672, 14, 5, 1),
        ]
    ]  # fmt: skip
    wavenet = [
        Conv(f"wavenet-d{d}", (8, 32, 4096), (64, 32, 2), dilation=d) for d in (1, 8, 64, 512)
    ]
    unet = [
        square(f"unet-up-{c}x{size}", 2, c, c // 2, size, 2, stride=2, transposed=True)
        for c, size in [(512, 16), (256, 32), (128, 64)]
    ]
    unet = [replace(u, w=(u.x[1], u.x[1] // 2, 2, 2)) for u in unet]
    sources = [
        Conv("sources-conv1d", (1, 2, 64), (16, 2, 3)),
        Conv("sources-conv2d", (1, 20, 64, 128), (16, 20, 3, 5)),
    ]
    return [*lenet, *vgg, *resnet, *resnext, *mobile, *depthwise, *wavenet, *unet, *sources]


def all_cases() -> dict[str, Case]:
    found: list[Case] = [*squares(), *skinny(), *tiny()]
    found += [replace(c, name=f"{c.name}-{d}", direction=d) for c in layers() for d in DIRECTIONS]
    return {c.name: c for c in found}


CASES = all_cases()
GROUPS = tuple(dict.fromkeys(name.partition("-")[0] for name in CASES))


def operands(case: Case) -> tuple[Any, Any]:
    """Return a and b, or what the direction of a convolution takes: (x, w), (ct, w) or (x, ct)."""
    rng = np.random.default_rng(SEED)

    def normal(shape: tuple[int, ...]) -> Any:
        return rng.standard_normal(shape, dtype=np.dtype(case.dtype))

    if isinstance(case, Product):
        a, b = normal(case.a), normal(case.b)
        if "a" in case.turned:
            a = np.ascontiguousarray(a.T).T
        if "b" in case.turned:
            b = np.ascontiguousarray(b.T).T
        return a, b
    x, w, ct = normal(case.x), normal(case.w), normal(case.y)
    return {"forward": (x, w), "data": (ct, w), "weight": (x, ct)}[case.direction]


def checksum(result: Any) -> float:
    """Return a projection of a result that any wrong element changes."""
    flat = np.asarray(result, np.float64).ravel()
    return float(flat @ np.cos(np.arange(flat.size) * 0.7)) / math.sqrt(flat.size)

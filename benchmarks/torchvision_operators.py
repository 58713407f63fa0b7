"""Declares operators of torchvision: built for CUDA, it imports beside a CPU torch only then. No peer uses them."""

import torch

_DECLARED = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]  # torch leaves it untyped
for _operator in ("nms", "qnms"):
    _DECLARED.define(f"{_operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")  # type: ignore[no-untyped-call]  # as above

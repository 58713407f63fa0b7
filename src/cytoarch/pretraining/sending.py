"""Arrays on their way to the device that trains, without anybody waiting for them."""

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor


def sent(values: "NDArray[Any]", device: torch.device) -> Tensor:
    """The array as a tensor on the device; on a graphics card the copy queues up behind what is computed there.

    From ordinary memory PyTorch waits for all that was queued before, and the card for the next batch to be prepared;
    pinned memory is copied while the card works.
    """
    here = torch.from_numpy(values)
    return here if device.type == "cpu" else here.pin_memory().to(device, non_blocking=True)

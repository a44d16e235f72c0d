"""What runs our own GPU kernels here: a GPU, or Triton's interpreter on a CPU (TRITON_INTERPRET=1), which is slow."""

from __future__ import annotations

import pytest
import torch

from node.model.ops.gpu.presence import why_not_tried

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    absent = why_not_tried(DEVICE)  # where they should run and do not, tests must fail
    for item in items:
        if "tests/gpu" not in item.path.as_posix():
            continue
        item.add_marker(pytest.mark.filterwarnings("ignore:Conversion of an array:DeprecationWarning"))
        item.add_marker(pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning"))  # the interpreter's numpy
        if absent is not None:
            item.add_marker(pytest.mark.skip(reason=f"no GPU kernels: {absent}"))
        elif DEVICE.type == "cpu" and item.get_closest_marker("needs_gpu"):
            item.add_marker(pytest.mark.skip(reason="a GPU replays graphs; an interpreter does not"))


@pytest.fixture
def device() -> torch.device:
    return DEVICE

"""Non-maximum suppression of our own, and torchvision importing whatever its operators do."""

import torch

from semedit.runtime import torchvision_ops


def loop_nms(boxes, scores, threshold):
    """The definition, box by box."""
    kept = []
    for i in sorted(range(len(boxes)), key=lambda i: -float(scores[i])):
        x0, y0, x1, y1 = boxes[i].tolist()
        for j in kept:
            a0, b0, a1, b1 = boxes[j].tolist()
            both = max(0, min(x1, a1) - max(x0, a0)) * max(0, min(y1, b1) - max(y0, b0))
            either = (x1 - x0) * (y1 - y0) + (a1 - a0) * (b1 - b0) - both
            if both > threshold * either:
                break
        else:
            kept.append(i)
    return kept


def random_boxes(count):
    numbers = torch.Generator().manual_seed(count)
    corner = torch.rand(count, 2, generator=numbers)
    size = 0.1 + 0.5 * torch.rand(count, 2, generator=numbers)
    return torch.cat([corner, corner + size], 1), torch.rand(count, generator=numbers)


def test_nms_is_its_definition():
    for count in (0, 1, 7, 60):
        boxes, scores = random_boxes(count)
        for threshold in (0.1, 0.5, 0.9):
            kept = torchvision_ops.nms(boxes, scores, threshold)
            assert kept.dtype == torch.int64
            assert kept.tolist() == loop_nms(boxes, scores, threshold)


def test_torchvision_imports_and_suppresses():
    torchvision_ops.ensure()
    import torchvision

    boxes, scores = random_boxes(30)
    assert torchvision.ops.nms(boxes, scores, 0.5).tolist() == loop_nms(boxes, scores, 0.5)
    groups = torch.arange(30) % 3
    kept = torchvision.ops.batched_nms(boxes, scores, groups, 0.5)
    assert len(kept) >= len(loop_nms(boxes, scores, 0.5))


def test_ensure_may_be_called_again():
    assert torchvision_ops.ensure() == torchvision_ops.ensure()

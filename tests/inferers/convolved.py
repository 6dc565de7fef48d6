"""A network of one convolution, and volumes, for the tests of inferers."""

import torch


class Convolved(torch.nn.Module):
    """One 3-wide convolution per axis; small integers keep every sum exact, `tell` answers for the output size."""

    def __init__(self, classes=3, padded=False, integer=True, tell=False, dims=3, seed=0):
        super().__init__()
        conv = (torch.nn.Conv2d, torch.nn.Conv3d)[dims - 2]
        self.conv = conv(1, classes, 3, padding=1 if padded else 0, bias=False)
        generator = torch.Generator().manual_seed(seed)
        weight = torch.randn(self.conv.weight.shape, generator=generator)
        self.conv.weight.data = (2 * weight).round() if integer else weight
        self.lost, self.sizes = 0 if padded else 2, []
        if tell:
            self.output_size = lambda roi: tuple(length - self.lost for length in roi)

    def forward(self, windows):
        self.sizes.append(tuple(windows.shape))
        return self.conv(windows)


def volume_of(*shape, seed=1, integer=True):
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(shape, generator=generator)
    return (3 * values).round() if integer else values

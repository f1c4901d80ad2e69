"""The peers' figures of configurations A to D, and Table 2. [ran]: measured on a 2-core, 24 GB machine from the public
snapshots; [recomputed]: from published formulas and data; [paper]: published.
"""

from typing import NamedTuple


class Pimcomp(NamedTuple):
    """Configuration A [ran]: logical arrays at one copy (block-diagonal groups where these were counted), best interval
    and latency over its modes, processor time (interval / latency mode) and peak memory of its compiler.
    """

    arrays: int
    interval_us: float
    latency_us: float
    cpu_s: str
    rss_mb: str


PIMCOMP = {
    "squeezenet": Pimcomp(108, 248, 1573, "1.9 / 5.0", "925 / 1685"),
    "resnet18": Pimcomp(727, 319, 2071, "4.7 / 9.1", "1943 / 2782"),
    "resnet34": Pimcomp(1349, 582, 5194, "9.2 / crash", "2577"),
    "resnet50": Pimcomp(1576, 801, 3853, "8.4 / 14.2", "2407 / 3074"),
    "googlenet": Pimcomp(566, 373, 2536, "5.0 / 8.5", "2048 / 2707"),
    "inception_v3": Pimcomp(1762, 712, 4175, "10.7 / 15.9", "3262 / 3833"),
    "mobilenetv2": Pimcomp(816, 1252, 3508, "8.5 / 12.0", "2322 / 2866"),
    "shufflenet": Pimcomp(544, 499, 2838, "3.8 / 11.3", "1182 / 3573"),
    "alexnet": Pimcomp(3814, 174, 2729, "3.8 / crash", "903"),
    "vgg16": Pimcomp(8454, 13240, 66971, "12 / 16", ""),
}

# Configuration B [paper]: arrays, the best published.
MARP = {"autoencoder": 5, "ds_cnn": 1, "resnet8": 2, "mobilenetv2_cifar": 35}

# Configuration C [recomputed]: ms, by network and bits of a cell.
CIM_AQ = {("resnet18", 4): 1507.5, ("vgg16", 4): 12394.6, ("vit_b_32", 4): 3461.1, ("resnet18", 2): 3014.9}


class Zigzag(NamedTuple):
    """Configuration D: the golden values of its own test, ResNet-18 on its analog preset."""

    energy_pj: float
    cycles: int
    area_mm2: float


ZIGZAG = Zigzag(4.6957e9, 5050846, 2.2878)

# Table 2 of arXiv 2305.14547: latency with copies, ms.
TABLE_2 = {"lenet1": 0.05, "vgg8": 0.19, "resnet18": 0.20}

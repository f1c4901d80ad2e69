"""What of the products does not run on arrays, as JSON figures and as a table."""

from typing import Any

from cimc.artifact import Artifact
from cimc.commands.console import print_table, say
from passes.digital_products import Products, products_of

LONGEST = 20


def figures(artifact: Artifact) -> dict[str, Any]:
    """JSON keys of `compile` and `inspect`: `digital_products`, and `macs` of one image by where they run."""
    products = products_of(artifact.network, artifact.mapping, artifact.chip)
    return {
        "digital_products": [
            {
                **product._asdict(),
                "share_of_weights": product.weights / products.weights,
                "share_of_macs": _share(product.macs, products),
            }
            for product in products.digital
        ],
        "macs": {
            "arrays": products.array_macs,
            "digital_weights": sum(product.macs for product in products.digital),
            "values": products.value_macs,
            "share_on_arrays": _share(products.array_macs, products),
        },
    }


def show(artifact: Artifact) -> None:
    """The share of the multiply-accumulates on arrays where it is not all, and the constant weights that are not."""
    products = products_of(artifact.network, artifact.mapping, artifact.chip)
    if products.array_macs < products.macs:
        values = (
            f", {_share(products.value_macs, products):.1%} are products of two values" if products.value_macs else ""
        )
        say(
            f"of {products.macs:,} multiply-accumulates an image {_share(products.array_macs, products):.1%} run on "
            f"arrays{values}; time and energy of the arrays are of those alone"
        )
    if not products.digital:
        return
    largest = sorted(products.digital, key=lambda product: -product.weights)
    rows = [
        [
            product.name,
            product.operator,
            f"{product.weights:,}",
            f"{product.weights / products.weights:.1%}",
            f"{product.macs:,}",
            f"{_share(product.macs, products):.1%}",
            product.reason,
        ]
        for product in largest[:LONGEST]
    ]
    more = f"{len(largest) - LONGEST} more in --json" if len(largest) > LONGEST else None
    columns = ["product", "operator", "weights", "share", "MACs / image", "share", "because"]
    print_table("constant weights that stay digital", columns, rows, more)


def _share(macs: int, products: Products) -> float:
    return macs / products.macs if products.macs else 0.0

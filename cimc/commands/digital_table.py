"""What of the products does not run on arrays, as JSON figures and as a table."""

from typing import TYPE_CHECKING, Any

from cimc.artifact import Artifact
from cimc.commands.console import print_table, say
from passes.digital_products import Products, products_of

if TYPE_CHECKING:
    from cimc.api.choose_digital import DigitalChoice
    from runtime.system.sensitivity import Sensitivity

LONGEST = 20


def figures(artifact: Artifact) -> dict[str, Any]:
    """JSON keys of `compile` and `inspect`: `digital_products`, and `macs` of one input by where they run."""
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
            f"of {products.macs:,} multiply-accumulates an input {_share(products.array_macs, products):.1%} run on "
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
            _text(product.ms),
            _text(product.mj),
            product.reason,
        ]
        for product in largest[:LONGEST]
    ]
    more = f"{len(largest) - LONGEST} more in --json" if len(largest) > LONGEST else None
    columns = ["product", "operator", "weights", "share", "MACs / input", "share", "ms", "mJ", "because"]
    print_table("constant weights that stay digital", columns, rows, more)


def choice_figures(choice: "DigitalChoice | None") -> dict[str, Any]:
    """JSON key of `compile --digital-budget`: `digital_choice`, with every layer that was measured."""
    if choice is None:
        return {}
    return {
        "digital_choice": {
            "budget": choice.budget,
            "samples": choice.samples,
            "before": _measured(choice.before),
            "after": _measured(choice.after),
            "layers": [
                {
                    "layers": list(candidate.layers),
                    "share_of_macs": candidate.share,
                    "alone": _measured(candidate.alone),
                    "chosen": candidate.chosen,
                }
                for candidate in choice.candidates
            ],
        }
    }


def _measured(measured: "Sensitivity") -> dict[str, float | None]:
    return {"snr_db": measured.snr_db, "agreement": measured.agreement}


def show_choice(choice: "DigitalChoice | None") -> None:
    """What each layer costs the outputs, the chosen ones and the largest first, and what they give together."""
    if choice is None:
        return
    ranked = sorted(choice.candidates, key=lambda candidate: (not candidate.chosen, -candidate.alone.error))
    rows = [
        [
            ", ".join(candidate.layers),
            f"{candidate.share:.1%}",
            *_measured_texts(candidate.alone),
            "digital" if candidate.chosen else "arrays",
        ]
        for candidate in ranked[:LONGEST]
    ]
    more = f"; {len(ranked) - LONGEST} more in --json" if len(ranked) > LONGEST else ""
    print_table(
        f"outputs with one layer on its arrays, on {choice.samples} samples, without noise",
        ["layer", "share of MACs", "SNR, dB", "agreement", "left to"],
        rows,
        "all others exact; of probabilities the SNR is that of their logits" + more,
    )
    before, after = (" dB and ".join(_measured_texts(one)) for one in (choice.before, choice.after))
    used = sum(candidate.share for candidate in choice.candidates if candidate.chosen)
    say(f"with {used:.1%} of the multiply-accumulates digital: from {before} agreement to {after}")


def _measured_texts(measured: "Sensitivity") -> list[str]:
    return ["no error" if measured.snr_db is None else f"{measured.snr_db:.1f}", f"{measured.agreement:.1%}"]


def _text(figure: float | None) -> str:
    return "not stated" if figure is None else f"{figure:.2g}"


def _share(macs: int, products: Products) -> float:
    return macs / products.macs if products.macs else 0.0

"""Update policies by name: a new one is a file here and a row in the table, or a plug-in (group `cimc.policies`)."""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

from cimc.errors import CimcError
from cimc.plugins import plugins
from runtime.training.policies import (
    agad,
    eapu,
    eapu_accumulator,
    mixed_precision,
    multi_tile,
    naive,
    pulsed_sgd,
    residual_learning,
    sign,
    tiki_taka,
    tiki_taka_v2,
)
from runtime.training.policies.policy import UpdatePolicy, UpdateRule
from runtime.training.policies.settings import make_options

POLICIES: dict[str, UpdatePolicy] = {
    policy.name: policy
    for policy in (
        mixed_precision.POLICY,
        naive.POLICY,
        sign.POLICY,
        eapu.POLICY,
        eapu_accumulator.POLICY,
        pulsed_sgd.POLICY,
        tiki_taka.POLICY,
        tiki_taka_v2.POLICY,
        tiki_taka_v2.CHOPPED,
        agad.POLICY,
        residual_learning.POLICY,
        multi_tile.POLICY,
    )
}


def find_policy(name: str, *, also: Iterable[str] = ()) -> UpdatePolicy:
    """The policy of that name. also: other names that the user may give in its place.

    Raises:
        CimcError: there is none.
    """
    if name in POLICIES:  # without a look at the plug-ins
        return POLICIES[name]
    added = plugins("cimc.policies", built_in=frozenset(POLICIES))
    if name in added:
        if not isinstance(added[name], UpdatePolicy):
            raise CimcError(f"the plug-in policy {name!r} is {added[name]!r:.60}, not an UpdatePolicy; mend it")
        found: UpdatePolicy = added[name]
        return found
    names = [*POLICIES, *added, *also]
    near = get_close_matches(str(name).lower(), names, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise CimcError(f"--update is {name!r}, no update policy; choose {', '.join(names)}{hint}")


def make_rule(name: str, **settings: Any) -> UpdateRule:
    """The policy of that name with its options: values, or texts of them; those left out by default.

    Raises:
        CimcError: there is no such policy, it has no such option, or a value is none of the option's.
    """
    policy = find_policy(name)
    return UpdateRule(policy, make_options(policy.options, f"the update policy {name}", settings))

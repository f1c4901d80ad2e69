"""Update policies by name: a new one is a file here (or a plug-in) and a row in the table."""

from dataclasses import fields
from difflib import get_close_matches
from typing import Any

from cimc.errors import CimcError
from runtime.training.policies import mixed_precision, naive
from runtime.training.policies.policy import UpdatePolicy, UpdateRule

POLICIES: dict[str, UpdatePolicy] = {policy.name: policy for policy in (mixed_precision.POLICY, naive.POLICY)}


def find_policy(name: str) -> UpdatePolicy:
    """The policy of that name.

    Raises:
        CimcError: there is none.
    """
    if name in POLICIES:
        return POLICIES[name]
    near = get_close_matches(name.lower(), POLICIES, n=1, cutoff=0.5)
    hint = f"did you mean '{near[0]}'? " if near else ""
    raise CimcError(f"unknown update policy {name!r}: {hint}use one of {', '.join(POLICIES)}")


def make_rule(name: str, **settings: Any) -> UpdateRule:
    """The policy of that name with its options, those that are left out by default.

    Raises:
        CimcError: there is no such policy, or it has no such option.
    """
    policy = find_policy(name)
    known = [field.name for field in fields(policy.options)]
    for setting in settings:
        if setting not in known:
            raise CimcError(f"the update policy {name} has no option {setting!r}; it has {', '.join(known)}")
    return UpdateRule(policy, policy.options(**settings))

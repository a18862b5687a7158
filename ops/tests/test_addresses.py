"""The network policy `internet` and the workers' own resolver agree on which addresses are public."""

import functools
import ipaddress
import re
import unittest

import yaml
from jm_ops.workers import ROOT

# The resolver takes these for the address of IPv4 within; a connection goes there (mapped, compatible) or by a translator
# that the policy does not know of. The policy has none of them.
_WITHIN = [ipaddress.ip_network(one) for one in ("::/96", "::ffff:0:0/96", "64:ff9b::/96")]


@functools.cache
def policy():
    documents = yaml.safe_load_all((ROOT / "k8s/base/network-policies.yaml").read_text())
    (internet,) = (one for one in documents if one["metadata"]["name"] == "internet")
    (rule,) = internet["spec"]["egress"]
    return [
        (
            ipaddress.ip_network(peer["ipBlock"]["cidr"]),
            [ipaddress.ip_network(one) for one in peer["ipBlock"]["except"]],
        )
        for peer in rule["to"]
    ]


def lets_through(address):
    return any(address in block and not any(address in one for one in but) for block, but in policy())


def told(name):
    """The resolver's own examples, which its test holds it to."""
    text = (ROOT / "crates/jm-engines/src/audio/address.rs").read_text()
    (words,) = re.findall(rf'const {name}: &str = "(.*?)";', text, re.DOTALL)
    return [ipaddress.ip_address(word) for word in words.replace("\\", " ").split()]


class Addresses(unittest.TestCase):
    def test_what_the_resolver_refuses_the_policy_refuses(self):
        self.assertEqual([str(one) for one in told("PRIVATE") if lets_through(one)], [])

    def test_what_the_resolver_takes_for_public_the_policy_lets_through(self):
        refused = [one for one in told("PUBLIC") if not lets_through(one)]
        self.assertEqual([str(one) for one in refused if not any(one in block for block in _WITHIN)], [])

    def test_the_ends_of_each_exception_are_among_the_resolvers_examples_or_refused_by_it(self):
        private = set(told("PRIVATE"))
        for _, exceptions in policy():
            for block in exceptions:
                self.assertTrue(any(one in block for one in private), f"{block} is no example of the resolver's")

    def test_ranges_that_stand_for_private_addresses_are_refused(self):
        for block in (
            "2002::/16", "64:ff9b::/96", "64:ff9b:1::/48", "::ffff:0:0/96", "fec0::/10", "fe80::/10", "fc00::/7",
            "ff00::/8", "198.18.0.0/15", "224.0.0.0/4", "240.0.0.0/4", "10.0.0.0/8", "169.254.0.0/16",
        ):  # fmt: skip
            network = ipaddress.ip_network(block)
            for address in (network[0], network[network.num_addresses // 2], network[-1]):
                self.assertFalse(lets_through(address), f"{address} of {block}")

    def test_every_exception_is_one_that_the_api_server_takes(self):
        """It has to be a strict part of its block, and no address of IPv4 in the clothes of IPv6."""
        for block, exceptions in policy():
            for one in exceptions:
                self.assertTrue(one.subnet_of(block) and one != block, str(one))
                self.assertIsNone(getattr(one.network_address, "ipv4_mapped", None), str(one))


if __name__ == "__main__":
    unittest.main()

import unittest

from rule import InvalidConfig, reason_to_deny


class Rule(unittest.TestCase):
    def test_only_who_is_on_the_list_may_see_it(self):
        self.assertIsNone(reason_to_deny("ann", {"users": ["ann"]}))
        self.assertEqual(reason_to_deny("bob", {"users": ["ann"]}), "bob is not on the list")
        self.assertEqual(reason_to_deny("bob", {}), "bob is not on the list")

    def test_a_wrong_configuration_is_told(self):
        with self.assertRaises(InvalidConfig):
            reason_to_deny("ann", {"users": "ann"})

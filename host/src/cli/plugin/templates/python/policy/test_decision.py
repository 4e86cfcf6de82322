import unittest

from decision import InvalidConfig, reason_to_deny

RESTRICTED = {"restricted": "true"}


class Decision(unittest.TestCase):
    def test_open_events_are_for_everybody(self):
        self.assertIsNone(reason_to_deny({}, "bob", users=["ada"]))

    def test_restricted_events_are_for_the_users_of_the_list(self):
        self.assertIsNone(reason_to_deny(RESTRICTED, "ada", users=["ada"]))
        self.assertEqual(
            reason_to_deny(RESTRICTED, "bob", users=["ada"]), "bob may not see restricted events"
        )
        self.assertIsNotNone(reason_to_deny(RESTRICTED, "bob"))

    def test_a_wrong_configuration_is_told(self):
        with self.assertRaises(InvalidConfig):
            reason_to_deny({}, "ada", users="ada")


if __name__ == "__main__":
    unittest.main()

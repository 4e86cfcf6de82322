import unittest

from rule import InvalidConfig, InvalidEvent, reason_to_skip


class Rule(unittest.TestCase):
    def test_small_files_are_skipped(self):
        self.assertIsNone(reason_to_skip({"size": 10}, {"smallest": 10}))
        self.assertEqual(reason_to_skip({"size": 9}, {"smallest": 10}), "size 9 < 10")
        self.assertIsNone(reason_to_skip({"size": 9}, {}))

    def test_an_event_without_a_size_and_a_wrong_configuration_are_told(self):
        with self.assertRaises(InvalidEvent):
            reason_to_skip(None, {})
        with self.assertRaises(InvalidConfig):
            reason_to_skip({"size": 9}, {"smallest": "ten"})

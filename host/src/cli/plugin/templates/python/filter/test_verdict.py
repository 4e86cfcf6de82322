import unittest

from verdict import InvalidConfig, InvalidEvent, reason_to_skip


class Verdict(unittest.TestCase):
    def test_big_files_are_delivered_and_small_ones_skipped(self):
        self.assertIsNone(reason_to_skip({"size": 10}, smallest=10))
        self.assertEqual(reason_to_skip({"size": 5}, smallest=10), "size 5 < 10")
        self.assertIsNone(reason_to_skip({"size": 5}))

    def test_an_event_without_a_size_and_a_wrong_configuration_are_told(self):
        with self.assertRaises(InvalidEvent):
            reason_to_skip(None)
        with self.assertRaises(InvalidConfig):
            reason_to_skip({"size": 5}, smallest="big")


if __name__ == "__main__":
    unittest.main()

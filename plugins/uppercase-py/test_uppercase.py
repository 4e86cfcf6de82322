import unittest

import uppercase


class Uppercase(unittest.TestCase):
    def test_every_text_is_upper_cased_and_names_and_numbers_stay(self):
        data = {"title": "Größe", "tags": ["a", {"b": "c"}], "size": 5, "gone": None}
        expected = {"title": "GRÖSSE", "tags": ["A", {"b": "C"}], "size": 5, "gone": None}
        self.assertEqual(uppercase.value(data, None), expected)
        self.assertEqual(uppercase.value("a", None), "A")

    def test_only_the_named_members_are(self):
        self.assertEqual(uppercase.value({"a": "x", "b": "y"}, ["a", "c"]), {"a": "X", "b": "y"})
        with self.assertRaises(uppercase.InvalidEvent):
            uppercase.value(["x"], ["a"])

    def test_members_that_are_no_list_are_an_invalid_configuration(self):
        self.assertEqual(uppercase.names(["a"]), ["a"])
        self.assertIsNone(uppercase.names(None))
        with self.assertRaises(uppercase.InvalidConfig):
            uppercase.names("a")

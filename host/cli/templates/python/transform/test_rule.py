import unittest

from rule import InvalidConfig, message


class Rule(unittest.TestCase):
    def test_an_event_becomes_a_message(self):
        look = message("file.written", "/microscope", {"prefix": "Look"})
        self.assertEqual(look, {"text": "Look: file.written from /microscope"})
        new = message("file.written", "/microscope", {})
        self.assertEqual(new, {"text": "New: file.written from /microscope"})

    def test_a_wrong_configuration_is_told(self):
        with self.assertRaises(InvalidConfig):
            message("file.written", "/microscope", {"prefix": 7})

import unittest

from message import InvalidConfig, text


class Message(unittest.TestCase):
    def test_a_message_names_the_type_and_what_the_event_is_about(self):
        self.assertEqual(text("file.created", "a.tiff", prefix="Lab: "), "Lab: file.created a.tiff")
        self.assertEqual(text("file.created", "1"), "file.created 1")

    def test_a_wrong_configuration_is_told(self):
        with self.assertRaises(InvalidConfig):
            text("file.created", "1", prefix=7)


if __name__ == "__main__":
    unittest.main()

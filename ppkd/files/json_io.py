"""Reads JSON that this project has written and anybody may have changed since."""

import json

from ppkd.errors import UserError
from ppkd.files.regular import open_file


def read_json(path, advice=""):
    """What a JSON file says.

    Args:
        path: of the file.
        advice: what to do where it cannot be read, for the end of the message.

    Raises:
        UserError: it is not there, no regular file, or no JSON.
    """
    try:
        with open_file(path, encoding="utf-8") as file:
            return json.load(file)
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: damaged or not readable ({error}){advice}") from None

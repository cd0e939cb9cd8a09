"""Kinds of values that arguments have: functions from the text, for argparse."""

import argparse


def positive(text):
    """A whole number from 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("has to be at least 1")
    return value


def part(text):
    """``I/N``: (I - 1, N)."""
    number, _, count = text.partition("/")
    if not 1 <= int(number) <= int(count):
        raise argparse.ArgumentTypeError("has to be a part such as 1/2")
    return int(number) - 1, int(count)


def share(text):
    """A share as a number or in percent."""
    value = float(text[:-1]) / 100 if text.endswith("%") else float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError("has to be a share such as 20% or 0.2")
    return value


def names(text):
    """Names between commas."""
    return [name.strip() for name in text.split(",") if name.strip()]


def flag(text):
    """True or false, in one of some words."""
    if text.lower() in ("true", "1", "yes"):
        return True
    if text.lower() in ("false", "0", "no"):
        return False
    raise argparse.ArgumentTypeError("has to be true or false")

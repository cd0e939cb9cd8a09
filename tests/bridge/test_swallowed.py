"""Keys that a class takes and never reads: PP-YOLOE's backbone makes another detector of a typing error."""

import logging

import pytest

from ppkd.bridge.swallowed import check_swallowed
from ppkd.bridge.workspace import build_detector
from ppkd.errors import UserError
from ppkd.files.yaml_io import clone
from ppkd.terminal.log import logger


@pytest.fixture
def config(recipe):
    return clone(recipe("ppyoloe", distil=False).student)


def test_a_mistyped_key_of_a_backbone_that_takes_any_is_refused(config):
    config["CSPResNet"]["use_large_sten"] = True
    with pytest.raises(UserError, match="CSPResNet has no key 'use_large_sten'; nearest: use_large_stem"):
        build_detector(config)


def test_another_key_is_told(config, caplog):
    logger().addHandler(caplog.handler)
    config["CSPResNet"]["of_nothing"] = True
    with caplog.at_level(logging.WARNING):
        build_detector(config)
    logger().removeHandler(caplog.handler)
    assert "CSPResNet has 'of_nothing', which its class takes and never reads" in caplog.text


class Read:
    def __init__(self, depth=1, **options):
        self.options = options


class ReadInside:
    def __init__(self, depth=1, **options):
        self.options = lambda: options


class Beneath(Read):
    def __init__(self, depth=1, **options):
        super().__init__(depth, **options)


class Swallowing:
    def __init__(self, *several, depth=1, **options):
        self.several = several, depth


@pytest.mark.parametrize("kind", [Read, ReadInside, Beneath, str, None])
def test_keys_that_a_class_may_read_are_its_own(kind):
    check_swallowed({"A": {"depths": 2}}, {"A": kind}.get)


def test_other_classes_are_looked_at():
    check_swallowed({"A": {"depth": 2, "name": "A"}, "B": 3}, {"A": Swallowing}.get)
    with pytest.raises(UserError, match="A has no key 'depths'; nearest: depth"):
        check_swallowed({"A": {"depths": 2}}, {"A": Swallowing}.get)

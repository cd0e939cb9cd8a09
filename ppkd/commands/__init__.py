"""What the commands do, given their parsed arguments: a function a command, named as in `cli.COMMANDS`."""

from ppkd.commands.around import configs, data, demo, hosts
from ppkd.commands.labelling import label
from ppkd.commands.learning import bank, doctor, explain, layers, train
from ppkd.commands.studying import compare, report
from ppkd.commands.using import evaluate, export, infer
from ppkd.commands.weights import convert, halve
from ppkd.commands.whole import distill, init
from ppkd.training.device import start_device

__all__ = [
    "bank", "compare", "configs", "convert", "data", "demo", "distill", "doctor", "evaluate", "explain", "export",
    "halve", "hosts", "infer", "init", "label", "layers", "report", "start_device", "train",
]  # fmt: skip

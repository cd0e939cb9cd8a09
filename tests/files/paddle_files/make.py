"""Writes this folder's files with the Paddle that runs it: ``python make.py``; one run with 2.6.2, one with 3.3.1."""

import pathlib

import numpy as np
import paddle

folder, version = pathlib.Path(__file__).parent, paddle.__version__
model = paddle.nn.Sequential(paddle.nn.Linear(3, 2), paddle.nn.BatchNorm1D(2))
model[0].weight.set_value(np.arange(6, dtype="float32").reshape(3, 2))
rate = paddle.optimizer.lr.CosineAnnealingDecay(0.001, 9)
optimizer = paddle.optimizer.AdamW(learning_rate=rate, parameters=model.parameters())
(model(paddle.to_tensor(np.eye(3, dtype="float32"))) ** 3).sum().backward()
kept = {name: tensor.clone() for name, tensor in model.state_dict().items()}
optimizer.step()
rate.step()
nested = {"epoch": 3, "best": 0.5, "names": ["a", ("b", None)],
          "deep": {"student": kept, "optimizer": optimizer.state_dict()}}  # fmt: skip
for protocol in (2, 4):
    paddle.save(kept, str(folder / f"weights_{version}_{protocol}.pdparams"), protocol=protocol)
    paddle.save(optimizer.state_dict(), str(folder / f"optimizer_{version}_{protocol}.pdopt"), protocol=protocol)
    paddle.save(nested, str(folder / f"nested_{version}_{protocol}.pdparams"), protocol=protocol)

"""Makes ``outputs.npz`` beside this file: what Hugging Face's transformers gives for small vision transformers.

    python tests/models/vit/make.py        # needs torch, transformers and numpy; ppkd is not used

Weights and images are drawn by `drawn`, so that only results have to be kept. The names of the tensors are those of the
published files, which `save_pretrained` writes.
"""

import pathlib
import tempfile
import zlib

import numpy as np


def sizes(family, width, depth, heads, registers, grid, hidden=64, gated=False):
    """A case's sizes as ppkd has them; patches are of 4 pixels."""
    return {
        "family": family, "width": width, "depth": depth, "heads": heads, "patch": 4, "registers": registers,
        "gated": gated, "hidden": hidden, "grid": grid,
    }  # fmt: skip


# Case -> (sizes, height and width of the images). 37 x 31 pixels are no whole patches.
CASES = {
    "dinov2": (sizes("dinov2", 16, 3, 2, 0, 5), (28, 20)),
    "dinov2 as learned": (sizes("dinov2", 16, 2, 2, 0, 5), (20, 20)),
    "dinov2 smaller": (sizes("dinov2", 16, 2, 2, 0, 9), (20, 13)),
    "dinov2 registers": (sizes("dinov2", 16, 2, 4, 4, 9), (16, 24)),
    "dinov2 registers larger": (sizes("dinov2", 16, 2, 4, 2, 4), (37, 31)),
    "dinov2 gated": (sizes("dinov2", 24, 2, 2, 0, 5, gated=True), (24, 28)),
    "dinov3": (sizes("dinov3", 16, 3, 2, 4, 0), (24, 36)),
    "dinov3 gated": (sizes("dinov3", 24, 2, 2, 3, 0, hidden=56, gated=True), (37, 31)),
}
HERE = pathlib.Path(__file__).parent


def drawn(name, shape):
    """Numbers for a tensor, by its name."""
    values = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape) * 0.3
    return (values + (1.0 if "norm" in name and name.endswith("weight") else 0.0)).astype("float32")


def image(size):
    """Two images of a case."""
    return np.random.RandomState(size[0]).standard_normal([2, 3, *size]).astype("float32")


def _model(given):
    from transformers import (
        Dinov2Config,
        Dinov2Model,
        Dinov2WithRegistersConfig,
        Dinov2WithRegistersModel,
        DINOv3ViTConfig,
        DINOv3ViTModel,
    )  # fmt: skip

    shared = {
        "hidden_size": given["width"], "num_hidden_layers": given["depth"], "num_attention_heads": given["heads"],
        "patch_size": given["patch"],
    }  # fmt: skip
    if given["registers"]:
        shared["num_register_tokens"] = given["registers"]
    if given["family"] == "dinov3":
        acts = {"hidden_act": "silu"} if given["gated"] else {}
        config = DINOv3ViTConfig(**shared, **acts, intermediate_size=given["hidden"], use_gated_mlp=given["gated"])
        return DINOv3ViTModel(config)
    shared |= {"image_size": given["grid"] * given["patch"], "use_swiglu_ffn": given["gated"], "mlp_ratio": 4}
    if given["registers"]:
        return Dinov2WithRegistersModel(Dinov2WithRegistersConfig(**shared))
    return Dinov2Model(Dinov2Config(**shared))


def main():
    import torch
    from safetensors.numpy import load_file, save_file

    found = {}
    for case, (given, size) in CASES.items():
        model = _model(given).eval()
        with tempfile.TemporaryDirectory() as folder:
            model.save_pretrained(folder)
            path = f"{folder}/model.safetensors"
            shapes = {name: list(value.shape) for name, value in load_file(path).items()}
            save_file({name: drawn(name, shape) for name, shape in shapes.items()}, path, {"format": "pt"})
            model = type(model).from_pretrained(folder).eval()
        with torch.no_grad():
            result = model(torch.from_numpy(image(size)), output_hidden_states=True)
        skip = 1 + given["registers"]
        norm = getattr(model, "layernorm", None) or model.norm
        rows, columns = (side // given["patch"] for side in size)
        for k, hidden in enumerate(result.hidden_states[1:]):
            with torch.no_grad():
                tokens = norm(hidden)[:, skip:]
            found[f"{case}/map{k}"] = tokens.transpose(1, 2).reshape(2, given["width"], rows, columns).numpy()
        found[f"{case}/summary"] = result.last_hidden_state[:, 0].numpy()
        found[f"{case}/names"] = np.array([f"{name} {' '.join(map(str, shape))}" for name, shape in shapes.items()])
        last = found[f"{case}/map{given['depth'] - 1}"]
        whole = result.last_hidden_state[:, skip:].transpose(1, 2).reshape(last.shape)
        assert np.allclose(last, whole.numpy(), atol=1e-5)
    np.savez_compressed(HERE / "outputs.npz", **found)
    print(f"{len(CASES)} cases, {(HERE / 'outputs.npz').stat().st_size} bytes")


if __name__ == "__main__":
    main()
